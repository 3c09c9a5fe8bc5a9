"""The server when people come, go and fail at odd moments: nothing stays, nobody else notices."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator

import pytest
from serving import Serving, moving, opened, run, serving, settled

from engines import EngineError, FrameModel
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.sinks import Sink
from realtime.sources import Source
from realtime.web.broadcast import Subscription
from realtime.web.session import Session


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving(most=2) as found:
        yield found


def test_who_starts_and_stops_at_odd_moments_leaves_no_session(served: Serving) -> None:
    async def pages() -> None:
        await settled(served)
        rng = random.Random(3)
        for _ in range(12):
            async with opened(served) as page:
                await page.start()
                await page.say(type="start", width=96, height=64)
                await asyncio.sleep(rng.uniform(0, 0.03))
                await page.say(type="stop")
                await asyncio.sleep(rng.uniform(0, 0.01))
                if rng.random() < 0.5:
                    await page.say(type="start", width=96, height=64)
                    await asyncio.sleep(rng.uniform(0, 0.03))
        await settled(served)

    run(pages())
    assert not list(served.sessions)


def test_of_many_who_switch_the_newest_counts_and_who_leaves_stops_nothing() -> None:
    async def race(session: Session, models: dict[str, FrameModel]) -> tuple[list[str], str]:
        names = ["pencil", "wave", "matisse", "scream", "starry", "watercolour"]
        tasks = [asyncio.create_task(session.switch(models[name])) for name in names]
        await asyncio.sleep(0)
        tasks[-1].cancel()  # it goes; its wish was carried out all the same
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await session.switch(models["watercolour"])
        return [type(item).__name__ for item in found], session.filter

    with serving("test-pattern:96x64@30") as served:
        assert served.sessions.local is not None
        found, shown = served.call(race(served.sessions.local, served.sessions.filters))
        assert found.count("OvertakenError") == 5
        assert found[-1] == "CancelledError"
        assert shown == "watercolour"


def test_a_page_that_leaves_in_a_switch_breaks_nobody_elses() -> None:
    async def pages(served: Serving) -> None:
        for name in ("pencil", "wave", "comic"):
            async with opened(served) as one:
                await one.say(type="watch", session="local")
                await one.hear("started")
                await one.say(type="switch", filter=name)
                await asyncio.sleep(0.01)
            async with opened(served) as two:
                await two.say(type="watch", session="local")
                await two.hear("started")
                await two.say(type="switch", filter="starry")
                while (await two.hear("switched", "failed")) != {
                    "type": "switched",
                    "filter": "starry",
                }:
                    pass

    with serving("test-pattern:96x64@30") as served:
        run(pages(served))


def test_a_side_by_side_that_nobody_waits_for_is_given_up() -> None:
    async def ask(session: Session) -> int:
        for _ in range(15):
            task = asyncio.create_task(session.subscribe("side-by-side"))
            await asyncio.sleep(0.002)
            task.cancel()
            (found,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(found, Subscription):  # it was quicker
                found.close()
                await session.tidy()
        while len(session.pipeline.sinks) > 1:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        return len(session.pipeline.sinks)

    with serving("test-pattern:96x64@30") as served:
        assert served.sessions.local is not None
        assert served.call(ask(served.sessions.local)) == 1


@pytest.mark.parametrize(
    "error", [SystemExit(3), StopIteration(), OSError("gone"), EngineError("no")]
)
def test_whatever_an_engine_raises_only_its_page_fails(error: BaseException) -> None:
    class Broken(IdentityEngine):
        def _open(self, size: tuple[int, int]) -> None:
            raise error

    def make(source: Source | str, model: FrameModel, sink: Sink) -> Pipeline:
        return Pipeline(source, Broken(model), [sink], mode="freshest")

    async def page(served: Serving) -> None:
        for _ in range(3):  # of one place
            async with opened(served) as page:
                assert (await page.start())["type"] == "failed"
            await settled(served)

    with serving(most=1, make=make) as served:
        run(page(served))


def test_a_page_that_sends_nothing_gives_its_place_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("realtime.web.socket.IDLE_S", 0.5)

    async def pages(served: Serving) -> None:
        async with opened(served) as idle, opened(served) as other:
            await idle.start()
            assert "no picture came" in (await idle.hear("ended"))["reason"]
            assert (await other.start())["type"] == "started"

    with serving(most=1) as served:
        run(pages(served))


def test_who_may_watch_a_camera_may_not_change_what_its_owner_sees(served: Serving) -> None:
    async def pages() -> None:
        await settled(served)
        async with opened(served) as owner, opened(served) as watcher:
            started = await owner.start(filter="comic")
            await watcher.say(type="watch", session=started["session"])
            await watcher.hear("started")
            for wish in (
                {"type": "switch", "filter": "pencil"},
                {"type": "quality", "quality": 40},
            ):
                await watcher.say(**wish)
                assert "only the page whose camera" in (await watcher.hear("failed"))["error"]
            await owner.send(1, moving(1))
            await owner.picture()
            assert (await owner.hear("stats"))["filter"] == "comic"

    run(pages())


@pytest.mark.parametrize("fade", ["1" + "0" * 400, "-1", "true", '"1"', "1e400", "NaN"])
def test_a_fade_that_is_none_is_refused(served: Serving, fade: str) -> None:
    async def page() -> None:
        await settled(served)
        async with opened(served) as page:
            await page.start()
            text = f'{{"type": "switch", "filter": "pencil", "crossfade_ms": {fade}}}'
            await page.socket.send_str(text)
            failed = await page.hear()
            assert (failed["type"], failed["what"]) == ("failed", "switch")
            await page.send(1, moving(1))
            assert (await page.picture())[1] == 1

    run(page())


def test_a_server_that_stops_while_a_page_starts_leaves_nothing() -> None:
    class Slow(IdentityEngine):
        def _open(self, size: tuple[int, int]) -> None:
            time.sleep(0.5)
            super()._open(size)

    def make(source: Source | str, model: FrameModel, sink: Sink) -> Pipeline:
        return Pipeline(source, Slow(model), [sink], mode="freshest")

    async def page(served: Serving) -> None:
        async with opened(served) as page:
            await page.say(type="start", width=96, height=64)
            while not served.sessions.running:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(served.call, served.server.close())

    with serving(make=make) as served:
        run(page(served))
        assert served.sessions.running == 0
    assert not [item for item in threading.enumerate() if item.name.startswith("pix2live session")]
