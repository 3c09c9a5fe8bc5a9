"""The server and its sessions, by a page without a browser: real sockets, engines, pictures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import aiohttp
import numpy as np
import psutil
import pytest
from serving import Serving, moving, opened, run, serving, settled

from engines import open_engine

T = TypeVar("T")


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving(most=2) as found:
        yield found


def test_a_page_gets_its_own_pictures_back_translated(served: Serving) -> None:
    async def page() -> None:
        async with opened(served) as page:
            started = await page.start(filter="pencil")
            assert started["type"] == "started"
            assert started["filter"] == "pencil"
            assert started["size"] == [96, 64]
            found = {}
            for number in range(6):
                await page.send(number, moving(number))
                index, back, pixels = await page.picture()
                assert back == number
                found[number] = pixels
                assert index == number
            with open_engine("pencil", (96, 64)) as engine:
                for number, pixels in found.items():
                    expected = np.empty_like(pixels)
                    engine.submit(page.sent[number], expected)
                    engine.collect()
                    off = np.abs(pixels.astype(int) - expected).mean()
                    assert off < 6, (number, off)  # what JPEG at quality 80 takes

    run(page())


def test_the_freshest_picture_wins_on_the_way_in_and_all_are_counted(served: Serving) -> None:
    async def page() -> tuple[list[int], dict[str, Any]]:
        async with opened(served) as page:
            await page.start()
            for number in range(40):
                await page.send(number, moving(0))
            numbers = []
            while not numbers or numbers[-1] != 39:
                numbers.append((await page.picture())[1])
            for _ in range(20):  # each place counts a moment after its frame has gone on
                stats = await page.hear("stats")
                if stats["dropped_total"] >= 40 - len(numbers):
                    break
            return numbers, stats

    numbers, stats = run(page())
    assert numbers == sorted(set(numbers))
    assert stats["dropped_total"] == 40 - len(numbers), stats["dropped"]


def test_a_page_that_does_not_answer_gets_three_pictures_and_then_the_newest(
    served: Serving,
) -> None:
    async def page() -> list[int]:
        async with opened(served) as page:
            await page.start()
            numbers = []
            for number in range(3):
                await page.send(number, moving(number))
                numbers.append((await page.picture(answer=False))[1])
            for number in range(3, 12):
                await page.send(number, moving(number))
                await asyncio.sleep(0.03)
            await page.say(type="shown", index=2)
            while numbers[-1] != 11:
                numbers.append((await page.picture())[1])
            return numbers

    numbers = run(page())
    assert numbers[:3] == [0, 1, 2]
    assert len(numbers) < 8  # most of those that nobody waited for were never sent


def test_switching_while_pictures_flow(served: Serving) -> None:
    async def page() -> None:
        async with opened(served) as page:
            await page.start(filter="comic")
            for number, name in enumerate(["pencil", "wave", "comic"]):
                await page.say(type="switch", filter=name)
                assert await page.hear() == {"type": "switched", "filter": name}
                await page.send(number, moving(number))
                assert (await page.picture())[1] == number
            await page.say(type="switch", filter="no such one")
            assert "there are: comic" in (await page.hear("failed"))["error"]
            await page.send(9, moving(9))
            assert (await page.picture())[1] == 9

    run(page())


def test_who_clicks_through_the_gallery_gets_the_last_one(served: Serving) -> None:
    async def page() -> list[str]:
        async with opened(served) as page:
            await page.start(filter="comic")
            for name in ("pencil", "wave", "matisse", "scream", "starry"):
                await page.say(type="switch", filter=name)
            heard = []
            while not heard or heard[-1] != "starry":
                heard.append((await page.hear("switched"))["filter"])
            return heard

    assert len(run(page())) <= 2


def test_two_pages_have_their_own_pictures_and_a_third_finds_it_full(served: Serving) -> None:
    async def pages() -> None:
        await settled(served)
        async with opened(served) as one, opened(served) as two, opened(served) as three:
            first = await one.start(filter="pencil")
            second = await two.start(filter="wave")
            assert first["session"] != second["session"]
            full = await three.start()
            assert (full["type"], full["running"], full["most"]) == ("full", 2, 2)
            await one.send(1, moving(1))
            await two.send(2, moving(50))
            assert (await one.picture())[1] == 1
            assert (await two.picture())[1] == 2
            await two.say(type="stop")
            while served.sessions.running == 2:
                await asyncio.sleep(0.02)
            assert (await three.start())["type"] == "started"

    run(pages())


def test_others_may_watch_by_the_id_also_side_by_side(served: Serving) -> None:
    async def pages() -> None:
        await settled(served)
        async with opened(served) as owner, opened(served) as watcher, opened(served) as both:
            started = await owner.start(filter="wave")
            await watcher.say(type="watch", session=started["session"])
            assert (await watcher.hear("started"))["filter"] == "wave"
            await both.say(type="watch", session=started["session"], view="side-by-side")
            await both.hear("started")
            await owner.send(5, moving(5))
            _, _, own = await owner.picture()
            _, number, seen = await watcher.picture()
            _, _, pair = await both.picture()
            assert number == 5
            assert np.array_equal(own, seen)  # encoded once
            assert pair.shape == (64, 192, 3)
            assert np.abs(pair[:, :96].astype(int) - owner.sent[5]).mean() < 8
            assert np.abs(pair[:, 96:].astype(int) - own).mean() < 8
            await owner.say(type="stop")
            assert (await watcher.hear("ended"))["reason"]

    run(pages())


def test_the_local_source_is_watched_and_steered_by_all() -> None:
    async def pages(served: Serving) -> None:
        async with opened(served) as one, opened(served) as two:
            for page in (one, two):
                await page.say(type="watch", session="local")
                assert (await page.hear("started"))["kind"] == "local"
            first = [(await one.picture())[0] for _ in range(5)]
            assert first == sorted(set(first))
            await two.say(type="switch", filter="pencil")
            assert await one.hear("switched") == {"type": "switched", "filter": "pencil"}
            await two.picture()

    with serving("test-pattern:96x64@30") as served:
        run(pages(served))


@pytest.mark.parametrize(
    "message",
    [
        "",
        "[]",
        "null",
        "{",
        '{"type": 5}',
        '{"type": ["start"]}',
        '{"type": "no such"}',
        "[" * 60_000,
        '{"type": "start", "padding": "' + "x" * 70_000 + '"}',
    ],
)
def test_who_talks_nonsense_is_shown_out(served: Serving, message: str) -> None:
    async def page() -> None:
        async with opened(served) as page:
            await page.socket.send_str(message)
            assert (await page.hear("failed"))["what"] == "message"
            assert (await page.socket.receive(30)).type is aiohttp.WSMsgType.CLOSE

    run(page())


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"width": 96}, "height"),
        ({"width": "96", "height": 64}, "width is a whole number"),
        ({"width": 95, "height": 64}, "even sides"),
        ({"width": 2, "height": 2}, "16 px or more"),
        ({"width": 4096, "height": 4096}, "1920x1080 at most"),
        ({"width": 96, "height": 64, "filter": "../../etc/passwd"}, "no filter"),
        ({"width": 96, "height": 64, "filter": 7}, "no filter"),
        ({"width": 96, "height": 64, "quality": 3}, "quality"),
        ({"width": 96, "height": 64, "transport": "pigeon"}, "transport"),
    ],
)
def test_a_start_that_cannot_be_says_why_and_may_be_tried_again(
    served: Serving, wish: dict[str, Any], why: str
) -> None:
    async def page() -> None:
        await settled(served)
        async with opened(served) as page:
            await page.say(type="start", **wish)
            failed = await page.hear()
            assert (failed["type"], failed["what"]) == ("failed", "start")
            assert why in failed["error"]
            assert (await page.start())["type"] == "started"

    run(page())


def test_pictures_that_are_none_are_left_out_and_named(served: Serving) -> None:
    async def page() -> None:
        async with opened(served) as page:
            await page.start()
            wrong = (b"", b"\xff\xd8", b"\xff\xd8\xff" + b"\0" * 50, b"GIF89a", b"\xff" * 5000)
            for data in wrong:
                await page.socket.send_bytes(data)
                await asyncio.sleep(0.05)
            page.size = (48, 32)
            await page.send(1, moving(1, (48, 32)))  # another size than was agreed
            await asyncio.sleep(0.05)
            await page.send(2, moving(2))
            assert (await page.picture())[1] == 2
            notes = (await page.hear("stats"))["notes"]
            assert any("JPEG of 96x80, found" in note and "48x48" in note for note in notes)

    run(page())


def test_a_message_that_is_too_large_ends_that_page_only(served: Serving) -> None:
    async def pages() -> None:
        await settled(served)
        async with opened(served) as good, opened(served) as bad:
            await good.start()
            await bad.start()
            with contextlib.suppress(ConnectionError):
                await bad.socket.send_bytes(b"\0" * (10 * 2**20))
            kinds = set()
            while not kinds & {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}:
                kinds.add((await bad.socket.receive(30)).type)
            await good.send(1, moving(1))
            assert (await good.picture())[1] == 1

    run(pages())


def test_too_many_messages_end_that_page_only(served: Serving) -> None:
    async def pages() -> None:
        await settled(served)
        async with opened(served) as good, opened(served) as bad:
            await good.start()
            for _ in range(3000):
                if bad.socket.closed:
                    break
                await bad.say(type="shown", index=0)
            while (await bad.socket.receive(30)).type is not aiohttp.WSMsgType.CLOSE:
                pass
            await good.send(1, moving(1))
            assert (await good.picture())[1] == 1

    run(pages())


def test_who_vanishes_leaves_nothing_behind(served: Serving) -> None:
    process = psutil.Process()

    async def vanish(number: int) -> None:
        async with opened(served) as page:
            if number % 3:
                await page.start(filter=("comic", "pencil")[number % 2])
            if number % 3 == 2:
                await page.send(0, moving(0))
            assert page.socket._response.connection is not None
            transport = page.socket._response.connection.transport
            assert transport is not None
            transport.abort()  # no goodbye, in the middle of whatever goes on
        await settled(served)

    def left() -> tuple[int, int, int]:
        named = [item for item in threading.enumerate() if item.name.startswith("pix2live")]
        tasks = served.call(_tasks())
        return len(named), process.num_fds(), tasks

    run(vanish(1))
    run(vanish(2))
    before = left()
    for number in range(12):
        run(vanish(number))
    for _ in range(200):
        after = left()
        if after <= before:
            break
        run(asyncio.sleep(0.02))
    assert after[0] <= before[0]
    assert after[1] <= before[1] + 1
    assert after[2] <= before[2]


async def _tasks() -> int:
    return len(asyncio.all_tasks())


def test_stopping_the_server_says_goodbye() -> None:
    async def first(served: Serving) -> None:
        async with opened(served) as page:
            await page.start()
            stopping = asyncio.create_task(asyncio.to_thread(served.call, served.server.close()))
            assert "stops" in (await page.hear("ended"))["reason"]
            while (message := await page.socket.receive(30)).type is aiohttp.WSMsgType.TEXT:
                assert json.loads(message.data)
            assert message.type is aiohttp.WSMsgType.CLOSE
            await stopping

    with serving() as served:
        run(first(served))


def test_a_page_of_another_site_cannot_connect(served: Serving) -> None:
    async def page() -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with opened(served, headers={"Origin": "http://evil.example"}):
                pass
        assert caught.value.status == 403

    run(page())
