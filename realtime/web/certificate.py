"""Certificates for `pix2live serve --tls`: one of its own making, or yours.

Browsers give the camera to secure pages only, and a phone in the same network is not on loopback.
A certificate that the machine makes itself encrypts as well as a bought one; who opens the page
sees a warning once, and can compare the fingerprint.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from engines import SettingsError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MOST_DAYS = 397
"""Safari and Chrome refuse server certificates that are good for longer."""
RENEWED_DAYS = 7
"""One that ends sooner than this is made anew."""
NAME = "pix2live"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key on disk.

    Attributes:
        cert_path: PEM, with the chain where there is one.
        key_path: PEM, not encrypted.
        fingerprint: SHA-256 of the certificate as browsers show it, "AA:BB:...".
        not_after: when it ends, with its time zone (UTC).
    """

    cert_path: Path
    key_path: Path
    fingerprint: str
    not_after: datetime.datetime


def make_certificate(hosts: Iterable[str], folder: Path) -> Certificate:
    """Return a self-signed certificate for `hosts`, kept in `folder`.

    The one that is there is taken again while it has these hosts, fits its key and is good for
    another week, so that what a phone once accepted stays accepted. Elliptic curve P-256,
    names and addresses as SubjectAltName; the key is readable by its owner only.

    Args:
        hosts: names and addresses; ports and brackets are left out.
        folder: made where it is missing, for its owner alone.

    Raises:
        SettingsError: no hosts, a name that cannot be in a certificate, a folder that cannot be
            written, or cryptography is not installed.
    """
    _import_cryptography()
    names = sorted({_bare(host) for host in hosts})
    if not names:
        raise SettingsError("a certificate needs at least one name or address of this machine")
    cert_path, key_path = folder / "certificate.pem", folder / "key.pem"
    kept = _kept(cert_path, key_path, names)
    if kept is not None:
        return kept
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # a second server may start at the same moment
            kept = _kept(cert_path, key_path, names)
            if kept is not None:
                return kept
            cert, key = _make(names)
            # If the second write fails, the pair does not fit and is made anew the next time.
            _write(key_path, key)
            _write(cert_path, cert)
            return read_certificate(cert_path, key_path)
    except OSError as error:
        raise SettingsError(
            f"the certificate cannot be kept in {folder}: {error.strerror or error}; --cert and "
            "--key take one from elsewhere"
        ) from error


def read_certificate(cert: Path, key: Path) -> Certificate:
    """Return the certificate of two PEM files, once it is sure that it can be served.

    Raises:
        SettingsError: a file is missing or no PEM, the key is encrypted or of another certificate,
            the time is not within the certificate's, or cryptography is not installed.
    """
    _import_cryptography()
    from cryptography.hazmat.primitives import hashes, serialization

    loaded = _load_certificate(cert)
    public = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if _load_key(key).public_key().public_bytes(*public) != loaded.public_key().public_bytes(
        *public
    ):
        raise SettingsError(f"{key} is not the key of {cert}: give the two that were made together")
    now = datetime.datetime.now(datetime.timezone.utc)
    if loaded.not_valid_after_utc <= now:
        raise SettingsError(
            f"{cert} ended on {loaded.not_valid_after_utc:%Y-%m-%d}: renew it, or let --tls alone "
            "make one"
        )
    if loaded.not_valid_before_utc > now:
        raise SettingsError(
            f"{cert} begins on {loaded.not_valid_before_utc:%Y-%m-%d}, and here it is "
            f"{now:%Y-%m-%d}: is the clock of this machine right?"
        )
    digest = loaded.fingerprint(hashes.SHA256())
    return Certificate(cert, key, digest.hex(":").upper(), loaded.not_valid_after_utc)


def ssl_context(certificate: Certificate) -> ssl.SSLContext:
    """Return a server's TLS context (1.2 and newer). SettingsError if OpenSSL refuses the pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Renegotiation lets a client make the server compute; nobody needs it.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A password that asks nobody: OpenSSL would wait for one at the terminal.
        context.load_cert_chain(certificate.cert_path, certificate.key_path, password="")
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"OpenSSL does not take {certificate.cert_path}: {getattr(error, 'reason', error)}; a "
            "key of RSA 2048, P-256 or longer is needed"
        ) from error
    return context


def _import_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        raise SettingsError(
            "--tls needs cryptography, which is not installed: pip install 'pix2live[web]'"
        ) from error


def _bare(host: str) -> str:
    """Return a name or address without scheme, brackets and port, in one spelling."""
    text = host.rpartition("://")[2].strip().lower()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ipaddress.ip_address(text).compressed
    except ValueError:
        pass
    try:
        ascii_name = text if text.isascii() else text.encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    if not ascii_name or not all(part.isalnum() or part in "-._*" for part in ascii_name):
        raise SettingsError(f"{host!r} is no name or address that a certificate can have")
    return ascii_name


def _kept(cert_path: Path, key_path: Path, names: list[str]) -> Certificate | None:
    """Return our own certificate if it can go on: these names, time left, a key nobody has read."""
    from cryptography import x509

    try:
        kept = read_certificate(cert_path, key_path)
        is_private = key_path.stat().st_mode & 0o077 == 0
        found = _load_certificate(cert_path).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (SettingsError, OSError, ValueError, x509.ExtensionNotFound):
        return None
    left = kept.not_after - datetime.datetime.now(datetime.timezone.utc)
    addresses = map(str, found.value.get_values_for_type(x509.IPAddress))
    hosts = {*found.value.get_values_for_type(x509.DNSName), *addresses}
    has_all = hosts.issuperset(names)  # an address that is gone for now is no reason
    return kept if is_private and has_all and left > datetime.timedelta(RENEWED_DAYS) else None


def _make(names: list[str]) -> tuple[bytes, bytes]:
    """Return (certificate, key) as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key: EllipticCurvePrivateKey = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.timezone.utc)
    # A phone's clock may be late; the whole span counts for the 397 days.
    begin = now - datetime.timedelta(days=1)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    names_of_host = x509.SubjectAlternativeName([_general_name(name) for name in names])
    server = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1")  # serverAuth
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=MOST_DAYS))
        .add_extension(names_of_host, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([server]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _load_certificate(path: Path) -> x509.Certificate:
    from cryptography import x509

    content = _read(path)
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise SettingsError(
            f"{path} is no certificate in PEM form (-----BEGIN CERTIFICATE-----); for a .p12 or "
            ".der file: openssl x509 -in FILE -out cert.pem"
        ) from error


def _load_key(path: Path) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    content = _read(path)
    try:
        return serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        raise SettingsError(
            f"{path} is encrypted, and nobody is there to type its password: "
            "openssl pkey -in KEY -out plain.pem; chmod 600 plain.pem"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            f"{path} is no private key in PEM form (-----BEGIN PRIVATE KEY-----)"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}") from error


def _write(path: Path, content: bytes) -> None:
    """Write whole or not at all, for the owner's eyes only: mkstemp makes files of mode 0600."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
