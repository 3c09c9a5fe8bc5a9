"""Pages come and go for days: what each had is freed, soon, and not when chance has it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import subprocess
import sys
import threading
import types
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator

import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra web")

from loopback import wait_for
from serving import Serving, moving, opened, pipeline, run, serving

from engines import Engine, FrameModel, SinkError, load_filter
from realtime import Frame, Pipeline
from realtime.queues import FrameQueue
from realtime.sinks import Sink, open_sink
from realtime.sources import Source
from realtime.sources.browser import BrowserSource
from realtime.web.broadcast import Broadcast, Subscription
from realtime.web.rtc import Peer, why_not
from realtime.web.session import Session
from realtime.web.socket import PageSocket
from tools.serve import HEAPS, collect_what_sessions_leave

VISITS = 3
BREAKS = 80, 64
"""A session of this size fails on its first picture."""
OF_A_PAGE = (Session, PageSocket, Subscription, Peer, Broadcast, Pipeline, Engine, FrameQueue)
HEAPS_SCRIPT = """
import ctypes, tempfile, threading
from tools.serve import HEAPS, share_heaps

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fopen.restype = ctypes.c_void_p, ctypes.c_void_p

def heaps():
    with tempfile.NamedTemporaryFile() as file:
        report = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
        libc.malloc_info(0, report)
        libc.fclose(report)
        return file.read().count(b"<heap nr=")

def allocate():
    met.wait()
    libc.malloc(100_000)
    met.wait()

share_heaps()
before, count = heaps(), HEAPS + 8
met = threading.Barrier(count)
threads = [threading.Thread(target=allocate) for _ in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(heaps() - before)
"""


def breakable(source: Source | str, model: FrameModel, sink: Sink) -> Pipeline:
    def stumble(_: Frame) -> None:
        raise SinkError("it broke")

    found = pipeline(source, model, sink)
    if isinstance(source, BrowserSource) and source.size == BREAKS:
        found.sinks.append(open_sink(stumble))
    return found


async def by_websocket(served: Serving) -> None:
    async with opened(served) as page:
        await page.start()
        for number in range(3):
            await page.send(number, moving(number))
            await page.picture()


async def by_webrtc(served: Serving) -> None:
    from rtc_peers import SIZE, Page, aiortc

    camera = Page()
    try:
        async with opened(served) as page:
            await page.start(SIZE, transport="webrtc")
            await page.say(type="offer", sdp=await camera.offer())
            sdp = (await page.hear("answer"))["sdp"]
            answer = aiortc.RTCSessionDescription(sdp, "answer")
            await camera.connection.setRemoteDescription(answer)
            await camera.see(3)
    finally:
        await camera.close()


async def by_many_ways(served: Serving) -> None:
    """Watch beside the owner, switch, start again, vanish."""
    async with opened(served) as owner, opened(served) as both:
        started = await owner.start()
        await both.say(type="watch", session=started["session"], view="side-by-side")
        await both.hear("started")
        await owner.send(0, moving(0))
        await both.picture()
        await owner.say(type="switch", filter="pencil")
        await owner.hear("switched")
        await owner.start()
        await owner.send(1, moving(1))
        await owner.picture()
        transport = owner.socket._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()


async def by_failing(served: Serving) -> None:
    async with opened(served) as page:
        await page.start(BREAKS)
        await page.send(0, moving(0, BREAKS))
        assert "it broke" in (await page.hear("ended"))["reason"]


Visit = Callable[[Serving], Coroutine[None, None, None]]
VISITORS = [
    by_websocket,
    by_many_ways,
    pytest.param(by_webrtc, marks=pytest.mark.skipif(why_not() is not None, reason="no aiortc")),
]


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    filters = {name: load_filter(name) for name in ("comic", "pencil")}
    with serving(filters=filters, make=breakable) as found:
        yield found


def ours() -> Counter[str]:
    """Return how many objects of this project's types there are, by type."""
    found = Counter(f"{type(item).__module__}.{type(item).__name__}" for item in gc.get_objects())
    homes = ("engines.", "realtime.")
    return Counter({name: count for name, count in found.items() if name.startswith(homes)})


def of_pages() -> list[object]:
    return [item for item in gc.get_objects() if isinstance(item, OF_A_PAGE)]


def threads() -> list[str]:
    """Return the threads of sessions; those that open filters wait for the next one."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("pix2live") and "opening_" not in name]


def visit_and_leave(served: Serving, visit: Visit, times: int) -> None:
    for _ in range(times):
        run(visit(served))
        wait_for(lambda: not served.sessions.running)
    wait_for(lambda: not threads(), "no thread of a session is left")


@pytest.mark.usefixtures("nobody_collects")
@pytest.mark.parametrize("visit", VISITORS)
def test_a_page_that_has_gone_leaves_nothing_that_waits_for_the_collector(
    served: Serving, visit: Visit
) -> None:
    # Of other tests in this process, and held here, so that their places are not given away.
    older = {id(item): item for item in of_pages()}
    visit_and_leave(served, visit, VISITS)

    def left() -> list[object]:
        return [item for item in of_pages() if id(item) not in older]

    wait_for(lambda: not left(), "sessions, or parts of them, that hold themselves")


@pytest.mark.parametrize("visit", [*VISITORS, by_failing])
def test_nobody_holds_what_a_page_had(served: Serving, visit: Visit) -> None:
    def kept() -> Counter[str]:
        gc.collect()
        return ours()

    visit_and_leave(served, visit, 1)
    before = kept()
    visit_and_leave(served, visit, VISITS)
    wait_for(lambda: not kept() - before, "objects of those who have gone")


@pytest.mark.usefixtures("nobody_collects")
def test_the_server_collects_what_a_plug_in_leaves_in_a_circle() -> None:
    made: list[weakref.ref[Pipeline]] = []

    def circular(source: Source | str, model: FrameModel, sink: Sink) -> Pipeline:
        found = pipeline(source, model, sink)
        vars(found)["itself"] = found
        made.append(weakref.ref(found))
        return found

    async def begin() -> None:
        collect_what_sessions_leave(served.sessions, after_s=0.5)

    with serving(filters={"comic": load_filter("comic")}, make=circular) as served:
        visit_and_leave(served, by_websocket, 1)
        assert made[0]() is not None
        served.call(begin())
        visit_and_leave(served, by_websocket, VISITS)
        wait_for(lambda: not any(item() for item in made), "nobody collected")


class Circle:
    """Waits for the collector."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("nobody_collects")
def test_a_session_that_failed_goes_with_the_page_that_stayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[weakref.ref[Pipeline]] = []

    def noted(source: Source | str, model: FrameModel, sink: Sink) -> Pipeline:
        found = breakable(source, model, sink)
        made.append(weakref.ref(found))
        return found

    async def begin() -> None:
        collect_what_sessions_leave(served.sessions, after_s=0.3)

    async def stay() -> None:
        circle = weakref.ref(Circle())
        async with opened(served) as watcher, opened(served) as page:
            started = await page.start(BREAKS)
            await watcher.say(type="watch", session=started["session"])
            await watcher.hear("started")
            await page.send(0, moving(0, BREAKS))
            await page.hear("ended")
            while circle() is not None:  # the collection of the end has been
                await asyncio.sleep(0.02)

    with serving(filters={"comic": load_filter("comic")}, make=noted) as served:
        served.call(begin())
        monkeypatch.setitem(sys.modules, "loaded_by_a_session", types.ModuleType("loaded"))
        run(stay())
        wait_for(lambda: not any(item() for item in made), "nobody collected")


@pytest.mark.usefixtures("nobody_collects")
def test_what_sessions_load_is_not_looked_through_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def begin() -> None:
        collect_what_sessions_leave(served.sessions, after_s=0.1)

    def visit() -> None:
        visit_and_leave(served, by_websocket, 1)

    with serving(filters={"comic": load_filter("comic")}) as served:
        served.call(begin())
        before = gc.get_freeze_count()
        monkeypatch.setitem(sys.modules, "loaded_by_a_session", types.ModuleType("loaded"))
        visit()
        wait_for(lambda: gc.get_freeze_count() > before, "it is kept")
        kept = gc.get_freeze_count()
        circle = weakref.ref(Circle())
        visit()
        wait_for(lambda: circle() is None, "collected again")
        assert gc.get_freeze_count() <= kept, "nothing was loaded, so nothing more is kept"


def heaps_made(**environment: str) -> int:
    """Return how many heaps the threads of a server add to the first one."""
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("not glibc")
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
    }
    command = [sys.executable, "-c", HEAPS_SCRIPT]
    ran = subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=True
    )
    return int(ran.stdout)


def test_all_threads_share_the_heaps() -> None:
    assert heaps_made() < HEAPS


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_ARENA_MAX", "1"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")]
)
def test_who_has_said_how_many_heaps_gets_so_many(name: str, value: str) -> None:
    assert heaps_made(**{name: value}) == 0
