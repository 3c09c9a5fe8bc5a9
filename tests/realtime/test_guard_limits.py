"""The token, guesses, floods and idle connections, by a real server and real sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra web")

from attacks import WEBSOCKET, cookie_of, read_answer, request
from guarded import LINK, LOGIN, TOKEN, Guarded, guarding

from realtime.web import connection
from realtime.web.certificate import make_certificate, ssl_context
from realtime.web.connection import CONNECTIONS
from realtime.web.guard import REQUESTS_AT_ONCE
from realtime.web.limits import GUESS_SECONDS, GUESSES


@pytest.fixture
def frozen() -> Iterator[Guarded]:
    """With a token and a time that stands still."""
    with guarding(TOKEN) as served:
        served.now_s = 0.0
        yield served


def test_a_token_in_the_address_becomes_a_cookie(frozen: Guarded) -> None:
    answer = frozen.get(f"/?token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    given = answer.headers["set-cookie"]
    assert TOKEN not in given
    parts = {part.strip().lower() for part in given.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= parts
    assert "secure" not in parts
    cookie = cookie_of(answer)
    assert frozen.get("/", cookie).status == 200
    assert frozen.send(request("GET /ws", cookie, *WEBSOCKET)).status == 101
    again = frozen.get(f"/?token={TOKEN}", cookie)
    assert (again.status, "set-cookie" in again.headers) == (303, False)
    assert frozen.get("/?token=old", cookie).status == 303
    for path in (f"/stream.mjpg?token={TOKEN}", f"/api/state?a=1&token={TOKEN}"):
        answer = frozen.get(path)
        assert (answer.status, "set-cookie" in answer.headers) == (200, False)
    assert frozen.get("/", cookie[:-1] + ("0" if cookie[-1] != "0" else "1")).status == 401


def test_a_cookie_outlives_a_restart_with_the_same_token_only() -> None:
    with guarding(TOKEN) as first:
        cookie = cookie_of(first.get(f"/?token={TOKEN}"))
        port = first.port
    with guarding(TOKEN, port=port) as second:
        assert second.get("/", cookie).status == 200
    with guarding("another-token-of-today", port=port) as third:
        assert third.get("/", cookie).status == 401


def test_a_link_of_another_site_comes_in_by_a_reload(frozen: Guarded) -> None:
    """Browsers leave strict cookies at home for it, and bring them when the page reloads."""
    answer = frozen.get("/", *LINK)
    assert answer.status == 401
    assert b'http-equiv="refresh"' in answer.body
    reloaded = frozen.get("/", "Sec-Fetch-Site: same-origin", *LINK[1:])
    assert b"refresh" not in reloaded.body
    assert frozen.get(f"/?token={TOKEN}", *LINK).status == 303


def test_guesses_are_few_and_whoever_is_in_stays_in(frozen: Guarded) -> None:
    cookie = cookie_of(frozen.get(f"/?token={TOKEN}"))
    for _ in range(3 * GUESSES):  # a page of yesterday, that knocks and knocks
        assert frozen.get("/api/state", "Cookie: pix2live-{port}=old.old").status == 401
    for guess in range(GUESSES - 1):
        ways = (f"Authorization: Bearer g{guess}", f"Cookie: pix2live-{{port}}=g{guess}.x")
        assert frozen.get("/api/state", ways[guess % 2]).status == 401
    for path in ("/api/state", f"/?token={TOKEN}", f"/stream.mjpg?token={TOKEN}"):
        answer = frozen.get(path, LOGIN)
        assert answer.status == 429
        assert 1 <= int(answer.headers["retry-after"]) <= GUESS_SECONDS
        assert b"too many wrong tokens" in answer.body
    assert frozen.get("/api/state", cookie).status == 200
    # Without any token there is nothing to guess with.
    assert frozen.get("/api/state").status == 401
    neighbour = request("GET /api/state", "Connection: close")
    assert frozen.send(neighbour, LOGIN, source="127.0.0.2").status == 200
    frozen.wait(GUESS_SECONDS / GUESSES + 0.1)
    assert frozen.get("/api/state", "Authorization: Bearer yet another").status == 401
    assert frozen.get("/api/state", LOGIN).status == 429
    frozen.wait(GUESS_SECONDS)
    assert frozen.get("/api/state", LOGIN).status == 200


def test_several_wrong_tokens_in_one_request_are_several_guesses(frozen: Guarded) -> None:
    statuses = [
        frozen.get(
            f"/api/state?token=q{number}",
            f"Authorization: Bearer b{number}",
            f"Cookie: pix2live-{{port}}=c{number}.x",
        ).status
        for number in range(5)
    ]
    assert statuses == [401, 401, 401, 429, 429]


def flood(served: Guarded, count: int, *headers: str) -> list[int]:
    """Send requests one behind the other over one connection and return the statuses."""
    one = request("GET /api/state", *headers).format(
        host=f"127.0.0.1:{served.port}", port=served.port, login="X-No: token"
    )
    found = []
    with socket.create_connection(("127.0.0.1", served.port), 20.0) as connection:
        stream = connection.makefile("rb")
        for _ in range(count // 50):
            connection.sendall(one.encode() * 50)
            for _ in range(50):
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = stream.readline()
                    assert line, "the server hung up"
                    head += line
                answer = read_answer(head)
                stream.read(int(answer.headers["content-length"]))
                found.append(answer.status)
    return found


def test_a_thousand_rapid_requests_are_too_many_and_others_notice_nothing() -> None:
    with guarding() as served:
        served.now_s = 0.0
        found = flood(served, 1000)
        assert found == [200] * int(REQUESTS_AT_ONCE) + [429] * (1000 - int(REQUESTS_AT_ONCE))
        answer = served.get("/api/state")
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        other = served.send(request("GET /api/state", "Connection: close"), source="127.0.0.3")
        assert other.status == 200
        served.wait(1.0)
        assert served.get("/api/state").status == 200


def test_a_flood_without_the_token_empties_nobodys_bucket(frozen: Guarded) -> None:
    """Not even of who has the same address: a router's, a proxy's."""
    cookie = cookie_of(frozen.get(f"/?token={TOKEN}"))
    found = flood(frozen, 1000)
    assert set(found) == {401, 429}
    assert found[-1] == 429
    assert frozen.get("/", cookie).status == 200


def test_what_a_foreign_page_asks_for_empties_nobodys_bucket() -> None:
    """It runs in the browser of a person who may come in."""
    with guarding() as served:
        served.now_s = 0.0
        assert set(flood(served, 1000, "Sec-Fetch-Site: cross-site")) == {403}
        assert served.get("/").status == 200


def test_connections_that_say_nothing_are_closed() -> None:
    with guarding(wait_s=0.5) as served, contextlib.ExitStack() as stack:
        silent, slow = (
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port), 20.0))
            for _ in range(2)
        )
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):  # a header that never ends
            slow.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
            while time.monotonic() < started + 15.0:
                slow.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < started + 15.0, "the slow one was never closed"
        with contextlib.suppress(ConnectionError):
            assert silent.recv(10) == b""
        assert served.get("/").status == 200


def test_handshakes_that_never_end_are_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography", reason="certificates need the extra web")
    monkeypatch.setattr(connection, "CONNECTIONS", 6)
    server_side = ssl_context(make_certificate(["127.0.0.1"], tmp_path))
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE

    def status(port: int, source: str) -> bytes:
        """Return the first line of an answer; b"" where the server hangs up."""
        plain = socket.create_connection(("127.0.0.1", port), 20.0, (source, 0))
        try:
            with anyone.wrap_socket(plain) as secured:
                secured.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
                return secured.recv(12)
        except OSError:  # ssl.SSLError is one
            return b""

    with guarding(tls=server_side, wait_s=60.0) as served, contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port), 20.0))
            for _ in range(6)
        ]
        over = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), 20.0))
        with contextlib.suppress(ConnectionError):
            assert over.recv(10) == b"", "without a word"
        assert status(served.port, "127.0.0.1") == b""
        assert status(served.port, "127.0.0.2") == b"HTTP/1.1 200"
        for item in silent:
            item.close()
        deadline = time.monotonic() + 20.0
        while status(served.port, "127.0.0.1") != b"HTTP/1.1 200":  # the places are free again
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(20):
            assert status(served.port, "127.0.0.1") == b"HTTP/1.1 200", "each is given back"


def test_one_client_cannot_take_all_connections() -> None:
    with guarding() as served, contextlib.ExitStack() as stack:
        made = [
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port), 20.0))
            for _ in range(CONNECTIONS + 20)
        ]
        for over in made[CONNECTIONS:]:
            with contextlib.suppress(ConnectionError):
                assert over.recv(10) == b""
        other = request("GET /", "Connection: close")
        assert served.send(other, source="127.0.0.2").status == 200
        for connection in made:
            connection.close()
        deadline = time.monotonic() + 20.0
        while served.get("/").status != 200:  # the places are free again
            assert time.monotonic() < deadline
            time.sleep(0.05)
