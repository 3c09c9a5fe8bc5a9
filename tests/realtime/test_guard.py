"""The guard of the page, by a real server and real sockets: who gets in, who does not, and how."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra web")

from attacks import (
    ATTACKS,
    JSON_POST,
    NO_ENTRY,
    WEBSOCKET,
    Answer,
    check_refusal,
    cookie_of,
    post,
    request,
)
from guarded import LINK, LOGIN, TOKEN, Guarded, guarding

from engines import SettingsError
from realtime.web.guard import Access, make_guard, new_token

PROMISED = {
    "server": "pix2live",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture(scope="module")
def open_one() -> Iterator[Guarded]:
    with guarding() as served:
        yield served


@pytest.fixture(scope="module")
def locked() -> Iterator[Guarded]:
    with guarding(TOKEN) as served:
        yield served


@pytest.fixture
def frozen() -> Iterator[Guarded]:
    """With a token and a time that stands still."""
    with guarding(TOKEN) as served:
        served.now_s = 0.0
        yield served


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused(open_one: Guarded, locked: Guarded, name: str) -> None:
    for served, login in ((open_one, "X-No: token"), (locked, LOGIN)):
        served.wait()
        before = len(served.entered)
        check_refusal(served.send(ATTACKS[name], login))
        assert len(served.entered) == before


@pytest.mark.parametrize("name", NO_ENTRY)
@pytest.mark.parametrize("path", ["/", "/api/state", "/ws", "/stream.mjpg", "/page/style.css"])
def test_without_the_token_nothing_is_shown(locked: Guarded, name: str, path: str) -> None:
    locked.wait()
    before = len(locked.entered)
    for headers in (NO_ENTRY[name], (*NO_ENTRY[name], *WEBSOCKET)):
        answer = locked.send(request(f"GET {path}", *headers))
        check_refusal(answer)
        assert answer.status == 401
        assert "bearer" in answer.headers["www-authenticate"].lower()
        assert b"open the address that pix2live serve printed" in answer.body
    assert len(locked.entered) == before
    assert locked.get(f"{path}?token=nearly").status == 401


GOOD = {
    "a page": request("GET /"),
    "a page, head": request("HEAD /"),
    "by another name": request("GET /", host="localhost:{port}"),
    "by a name in capitals": request("GET /", host="LocalHost:{port}"),
    "by IPv6": request("GET /", host="[::1]:{port}"),
    "by IPv6, spelt out": request("GET /", host="[0:0:0:0:0:0:0:1]:{port}"),
    "typed in the address bar": request("GET /stream.mjpg", "Sec-Fetch-Site: none"),
    "a link of another site": request("GET /", *LINK),
    "a file of the page": request("GET /page/style.css", "Sec-Fetch-Site: same-origin"),
    "a module of the page": request("GET /page/style.css", "Origin: http://{host}"),
    "a POST of a program": post(*JSON_POST),
    "a POST of the page": post("Origin: http://{host}", *JSON_POST),
    "a POST with a charset": post("Content-Type: application/json; charset=utf-8", JSON_POST[1]),
    "a socket of a program": request("GET /ws", *WEBSOCKET),
    "a socket of the page": request("GET /ws", "Origin: http://{host}", *WEBSOCKET),
    "a stream": request("GET /stream.mjpg"),
}


@pytest.mark.parametrize("name", GOOD)
def test_who_may_gets_in(open_one: Guarded, locked: Guarded, name: str) -> None:
    open_one.wait()
    locked.wait()
    wanted = 101 if "socket" in name else 200
    assert open_one.send(GOOD[name]).status == wanted
    assert locked.send(GOOD[name], LOGIN).status == wanted
    check_headers(open_one.send(GOOD[name]))


def check_headers(answer: Answer) -> None:
    """Every answer has every header."""
    for header, value in PROMISED.items():
        assert answer.headers.get(header) == value, answer.raw[:900]
    policy = answer.headers["content-security-policy"]
    for part in ("default-src 'none'", "script-src 'self';", "connect-src 'self'",
                 "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"):  # fmt: skip
        assert part in policy
    assert "unsafe" not in policy
    assert "camera=(self), microphone=()" in answer.headers["permissions-policy"]
    assert "cache-control" in answer.headers


def test_refusals_have_the_headers_too(locked: Guarded, frozen: Guarded) -> None:
    locked.wait()
    cases = {
        "/api/nothing": 404, "/nothing": 404, "/api/boom": 500, "/api/half": 200,
        "/api/moved": 302, f"/?token={TOKEN}": 303, "/metrics": 200,
    }  # fmt: skip
    for path, status in cases.items():
        answer = locked.get(path, login=LOGIN)
        assert answer.status == status, path
        check_headers(answer)
    for attack in ("host of a rebound name", "not HTTP", "a huge header", "unknown expectation"):
        check_headers(locked.send(ATTACKS[attack]))
    while (answer := frozen.get("/api/state")).status != 429:
        check_headers(answer)
    check_headers(answer)


def test_the_policy_names_the_socket_of_the_page(open_one: Guarded) -> None:
    open_one.wait()
    answer = open_one.send(request("GET /", host="localhost:{port}"))
    assert (
        f"connect-src 'self' ws://localhost:{open_one.port};"
        in answer.headers["content-security-policy"]
    )
    foreign = open_one.send(request("GET /", host="evil.example:{port}"))
    assert "evil" not in foreign.headers["content-security-policy"]


def test_only_the_files_of_the_page_are_kept(open_one: Guarded) -> None:
    open_one.wait()
    kept = {"/": "no-cache", "/page/style.css": "no-cache", "/api/kept": "max-age=60"}
    for path in ("/", "/page/style.css", "/api/kept", "/api/state", "/frame.jpg", "/metrics",
                 "/stream.mjpg", "/api/picky", "/page/nothing"):  # fmt: skip
        assert open_one.get(path).headers["cache-control"] == kept.get(path, "no-store")


def test_errors_are_json_for_programs_and_a_page_for_people(open_one: Guarded) -> None:
    open_one.wait()
    for path in ("/api/nothing", "/ws/nothing", "/metrics/nothing"):
        answer = open_one.get(path)
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json() == {"error": "there is nothing at this address"}
    page = open_one.get("/nothing")
    assert page.headers["content-type"].startswith("text/html")
    assert b"there is nothing at this address" in page.body
    assert open_one.get("/apis").headers["content-type"].startswith("text/html")
    assert open_one.get("/api/picky").json()["error"] == "the filter <b>cannot</b> be opened"
    assert b"&lt;b&gt;cannot&lt;/b&gt;" in open_one.get("/page/picky").body
    assert open_one.get("/api/own").json() == {"error": "own"}
    wrong = open_one.send(request("DELETE /"))
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD, POST")
    chunks = "\r\n".join(("20000", "x" * 0x20000, "0", "", ""))
    large = open_one.send(post(JSON_POST[0], "Transfer-Encoding: chunked", body=chunks))
    assert large.status == 413
    assert "too large" in large.json()["error"]


def test_a_failure_is_told_to_the_terminal_only(
    open_one: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    open_one.wait()
    with caplog.at_level(logging.DEBUG):
        answer = open_one.get("/api/boom")
    assert answer.status == 500
    assert answer.json() == {"error": "something failed here; the terminal of pix2live says more"}
    assert b"secret" not in answer.raw
    (record,) = (item for item in caplog.records if item.exc_info)
    assert (record.name, record.levelname) == ("pix2live.web", "ERROR")
    assert "a secret of /realtime/" in caplog.text


def test_a_stream_that_fails_is_cut_and_nothing_is_put_behind_it(
    open_one: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    open_one.wait()
    answer = open_one.send(request("GET /api/half"))  # kept alive, if the server let it
    assert (answer.status, answer.body) == (200, b"7\r\npicture\r\n")  # no last chunk
    assert "the camera went away" in caplog.text


def test_attacks_leave_no_traceback_in_the_terminal(
    open_one: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    open_one.wait()
    with caplog.at_level(logging.INFO):
        for text in ATTACKS.values():
            open_one.send(text)
    assert not caplog.records


def test_a_proxy_that_speaks_tls_is_allowed_by_its_address() -> None:
    with guarding(TOKEN, hosts=frozenset({"https://cam.example.org", "tunnel:9000"})) as served:
        secure = served.send(request(f"GET /?token={TOKEN}", host="cam.example.org"))
        assert secure.status == 303
        assert secure.headers["set-cookie"].startswith(f"__Host-pix2live-{served.port}=")
        assert "; secure" in secure.headers["set-cookie"].lower()
        page = served.send(request("GET /", cookie_of(secure), host="cam.example.org"))
        assert (
            "connect-src 'self' wss://cam.example.org;" in page.headers["content-security-policy"]
        )
        own = ("Origin: https://cam.example.org", *WEBSOCKET)
        assert served.send(request("GET /ws", *own, host="cam.example.org"), LOGIN).status == 101
        plain = ("Origin: http://cam.example.org", *WEBSOCKET)
        assert served.send(request("GET /ws", *plain, host="cam.example.org"), LOGIN).status == 403
        assert served.send(request("GET /", host="cam.example.org:80"), LOGIN).status == 403
        assert served.send(request("GET /", host="tunnel:9000"), LOGIN).status == 200
        # Where the connection arrived is this machine, whatever was known at the start.
        assert served.get("/", login=LOGIN).status == 200


def test_tokens_cannot_be_guessed_and_an_empty_one_is_none() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", token) for token in tokens)
    for token in ("", "  "):
        with pytest.raises(SettingsError, match="the token is empty"):
            make_guard(Access(frozenset({"localhost"}), 1, token))
