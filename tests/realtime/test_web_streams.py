"""`/stream.mjpg` and `/frame.jpg`: real sockets, real pipelines, slow and vanishing readers."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra web")

from aiohttp import web
from web_serving import PATIENCE_S, Listener, Server, number_of, numbered, show, wait_for

from realtime.web import streams
from realtime.web.session import Session

SMALL = (64, 48)
LARGE = (320, 240)
PATTERN = "test-pattern:64x48@50"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(streams.routes()) as running:
        yield running


@pytest.fixture(scope="module")
def local() -> Iterator[Server]:
    with Server(streams.routes(frame_within_s=30.0)) as running:
        running.run(running.sessions.start_local(PATTERN))
        yield running


@pytest.fixture(scope="module", params=["plain", "TLS"])
def tls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ssl.SSLContext | None:
    if request.param == "plain":
        return None
    pytest.importorskip("cryptography", reason="TLS needs the extra web")
    from realtime.web.certificate import make_certificate, ssl_context

    folder: Path = tmp_path_factory.mktemp("tls")
    return ssl_context(make_certificate(["127.0.0.1"], folder))


def address(session: Session, name: str = "/stream.mjpg") -> str:
    return f"{name}?session={session.id}"


def open_stream(server: Server, path: str, receive_buffer: int | None = None) -> Listener:
    """Return a reader behind the headers and the first boundary."""
    listener = server.listen(path, receive_buffer=receive_buffer)
    head = listener.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200"), head
    boundary = f"--{streams.BOUNDARY}\r\n".encode()
    assert listener.exactly(len(boundary)) == boundary
    return listener


def read_part(listener: Listener) -> tuple[Message, bytes]:
    """Return headers and picture of the next part; the boundary behind it is read too."""
    headers = BytesParser().parsebytes(listener.until(b"\r\n\r\n"), headersonly=True)
    picture = listener.exactly(int(headers["Content-Length"]))
    assert listener.exactly(len(streams.NEXT_PART)) == streams.NEXT_PART
    return headers, picture


def vanish(listener: Listener) -> None:
    """Close with a reset, as a machine that was switched off is seen."""
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    listener.close()


def test_each_part_is_a_picture_with_its_age(local: Server) -> None:
    listener = open_stream(local, "/stream.mjpg")
    stamps = []
    for _ in range(5):
        headers, jpeg = read_part(listener)
        assert headers["Content-Type"] == "image/jpeg"
        assert float(headers["X-Age-Ms"]) > 0
        stamps.append(float(headers["X-Timestamp"]))
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (48, 64, 3)
    assert stamps == sorted(set(stamps)), "none twice, in order"
    assert stamps[-1] <= time.time()
    listener.close()


def test_it_comes_in_chunks_with_the_boundary_announced(local: Server) -> None:
    listener = local.listen("/stream.mjpg", version="1.1")
    head = listener.until(b"\r\n\r\n").decode()
    assert head.startswith("HTTP/1.1 200")
    assert f"Content-Type: multipart/x-mixed-replace; boundary={streams.BOUNDARY}\r\n" in head
    assert "Cache-Control: no-store\r\n" in head
    assert "Transfer-Encoding: chunked\r\n" in head
    assert "Connection: close\r\n" in head
    listener.close()


def test_the_next_boundary_comes_with_the_picture(server: Server) -> None:
    """Who shows a part when the boundary after it is there must not wait for the next frame."""
    session = server.start_camera(SMALL)
    listener = open_stream(server, address(session))
    for number in (11, 42):
        show(session, numbered(number, SMALL))
        _, jpeg = read_part(listener)  # with the boundary, though no other picture comes
        assert number_of(jpeg) == number
    listener.close()


def test_a_browser_gets_the_headers_of_the_next_part_too(server: Server) -> None:
    session = server.start_camera(SMALL)
    listener = server.listen(address(session), User_Agent=FIREFOX)
    assert listener.until(b"\r\n\r\n").startswith(b"HTTP/1.0 200")
    behind = streams.NEXT_PART + streams.BARE_HEADERS
    assert listener.until(behind.lstrip()) == behind.lstrip()
    for number in (11, 42):
        show(session, numbered(number, SMALL))
        jpeg = listener.until(behind).removesuffix(behind)  # though no other picture comes
        assert number_of(jpeg) == number
    listener.close()


def test_chromium_shows_each_picture_at_once(server: Server) -> None:
    """It used to show each when the next one came, which a paused camera never sends."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Debian's chromium")
    session = server.start_camera(SMALL)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": SMALL[0], "height": SMALL[1]})
        page.goto(f"http://127.0.0.1:{server.port}/nothing")
        image = f'<body style="margin: 0"><img src="{address(session)}"></body>'
        page.evaluate("text => { document.documentElement.innerHTML = text; }", image)
        wait_for(lambda: session.watchers == 1, "the page does not look")
        for colour in ((0, 0, 255), (0, 255, 0), (255, 0, 0)):
            show(session, np.full((SMALL[1], SMALL[0], 3), colour, np.uint8))

            def is_shown(colour: tuple[int, int, int] = colour) -> bool:
                shot = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
                return shot is not None and bool((abs(shot.mean((0, 1)) - colour) < 30).all())

            wait_for(is_shown, f"{colour} is not shown")
        browser.close()
    wait_for(lambda: session.watchers == 0, "the page still looks")


def test_a_slow_reader_gets_the_newest_and_nobody_notices(tls: ssl.SSLContext | None) -> None:
    with Server(streams.routes(), tls=tls) as server:
        session = server.start_camera(LARGE)
        slow = open_stream(server, address(session), receive_buffer=4096)
        quick = open_stream(server, address(session))
        count = 60
        sent = 0
        for number in range(count):  # the slow one reads nothing meanwhile
            show(session, numbered(number, LARGE, seed=number))
            _, jpeg = read_part(quick)
            assert number_of(jpeg) == number, "the quick one misses nothing"
            sent += len(jpeg)
        assert sent > 2_000_000, "more than any buffer on the way holds"
        got = []
        while not got or got[-1] < count - 1:
            got.append(number_of(read_part(slow)[1]))
        assert got == sorted(set(got)), "in order, none twice"
        assert len(got) < count / 2
        assert slow.read_bytes < 800_000, "that much had waited"
        slow.close()
        quick.close()


def test_who_takes_nothing_is_sent_away(tls: ssl.SSLContext | None) -> None:
    with Server(streams.routes(stalled_s=0.3), tls=tls) as server:
        session = server.start_camera(LARGE)
        stuck = open_stream(server, address(session), receive_buffer=4096)
        give_up_s = time.monotonic() + PATIENCE_S
        number = 0
        while session.watchers:
            assert time.monotonic() < give_up_s
            show(session, numbered(number % 64, LARGE, seed=number))
            number += 1
        stuck.to_the_end()  # or it would wait for ever
        stuck.close()


def test_readers_that_vanish_leave_nothing(server: Server) -> None:
    session = server.start_camera(LARGE)
    tasks = server.tasks()
    for number in range(12):
        listener = open_stream(server, address(session))
        if number % 3:
            show(session, numbered(number, LARGE))
        if number % 3 == 2:
            listener.exactly(1000)  # in the middle of a picture
        vanish(listener)
    wait_for(lambda: session.watchers == 0, "a watcher was left")  # though no picture comes
    wait_for(lambda: server.tasks() == tasks, "a task was left")


def test_the_stream_ends_with_its_session(server: Server) -> None:
    session = server.start_camera(SMALL)
    tasks = server.tasks()
    listener = open_stream(server, address(session))
    show(session, numbered(7, SMALL))
    read_part(listener)
    server.run(server.sessions.end(session))
    assert listener.to_the_end() == b""
    listener.close()
    wait_for(lambda: server.tasks() <= tasks, "a task was left")
    response, body = server.request(address(session))
    assert response.status == 404
    assert "ended" in json.loads(body)["error"]


def test_a_source_that_has_ended_is_said(server: Server) -> None:
    session = server.run(server.sessions.start_local(PATTERN))
    session.pipeline.stop()
    wait_for(session.ended.is_set, "it did not end")
    for path in ("/stream.mjpg", "/frame.jpg"):
        response, body = server.request(path)
        assert response.status == 404
        assert json.loads(body) == {"error": f"this session is over: {session.reason}"}


def test_fps_is_a_limit(local: Server) -> None:
    listener = open_stream(local, "/stream.mjpg?fps=10")
    read_part(listener)
    began_s = time.monotonic()
    for _ in range(4):
        read_part(listener)
    assert time.monotonic() - began_s > 0.25, "the source makes 50 a second"
    listener.close()


@pytest.mark.parametrize("fps", ["0", "-1", "1e9", "nan", "many", ""])
def test_an_impossible_fps_is_refused(local: Server, fps: str) -> None:
    response, body = local.request(f"/stream.mjpg?fps={fps}")
    assert response.status == 400
    assert json.loads(body)["error"].startswith("fps is a number from 0.1 to 120")


def test_streams_are_limited(local: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for(lambda: next(iter(local.sessions)).watchers == 0, "a watcher was left")
    monkeypatch.setattr(streams, "MOST_STREAMS", 2)
    listeners = [open_stream(local, "/stream.mjpg") for _ in range(2)]
    response, body = local.request("/stream.mjpg")
    assert response.status == 503
    assert "error" in json.loads(body)
    listeners[0].close()
    wait_for(lambda: next(iter(local.sessions)).watchers < 2, "it was not forgotten")
    open_stream(local, "/stream.mjpg").close()
    listeners[1].close()


def test_a_stream_that_cannot_begin_leaves_its_place(
    local: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST_STREAMS", 1)
    session = next(iter(local.sessions))
    wait_for(lambda: session.watchers == 0, "a watcher was left")

    def full(_: Session) -> None:
        raise web.HTTPConflict(text="this view cannot be had")

    with monkeypatch.context() as broken:
        broken.setattr(Session, "broadcast", property(full))
        for _ in range(3):
            assert local.request("/stream.mjpg")[0].status == 409
    open_stream(local, "/stream.mjpg").close()


def test_a_frame_is_one_picture(local: Server) -> None:
    before_s = time.time()
    response, jpeg = local.request("/frame.jpg")
    assert response.status == 200
    assert response.headers["Content-Type"] == "image/jpeg"
    assert response.headers["Cache-Control"] == "no-store"
    assert float(response.headers["X-Age-Ms"]) > 0
    assert float(response.headers["X-Timestamp"]) > before_s - 5
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (48, 64, 3)
    wait_for(lambda: next(iter(local.sessions)).watchers == 0, "a watcher was left")


def test_no_picture_is_said() -> None:
    with Server(streams.routes(frame_within_s=0.1)) as other:
        session = other.start_camera(SMALL)
        response, body = other.request(address(session, "/frame.jpg"))
        assert response.status == 504
        assert json.loads(body)["error"].startswith("no picture came within 0.1 s")
        assert session.watchers == 0


@pytest.mark.parametrize("path", ["/stream.mjpg", "/frame.jpg"])
def test_head_has_no_body_and_starts_nothing(local: Server, path: str) -> None:
    response, body = local.request(path, method="HEAD")
    assert response.status == 200
    assert body == b""
    expected = "multipart/x-mixed-replace" if path == "/stream.mjpg" else "image/jpeg"
    assert response.headers["Content-Type"].startswith(expected)


@pytest.mark.parametrize("path", ["/stream.mjpg", "/frame.jpg"])
@pytest.mark.parametrize("query", ["", "?session=local", "?session=AAAA", "?session=%00%ff"])
def test_an_unknown_session_is_an_error(server: Server, path: str, query: str) -> None:
    response, body = server.request(path + query)
    assert response.status == 404
    assert response.headers["Content-Type"].startswith("application/json")
    assert list(json.loads(body)) == ["error"]
