"""Pictures of `pix2live serve` in a real Chromium whose camera shows a film."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import threading
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra web")
pytest.importorskip("playwright", reason="playwright drives the browser")

from browsing import (
    CHROMIUM,
    FILTERS,
    JPEG_TAKES,
    SIZE,
    SQUARE_TAKES,
    UPRIGHT,
    VIDEO_TAKES,
    Tab,
    Translator,
    film,
    get_to_look_like,
    launched,
    looks_like,
    off,
    off_in_the_square,
    serve,
    tab,
)
from loopback import wait_for
from playwright.sync_api import Browser, Playwright
from serving import Serving, pipeline

from engines import FrameModel, Pixels
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.sinks import Sink
from realtime.sources import Source
from realtime.web.addresses import Access, addresses_of
from realtime.web.server import WebServer
from realtime.web.sessions import Sessions
from realtime.web.strip import HEIGHT_PX, read_strip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
webrtc = pytest.mark.skipif(
    importlib.util.find_spec("aiortc") is None, reason="the page needs the extra webrtc"
)
TRANSPORTS = ["websocket", pytest.param("webrtc", marks=webrtc)]
SLOW_S, UNDER_WAY = 0.2, 10


@pytest.fixture(scope="module")
def phone(chromium: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Its camera stands upright."""
    with launched(chromium, film(tmp_path_factory.mktemp("film"), UPRIGHT)) as found:
        yield found


@pytest.fixture(scope="module")
def local() -> Iterator[Serving]:
    """A server with a camera of its own."""
    with serve("test-pattern:160x120@15") as found:
        yield found


def test_one_click_shows_the_camera_translated(
    browser: Browser, served: Serving, translated: Translator
) -> None:
    with tab(browser, f"{served.url}/?debug") as page:
        assert page.state == "idle"
        page.ready()
        page.page.click("#start")
        page.see(5)
        assert page.page.evaluate("window.pix2live.filter") == FILTERS[0]
        for _ in range(8):
            page.see(1)
            sent, returned, shown = page.pair()
            assert sent.shape == (SIZE[1], SIZE[0], 3)
            assert np.array_equal(shown, returned)
            differences = {name: off(returned, translated(name, sent)) for name in FILTERS}
            assert looks_like({**differences, "": off(returned, sent)}, JPEG_TAKES) == FILTERS[0]
            expected = translated(FILTERS[0], sent)
            assert off_in_the_square(returned, expected) < SQUARE_TAKES  # of this very picture
        loaded = "[...document.querySelectorAll('#gallery img')].every((it) => it.naturalWidth)"
        page.until(lambda: page.page.evaluate(loaded), "thumbnails")
        page.page.click("#stop")
        page.get_to("idle")
        wait_for(lambda: not served.sessions.running)


def test_three_clicks_in_the_gallery(
    browser: Browser, served: Serving, translated: Translator
) -> None:
    with tab(browser, f"{served.url}/?debug") as page:
        page.start("comic")
        session = page.session
        for name in ("wave", "pencil", "starry"):
            before = page.shown
            page.choose(name)
            get_to_look_like(page, translated, name)
            sent, returned, _ = page.pair()
            assert off(returned, translated(name, sent)) < JPEG_TAKES
            assert page.shown > before  # the count goes on: nothing was started again
            assert page.page.is_checked(f"#filter-{name}")
        assert page.session == session


def test_two_tabs_with_a_camera_and_a_filter_each(
    browser: Browser, phone: Browser, served: Serving, translated: Translator
) -> None:
    with tab(browser, f"{served.url}/?debug") as one, tab(phone, f"{served.url}/?debug") as two:
        one.start("comic")
        two.start("wave")
        assert one.session != two.session
        assert served.sessions.running == 2
        for _ in range(2):
            for page, size, name in ((one, SIZE, "comic"), (two, UPRIGHT, "wave")):
                page.see()
                sent, returned, _ = page.pair()
                assert sent.shape == returned.shape == (size[1], size[0], 3)
                assert off(returned, translated(name, sent)) < JPEG_TAKES
        one.page.close()
        two.see(5)


def test_the_split_follows_the_pointer(browser: Browser, served: Serving) -> None:
    with tab(browser, served.url) as page:
        page.start("pencil")
        box = page.page.locator("#canvas").bounding_box()
        assert box is not None
        mouse, middle = page.page.mouse, box["y"] + box["height"] / 2
        mouse.move(box["x"] + 0.5 * box["width"], middle)
        mouse.down()
        for part in (0.4, 0.25):
            mouse.move(box["x"] + part * box["width"], middle)
        mouse.up()
        at, shown, before, after = page.split_picture()
        assert at == pytest.approx(0.25, abs=0.02)
        edge = round(at * SIZE[0])
        border = slice(max(0, edge - 2), edge + 2)  # `at` is rounded to a hundredth
        expected = np.hstack([before[:, :edge], after[:, edge:]])
        expected[:, border] = shown[:, border]
        assert np.array_equal(shown, expected)
        assert off(before, after) > 20


def test_reloading_starts_anew(browser: Browser, served: Serving) -> None:
    with tab(browser, served.url) as page:
        page.start("wave")
        first = page.session
        page.page.reload()
        wait_for(lambda: not served.sessions.running)
        page.ready()
        assert page.state == "idle"
        assert page.page.is_checked("#filter-wave")  # chosen before
        page.page.click("#start")
        page.see()
        assert page.session not in (None, first)
        assert [session.id for session in served.sessions] == [page.session]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_closing_the_tab_leaves_nothing(browser: Browser, served: Serving, transport: str) -> None:
    process = psutil.Process()

    def visit() -> None:
        with tab(browser, served.url) as page:
            page.start("comic", transport)
            assert served.sessions.running == 1
        wait_for(lambda: not served.sessions.running)

    def left() -> tuple[int, int, int]:
        gc.collect()
        threads = [item.name for item in threading.enumerate()]
        sessions = [name for name in threads if name.startswith("pix2live") or "coder" in name]
        return len(sessions), process.num_fds(), served.call(tasks())

    visit()
    settled = left()
    visit()
    visit()
    wait_for(lambda: all(now <= then for now, then in zip(left(), settled, strict=True)))


async def tasks() -> int:
    return len(asyncio.all_tasks())


@webrtc
def test_webrtc_shows_the_same(browser: Browser, served: Serving, translated: Translator) -> None:
    with tab(browser, served.url) as page:
        page.start("comic", "webrtc")
        assert page.page.evaluate("window.pix2live.transport") == "webrtc"
        get_to_look_like(page, translated, "comic", VIDEO_TAKES)
        page.choose("wave")
        get_to_look_like(page, translated, "wave", VIDEO_TAKES)
        right = 0
        for _ in range(8):
            page.see(1)
            before, after = page.picture()
            assert before.shape == after.shape == (SIZE[1], SIZE[0], 3)
            assert no_strip(before)
            assert no_strip(after)
            right += off_in_the_square(after, translated("wave", before)) < SQUARE_TAKES
            below = off(after[-4:], translated("wave", before)[-4:])
            assert below < 2 * VIDEO_TAKES  # a strip is black and white: 100
        assert right >= 6  # a number that cannot be read leaves the picture before as it was
        assert page.page.evaluate("window.pix2live.stats(30).roundTrip.samples") > 3


def no_strip(picture: Pixels) -> bool:
    return all(read_strip(picture[-rows:]) is None for rows in (4, 8, HEIGHT_PX))


def test_watching_a_camera_of_the_server(
    browser: Browser, local: Serving, translated: Translator
) -> None:
    with tab(browser, local.url, camera=False) as page:
        page.get_to("watching")
        page.see()
        assert page.session == "local"
        page.page.click("#compare")
        page.see()
        get_to_look_like(page, translated, "comic")
        page.choose("pencil")
        get_to_look_like(page, translated, "pencil")
        assert [part.shape for part in page.picture()] == [(120, 160, 3)] * 2
        page.page.click("#stop")
        page.get_to("idle")
        wait_for(lambda: next(iter(local.sessions)).watchers == 0)


def test_who_compares_while_watching_still_sees_the_age(browser: Browser, local: Serving) -> None:
    with tab(browser, local.url, camera=False) as page:
        page.see()
        page.until(lambda: age(page).isdigit(), "the age")
        # No answer to a small request from now on: what is known of the way must be enough.
        page.page.route("**/page/icon.svg", lambda _: None)
        page.page.click("#compare")
        page.until(lambda: off(*page.picture()) > 5, "both pictures")
        page.until(lambda: age(page).isdigit(), "the age")


def age(page: Tab) -> str:
    return page.page.inner_text("#age")


def test_the_own_camera_beside_that_of_the_server(browser: Browser, local: Serving) -> None:
    with tab(browser, local.url) as page:
        page.see()
        page.page.click("#mode-camera")
        page.get_to("live")
        page.see()
        assert page.picture()[0].shape == (SIZE[1], SIZE[0], 3)
        page.page.click("#mode-watch")
        page.get_to("watching")
        page.see()
        wait_for(lambda: not local.sessions.running)


def test_others_watch_by_a_link(browser: Browser, served: Serving, translated: Translator) -> None:
    with tab(browser, served.url) as owner:
        owner.start("comic")
        link = owner.page.input_value("#watch-link")
        with tab(browser, link, camera=False) as watcher:
            watcher.get_to("watching")
            watcher.see()
            assert watcher.session == owner.session
            watcher.page.click("#compare")
            get_to_look_like(watcher, translated, "comic")
            owner.choose("starry")
            get_to_look_like(watcher, translated, "starry")
            owner.page.click("#stop")
            watcher.get_to("ended")
            assert watcher.title == "This session has ended"
            watcher.page.click("#retry")
            watcher.get_to("failed")
            assert watcher.title == "There is nothing to watch here"


def test_a_full_server_says_so_and_may_be_tried_again(browser: Browser) -> None:
    with (
        serve(most=1) as served,
        tab(browser, served.url) as one,
        tab(browser, served.url) as two,
    ):
        one.start("comic")
        two.ready()
        two.page.click("#start")
        two.get_to("full")
        assert two.title == "The server is full"
        assert "only place is taken" in two.page.inner_text("#card-text")
        one.see()
        one.page.click("#stop")
        wait_for(lambda: not served.sessions.running)
        two.page.click("#retry")
        two.see()


def test_a_server_that_comes_back_is_found_again(browser: Browser) -> None:
    with serve() as served, tab(browser, served.url, unreachable=True) as page:
        page.start("pencil")
        first = page.session
        served.call(served.server.close())
        page.get_to("reconnecting")
        assert page.title == "The server has gone"

        async def again() -> None:
            served.sessions = Sessions(pipeline, served.sessions.filters)
            access = Access(addresses_of("127.0.0.1"), served.port, None)
            served.server = WebServer(served.sessions, access, "127.0.0.1")
            await served.server.start()

        served.call(again())
        page.get_to("live")  # nobody has pressed anything
        page.see()
        assert page.session != first
        assert page.page.evaluate("window.pix2live.filter") == "pencil"


class SlowedEngine(IdentityEngine):
    """Copies, and takes as long as it is told to."""

    pause_s = 0.0

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        time.sleep(self.pause_s)
        super()._submit(frame_in, frame_out)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_pictures_of_a_slow_engine_do_not_pile_up(
    browser: Browser, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(source: Source | str, model: FrameModel, sink: Sink) -> Pipeline:
        return Pipeline(source, SlowedEngine(model), [sink], mode="freshest", overlay=False)

    def age_ms(page: Tab, part: str = "p50", seconds: float = 0.5) -> float:
        script = f"window.pix2live.stats({seconds}).roundTrip.{part} ?? Infinity"
        return float(page.page.evaluate(script))

    with serve(make=make) as served, tab(browser, served.url) as page:
        page.start("comic", transport)
        page.see(30)
        normal_ms = age_ms(page, "p95", 2.0)
        monkeypatch.setattr(SlowedEngine, "pause_s", SLOW_S)
        page.see(20)
        slow_ms = age_ms(page, "p95", 2.0)
        assert slow_ms > 1000 * SLOW_S
        # As many are under way as come in the age of one (J. Little, 1961). Of twenty shown in four
        # seconds or more, a queue that lets nothing go would hold a hundred.
        fps = float(page.page.evaluate("window.pix2live.stats(2).fps"))
        assert fps * slow_ms / 1000 < UNDER_WAY
        monkeypatch.setattr(SlowedEngine, "pause_s", 0.0)
        began_s = time.monotonic()
        page.until(lambda: age_ms(page) < 2 * normal_ms + 20, "age is normal again")
        print(
            f"{transport}: {normal_ms:.0f} ms, slowed {slow_ms:.0f} ms,"
            f" normal again after {time.monotonic() - began_s:.1f} s"
        )
        assert time.monotonic() - began_s < 10
