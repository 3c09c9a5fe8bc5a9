"""A scripted attacker: requests that a web server must answer with 4xx, byte by byte.

{host} stands for the right Host header (127.0.0.1:PORT), {port} for the port and {login} for the
header that carries the token, so that an attack fails for what it is and not for a missing token.
"""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass

TIMEOUT_S = 20.0
EVIL = "http://evil.example"
WEBSOCKET = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
JSON_POST = ("Content-Type: application/json", "Content-Length: 2")


@dataclass(frozen=True)
class Answer:
    """What came back: status, header lines in lower case by name, the body's bytes."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes

    def json(self) -> dict[str, str]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


def cookie_of(answer: Answer) -> str:
    """Return the header line that brings back the cookie of an answer."""
    return f"Cookie: {answer.headers['set-cookie'].partition(';')[0]}"


def request(line: str, *headers: str, host: str | None = "{host}", body: str = "") -> str:
    """Return a request with Host (unless None) and token, to be filled in by `send`."""
    lines = [line if " HTTP/" in line else f"{line} HTTP/1.1", "{login}"]
    lines += [] if host is None else [f"Host: {host}"]
    return "\r\n".join([*lines, *headers]) + "\r\n\r\n" + body


def post(*headers: str, body: str = "{{}}") -> str:
    return request("POST /api/switch", *headers, body=body)


def _origins() -> dict[str, str]:
    foreign = {
        "foreign": EVIL,
        "null": "null",
        "empty": "",
        "another port": "http://127.0.0.1:1",
        "no port": "http://127.0.0.1",
        "another scheme": "https://{host}",
        "another name of this machine": "http://localhost:{port}",
        "ours as a prefix": "http://{host}.evil.example",
        "ours as a user": "http://{host}@evil.example",
        "ours as a path": "http://evil.example/{host}",
        "ours and a path": "http://{host}/",
        "two": f"http://{{host}} {EVIL}",
        "no scheme": "{host}",
        "file": "file://",
    }
    found = {}
    for name, origin in foreign.items():
        header = f"Origin: {origin}"
        found[f"origin {name}, post"] = post(header, *JSON_POST)
        found[f"origin {name}, websocket"] = request("GET /ws", header, *WEBSOCKET)
    found["origin ours and foreign"] = post("Origin: http://{host}", f"Origin: {EVIL}", *JSON_POST)
    found["preflight"] = request(
        "OPTIONS /api/switch", f"Origin: {EVIL}", "Access-Control-Request-Method: POST"
    )
    return found


def _hosts() -> dict[str, str]:
    wrong = {
        "of a rebound name": "evil.example:{port}",
        "without our port": "127.0.0.1",
        "with another port": "127.0.0.1:1",
        "empty": "",
        "two ports": "{host}:80",
        "a port that is none": "127.0.0.1:eighty",
        "a port in other digits": "127.0.0.1:\u0661",
        "a huge port": "127.0.0.1:99999",
        "ours as a prefix": "127.0.0.1.evil.example:{port}",
        "ours as a user": "127.0.0.1:{port}@evil.example",
        "a path": "{host}/x",
        "a policy": "{host}; script-src *",
        "brackets": "[::g]:{port}",
        "an open bracket": "[::1:{port}",
        "another spelling": "127.1:{port}",
        "a number": "2130706433:{port}",
    }
    found = {f"host {name}": request("GET /", host=host) for name, host in wrong.items()}
    found["host missing"] = request("GET /", host=None)
    found["host missing, HTTP/1.0"] = request("GET / HTTP/1.0", host=None)
    found["host twice"] = request("GET /", "Host: evil.example:{port}")
    found["forwarded host"] = request("GET /", "X-Forwarded-Host: {host}", host="evil.example")
    found["full address of another"] = request(f"GET {EVIL}/ HTTP/1.1")
    found["full address of ours"] = request("GET http://{host}/ HTTP/1.1", host="evil.example")
    return found


def _paths() -> dict[str, str]:
    ups = (
        "/../../../../etc/passwd",
        "/page/../../../../../etc/passwd",
        "/page/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/page/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/page/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/page/%252e%252e%252f%252e%252e%252fetc%252fpasswd",
        "/page/..%5c..%5c..%5cetc%5cpasswd",
        "/page/..\\..\\etc\\passwd",
        "/page/....//....//etc/passwd",
        "/page/%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
        "/page/..;/..;/etc/passwd",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/file:%2f%2f%2fetc/passwd",
        "/page/style.css%00.html",
        "/page/style.css/../../server.py",
        "/page/style.css/",
        "/page/STYLE.CSS",
        "/page/",
        "/page",
        "/page/__init__.py",
        "/api/filters/../../../../etc/passwd.jpg",
        "/api/filters/..%2f..%2fcomic.onnx",
        "/api/filters/%2fetc%2fpasswd.jpg",
        "/api/nothing",
        "/.git/config",
        "/.env",
        "//evil.example/%2e%2e",
        "/%0d%0aSet-Cookie:%20own=1",
        "/?/../../etc/passwd/%2e%2e".replace("?", "%3f"),
    )
    return {f"path {path}": request(f"GET {path}") for path in ups}


def _forms() -> dict[str, str]:
    kinds = {
        "urlencoded": ("Content-Type: application/x-www-form-urlencoded",),
        "multipart": ("Content-Type: multipart/form-data; boundary=x",),
        "text": ("Content-Type: text/plain",),
        "none": (),
        "json as a parameter": ("Content-Type: text/plain; application/json",),
        "almost json": ("Content-Type: application/jsonx",),
    }
    return {f"post {name}": post("Content-Length: 2", *headers) for name, headers in kinds.items()}


def _others() -> dict[str, str]:
    long = "x" * 100_000
    many = tuple(f"X-{number}: y" for number in range(2_000))
    found = {
        "a huge header": request("GET /", f"X-Long: {long}"),
        "a huge cookie": request("GET /", f"Cookie: a={long}"),
        "many headers": request("GET /", *many),
        "a huge request line": request(f"GET /{long}"),
        "a huge query": request(f"GET /?token={long}"),
        "a body of 10 MB announced": post(JSON_POST[0], "Content-Length: 10485760"),
        "a body of -1": post(JSON_POST[0], "Content-Length: -1"),
        "a body of two lengths": post(*JSON_POST, "Content-Length: 3"),
        "a body of length and chunks": post(*JSON_POST, "Transfer-Encoding: chunked"),
        "unknown expectation": post(*JSON_POST, "Expect: miracles"),
        "a header with a space": request("GET /", "X Bad: 1"),
        "a header with a NUL": request("GET /", "X-Bad: \0"),
        "a header with a bare CR": request("GET /", "X-Bad: 1\rSet-Cookie: own=1"),
        "a header without a colon": request("GET /", "nothing"),
        "an unknown version": request("GET / HTTP/9.9"),
        "not HTTP": "{{}}{{}}{{}}\r\n\r\n",
        "TLS to a plain port": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        "a websocket without a key": request("GET /ws", *WEBSOCKET[:2]),
        "a websocket of an old version": request(
            "GET /ws", *WEBSOCKET[:2], "Sec-WebSocket-Version: 1", WEBSOCKET[3]
        ),
        "no websocket": request("GET /ws"),
    }  # fmt: skip
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "X"):
        found[f"method {method}"] = request(f"{method} /")
        found[f"method {method} to the API"] = request(f"{method} /api/switch")
    found["post to the page"] = request("POST /", *JSON_POST, body="{{}}")
    found["post to the stream"] = request("POST /stream.mjpg", *JSON_POST, body="{{}}")
    for site in ("cross-site", "same-site", "nonsense"):
        fetched = f"Sec-Fetch-Site: {site}"
        for path in ("/", "/api/state", "/stream.mjpg", "/frame.jpg", "/metrics"):
            found[f"{site} picture of {path}"] = request(
                f"GET {path}", fetched, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"
            )
        page = ("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe")
        found[f"{site} frame"] = request("GET /", fetched, *page)
        top = ("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
        found[f"{site} link to the API"] = request("GET /api/state", fetched, *top)
    return found


ATTACKS: dict[str, str] = {**_origins(), **_hosts(), **_paths(), **_forms(), **_others()}
"""What is refused for itself, the right token or not."""

NO_ENTRY: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "an empty token": ("Authorization: Bearer ",),
    "a wrong token": ("Authorization: Bearer wrong-wrong-wrong-wrong-wrong-wr",),
    "a short token": ("Authorization: Bearer x",),
    "a long token": (f"Authorization: Bearer {'x' * 4000}",),
    "a token that is no ASCII": ("Authorization: Bearer \u00e4\u00f6\u00fc",),
    "another scheme": ("Authorization: Basic dTpw",),
    "a cookie that is made up": ("Cookie: pix2live-{port}=aaaa.bbbb; __Host-pix2live-{port}=a.b",),
    "a cookie that is no ASCII": ("Cookie: pix2live-{port}=\u00e4.\u00f6",),
}
"""Header lines of who has no token."""


def send(port: int, text: str, login: str = "X-No: token", source: str = "127.0.0.1") -> Answer:
    """Send one request over a connection of its own, from an address of loopback.

    The answer's status is 0 where the server closed without a word.
    """
    filled = text.format(host=f"127.0.0.1:{port}", port=port, login=login)
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S, (source, 0)) as connection:
        received = b""
        with contextlib.suppress(ConnectionError):  # it need not read to the end what is too long
            connection.sendall(filled.encode("utf-8"))
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65_536):
                received += chunk
                if _is_whole(received, is_head=text.startswith("HEAD ")):
                    break
    return read_answer(received)


def _is_whole(received: bytes, *, is_head: bool) -> bool:
    """Say whether an answer is here; one without a length ends with its connection."""
    answer = read_answer(received)
    if answer.status == 101 or len(received) > 1_000_000:
        return True
    if is_head or received.endswith(b"\r\n0\r\n\r\n"):
        return answer.status > 0
    return len(answer.body) >= int(answer.headers.get("content-length", 10**9))


def read_answer(received: bytes) -> Answer:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return Answer(0, {}, b"", received)
    lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:])
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Answer(int(lines[0].split(" ")[1]), headers, body, received)


def check_refusal(answer: Answer) -> None:
    """Assert that an answer is a refusal that gives nothing away."""
    assert 400 <= answer.status < 500, answer.raw[:500]
    for secret in (b"Traceback", b"aiohttp", b"Python", b"root:", b"site-packages", b"/realtime/"):
        assert secret not in answer.raw, answer.raw[:500]
    assert "set-cookie" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers
