"""Certificates: real TLS handshakes, kept, renewed, refused."""

from __future__ import annotations

import datetime
import re
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="TLS needs the extra web")
pytest.importorskip("aiohttp", reason="the page needs the extra web")

from attacks import WEBSOCKET, read_answer, request
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from guarded import TOKEN, guarding

from engines import SettingsError
from realtime.web import certificate as module
from realtime.web.addresses import addresses_of
from realtime.web.certificate import (
    MOST_DAYS,
    Certificate,
    make_certificate,
    read_certificate,
    ssl_context,
)

ROOT = Path(__file__).parents[2]
HOSTS = ("localhost", "127.0.0.1", "::1", "box.local", "192.168.1.7", "2001:db8::7")
DAY = datetime.timedelta(days=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def trusting(certificate: Certificate) -> ssl.SSLContext:
    """Return a client that trusts this certificate and nothing else, as strictly as it can."""
    context = ssl.create_default_context(cafile=str(certificate.cert_path))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def handshake(certificate: Certificate, client: ssl.SSLContext, host: str) -> str | None:
    """Return the TLS version of a real handshake with `host`; raises what the client raises."""
    ours, theirs = socket.socketpair()
    context = ssl_context(certificate)

    def serve() -> None:
        try:
            with context.wrap_socket(ours, server_side=True) as stream:
                stream.recv(1)
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(theirs, server_hostname=host) as stream:
            version = stream.version()
            stream.sendall(b"x")
            return version
    finally:
        theirs.close()
        thread.join(20)
        ours.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(HOSTS, tmp_path_factory.mktemp("tls") / "new")


@pytest.mark.parametrize("host", HOSTS)
def test_a_client_that_trusts_it_verifies_every_host(made: Certificate, host: str) -> None:
    assert handshake(made, trusting(made), host) == "TLSv1.3"


def test_other_hosts_and_old_tls_are_refused(made: Certificate) -> None:
    for host in ("evil.example", "127.0.0.2", "x.box.local"):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(made, trusting(made), host)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made, ssl.create_default_context(), "localhost")
    newer = trusting(made)
    newer.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(made, newer, "localhost") == "TLSv1.2"
    assert ssl_context(made).minimum_version == ssl.TLSVersion.TLSv1_2


def test_it_is_what_browsers_take(made: Certificate) -> None:
    loaded = x509.load_pem_x509_certificate(made.cert_path.read_bytes())
    assert loaded.not_valid_after_utc - loaded.not_valid_before_utc <= MOST_DAYS * DAY
    assert loaded.not_valid_after_utc == made.not_after > now() + 390 * DAY
    key = loaded.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    usage = loaded.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1")]
    assert not loaded.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    printed = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", made.cert_path],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert printed.strip().partition("=")[2] == made.fingerprint
    assert re.fullmatch(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", made.fingerprint)


def test_only_the_owner_reads_the_key(made: Certificate) -> None:
    assert made.key_path.stat().st_mode & 0o777 == 0o600
    assert made.key_path.parent.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in made.key_path.parent.iterdir()} <= {
        "certificate.pem", "key.pem", "lock",
    }  # fmt: skip


def test_it_is_taken_again_and_made_anew_when_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_certificate(HOSTS, tmp_path)
    assert make_certificate(["[::1]:8080", "https://LOCALHOST:1", "box.local"], tmp_path) == first
    assert make_certificate(HOSTS[:2], tmp_path) == first  # an address that is gone for now
    more = make_certificate([*HOSTS, "10.0.0.1"], tmp_path)
    assert more.fingerprint != first.fingerprint
    assert handshake(more, trusting(more), "10.0.0.1")

    def is_made_anew(before: Certificate) -> Certificate:
        after = make_certificate(HOSTS, tmp_path)
        assert after.fingerprint != before.fingerprint
        assert handshake(after, trusting(after), "localhost")
        assert after.key_path.stat().st_mode & 0o777 == 0o600
        return after

    more.key_path.chmod(0o644)  # somebody may have read it
    again = is_made_anew(more)
    again.cert_path.write_bytes(first.cert_path.read_bytes()[:200])
    again = is_made_anew(again)
    again.key_path.write_bytes(again.cert_path.read_bytes())
    again = is_made_anew(again)
    again.key_path.unlink()
    again = is_made_anew(again)
    with monkeypatch.context() as short:  # one that ends in six days
        short.setattr(module, "MOST_DAYS", 7)
        again = make_certificate([*HOSTS, "renewed"], tmp_path)
        assert make_certificate(HOSTS, tmp_path).fingerprint != again.fingerprint
    with monkeypatch.context() as short:  # eight days are enough
        short.setattr(module, "MOST_DAYS", 9)
        again = make_certificate([*HOSTS, "kept"], tmp_path)
    assert make_certificate(HOSTS, tmp_path) == again


def test_many_servers_at_once_agree(tmp_path: Path) -> None:
    found: list[Certificate] = []
    threads = [
        threading.Thread(target=lambda: found.append(make_certificate(HOSTS, tmp_path)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len({item.fingerprint for item in found}) == 1


def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least one name"):
        make_certificate([], tmp_path)
    for bad in ("a b", "a/b", "", "\u2603" * 90):
        with pytest.raises(SettingsError, match="no name or address that a certificate can have"):
            make_certificate([bad], tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsError, match=r"cannot be kept in .*--cert and --key"):
        make_certificate(HOSTS, tmp_path / "file" / "below")


def pem_pair(
    folder: Path, *, begin: datetime.datetime, end: datetime.datetime, password: bytes | None = None
) -> tuple[Path, Path]:
    """Write a certificate of somebody else's making, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "theirs")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(begin).not_valid_after(end)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return cert_path, key_path


def test_your_own_certificate(tmp_path: Path) -> None:
    cert, key = pem_pair(tmp_path, begin=now() - DAY, end=now() + DAY)
    taken = read_certificate(cert, key)
    assert (taken.cert_path, taken.key_path) == (cert, key)
    ssl_context(taken)
    both = tmp_path / "both.pem"  # one file with both, as some tools write it
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    assert read_certificate(both, both).fingerprint == taken.fingerprint


def test_what_is_wrong_with_your_own_is_said(tmp_path: Path) -> None:
    cert, key = pem_pair(tmp_path / "good", begin=now() - DAY, end=now() + DAY)
    _, other = pem_pair(tmp_path / "other", begin=now() - DAY, end=now() + DAY)
    old = pem_pair(tmp_path / "old", begin=now() - 9 * DAY, end=now() - DAY)
    coming = pem_pair(tmp_path / "coming", begin=now() + 2 * DAY, end=now() + 9 * DAY)
    locked = pem_pair(tmp_path / "locked", begin=now() - DAY, end=now() + DAY, password=b"secret")
    text = tmp_path / "text"
    text.write_text("no certificate")
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)))
    yesterday = f"{now() - DAY:%Y-%m-%d}"
    for pair, said in (
        ((cert, other), "is not the key of"),
        (old, f"ended on {yesterday}"),
        (coming, "begins on .*clock"),
        (locked, "is encrypted"),
        ((text, key), "no certificate in PEM form"),
        ((binary, key), "no certificate in PEM form"),
        ((key, key), "no certificate in PEM form"),
        ((cert, text), "no private key in PEM form"),
        ((cert, cert), "no private key in PEM form"),
        ((tmp_path / "missing", key), "missing cannot be read: No such file"),
        ((cert, tmp_path), "cannot be read: Is a directory"),
    ):
        with pytest.raises(SettingsError, match=said) as caught:
            read_certificate(*pair)
        assert "\n" not in str(caught.value)


def test_a_key_that_is_too_short_is_refused(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=short",
         "-days", "3", "-keyout", key, "-out", cert],
        capture_output=True, check=True,
    )  # fmt: skip
    with pytest.raises(SettingsError, match=r"OpenSSL does not take .*(too small|KEY_TOO_SMALL)"):
        ssl_context(read_certificate(cert, key))


def test_the_guard_behind_tls(made: Certificate) -> None:
    """Names and origins are those of https, and the cookie is for secure pages only."""
    with guarding(TOKEN, tls=ssl_context(made)) as served:

        def ask(line: str, *headers: str) -> tuple[int, dict[str, str]]:
            text = request(line, *headers, host="localhost:{port}")
            filled = text.format(port=served.port, login="X-No: token")
            plain = socket.create_connection(("127.0.0.1", served.port), 20)
            with trusting(made).wrap_socket(plain, server_hostname="localhost") as stream:
                stream.sendall(filled.encode())
                received = b""
                while b"\r\n\r\n" not in received and (chunk := stream.recv(65_536)):
                    received += chunk
            answer = read_answer(received)
            return answer.status, answer.headers

        status, headers = ask(f"GET /?token={TOKEN}")
        assert status == 303
        cookie = headers["set-cookie"]
        assert cookie.startswith(f"__Host-pix2live-{served.port}=")
        assert {"secure", "httponly"} <= {part.strip().lower() for part in cookie.split(";")}
        login = f"Cookie: {cookie.partition(';')[0]}"
        status, headers = ask("GET /", login)
        assert status == 200
        policy = headers["content-security-policy"]
        assert f"connect-src 'self' wss://localhost:{served.port};" in policy
        for scheme, wanted in (("https", 101), ("http", 403)):
            origin = f"Origin: {scheme}://localhost:{served.port}"
            assert ask("GET /ws", login, origin, *WEBSOCKET)[0] == wanted
        with socket.create_connection(("127.0.0.1", served.port), 20) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert plain.recv(100) == b""
        assert ask("GET /", login)[0] == 200


def test_without_cryptography_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path\n"
        "from engines import SettingsError\n"
        "from realtime.web.certificate import make_certificate, read_certificate\n"
        "for call in (lambda: make_certificate(['a'], Path('x')),"
        " lambda: read_certificate(Path('x'), Path('x'))):\n"
        "    try: call()\n"
        "    except SettingsError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.stdout.count("pip install 'pix2live[web]'") == 2, done.stderr
    assert not (ROOT / "x").exists()


def test_all_hosts_of_this_machine_fit_in_one(tmp_path: Path) -> None:
    hosts = addresses_of("0.0.0.0")
    certificate = make_certificate(hosts, tmp_path)
    for host in hosts:
        assert handshake(certificate, trusting(certificate), host)
