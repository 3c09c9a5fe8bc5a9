"""A live web page as a source and on a marker, by a real Chromium."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest
from rendered import SIZE, Pose, Scene, as_frame

from engines import SourceError
from engines.backends.identity import IdentityEngine
from realtime import Pipeline, open_source
from realtime.effects.base import Context
from realtime.effects.specs import open_effect
from realtime.frame import Frame
from realtime.sources.web_page import BROWSERS, WebPageSource

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None, reason="playwright is not installed"
    ),
    pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium here"),
]

PAGE = """<!doctype html><title>t</title>
<style>body { margin: 0; background: rgb(200, 30, 60) }
div { position: absolute; width: 160px; height: 240px; background: rgb(20, 220, 90) }</style>
<div id="box"></div>
<script>let x = 0; setInterval(() => { x = (x + 80) % 320;
document.getElementById("box").style.left = x + "px" }, 60)</script>"""
STILL = "<!doctype html><body style='margin: 0; background: rgb(10, 120, 240)'>"
RED, GREEN, BLUE = (60, 30, 200), (90, 220, 20), (240, 120, 10)
"""BGR."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "index.html").write_text(PAGE)
    handler = partial(Quiet, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def empty(size: tuple[int, int]) -> Frame:
    return Frame(np.zeros((size[1], size[0], 3), np.uint8))


def near(found: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(found.astype(int) - colour).max() < 12)


def test_a_page_that_moves_is_seen_to_move(address: str) -> None:
    source = WebPageSource(address, (320, 240))
    info = source.open(None, realtime=True)
    assert info.size == (320, 240)
    frame, lefts, times = empty((320, 240)), set(), []
    while len(lefts) < 3:
        assert source.read(frame)
        times.append(frame.captured_ns)
        lefts.add(next(x for x in range(0, 320, 80) if near(frame.pixels[120, x + 40], GREEN)))
        assert near(frame.pixels[120, 40], RED) or near(frame.pixels[120, 40], GREEN)
    assert times == sorted(times)
    assert frame.pts_ns == times[-1] - times[0]
    source.close()


def test_a_page_that_stands_still_is_captured_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "still.html"
    path.write_text(STILL)
    source = open_source(f"page:{path}")
    source.open(None, realtime=True)
    frame = empty((64, 36))
    for _ in range(3):
        assert source.read(frame)
        assert near(frame.pixels, BLUE)
    source.close()


def test_cancelling_and_closing_leave_no_browser_behind(tmp_path: Path) -> None:
    path = tmp_path / "still.html"
    path.write_text(STILL)
    source = WebPageSource(str(path))
    before = len(psutil.Process().children(recursive=True))
    for _ in range(2):
        source.open(None, realtime=True)
        assert len(psutil.Process().children(recursive=True)) > before
        threading.Timer(0.2, source.cancel).start()
        while source.read(empty((64, 36))):
            pass
        source.close()
        assert len(psutil.Process().children(recursive=True)) == before


def test_a_page_goes_through_the_pipeline(address: str) -> None:
    seen: list[tuple[int, ...]] = []
    source = WebPageSource(address, (320, 240))
    Pipeline(
        source, IdentityEngine(None), [lambda frame: seen.append(frame.pixels.shape)], frames=5
    ).run()
    assert seen[0] == (240, 320, 3)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("no-such-file.html", "found 'no-such-file.html'"),
        ("ftp://host/x", "found 'ftp://host/x'"),
        ("", "a page is page:https://"),
        ("http://127.0.0.1:9/", "ERR_"),
    ],
)
def test_what_is_no_page_is_named(address: str, why: str) -> None:
    with pytest.raises(SourceError, match="page") as caught:
        open_source(f"page:{address}").open(None, realtime=True)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_page_lies_on_a_marker(tmp_path: Path) -> None:
    path = tmp_path / "still.html"
    path.write_text(STILL)
    scene = Scene(motion=lambda _: Pose((0, 0, 0.5)), steps=1)
    effect = open_effect(f"marker:7=page:{path}")
    effect.prepare(SIZE, context := Context(size=SIZE, live=False))
    try:
        pixels = effect.process(as_frame(scene.frame(0), 0), context)
        assert near(pixels[SIZE[1] // 2, SIZE[0] // 2], BLUE)
    finally:
        effect.close()
