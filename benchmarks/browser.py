"""What a person sees of `pix2live serve`, by a real Chromium: `python -m benchmarks.browser`.

Claims, at loopback, 640x360, the default filter, Chromium and server on the same two cores: 28 fps
or more shown; the page measures from its camera's frame to the shown picture p50 under 60 ms and
p95 under 120 ms by WebSocket, under 150 and 250 ms by WebRTC; each added watcher costs under 10 %
of a core; memory is flat over ten minutes (``--minutes 10``); 200 pages that come and go leave no
thread and no handle, and after the first half of them memory grows no more.

The camera is Chromium's fake one, fed with the demo's clip at 30 fps.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import cv2
import psutil

from benchmarks import common
from realtime.sources.web_page import BROWSERS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
CAMERA_FPS = 30
WARM_UP_S = 6.0
WATCHERS = 4
VISITS = 200
VISIT_SAMPLES = 8
"""How often the memory is looked at while pages come and go."""
SETTLE_S = 15.0
SETTLE_BETWEEN_S = 4.0
"""Longer than `tools.serve.COLLECT_AFTER_S`."""
SAMPLE_S = 10.0


@contextlib.contextmanager
def server(*words: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run `pix2live serve` on a free port; yields address and process."""
    with subprocess.Popen(
        [sys.executable, "-m", "tools", "serve", "--port", "0", "--sessions", "8", *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    ) as process:
        assert process.stderr is not None
        try:
            address = ""
            while not address:
                line = process.stderr.readline()
                if not line:
                    sys.exit("the server did not start")
                if line.startswith("open "):
                    address = line.split()[1]
            yield address.rstrip("/"), psutil.Process(process.pid)
        finally:
            process.terminate()
            process.stderr.read()


def camera_film(folder: Path) -> Path:
    """Return the demo's clip as the fake camera takes it."""
    return write_film(folder / "camera.mjpeg", common.frames_of(common.clip(folder), common.SIZE))


def write_film(path: Path, pictures: Iterable[Any]) -> Path:
    """Write pictures, uint8 (H, W, 3) BGR, as JPEG one after the other; returns ``path``."""
    with path.open("wb") as file:
        for pixels in pictures:
            file.write(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    return path


@contextlib.contextmanager
def launched(tool: Playwright, film: Path | None, *arguments: str) -> Iterator[Browser]:
    """Run a Chromium whose camera shows a film, or that has none; the tests do so too."""
    device = f"fps={CAMERA_FPS}" if film is not None else "device-count=0"
    words = [f"--use-fake-device-for-media-stream={device}", *arguments]
    if film is not None:
        words.append(f"--use-file-for-fake-video-capture={film}")
    browser = tool.chromium.launch(
        executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0, args=words
    )
    try:
        yield browser
    finally:
        browser.close()


@contextlib.contextmanager
def chromium(film: Path) -> Iterator[Browser]:
    """Run a Chromium whose camera shows ``film`` to whoever asks for it."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        sys.exit("this benchmark needs a Chromium: apt-get install chromium")
    with (
        sync_playwright() as tool,
        launched(tool, film, "--use-fake-ui-for-media-stream") as browser,
    ):
        yield browser


def start_page(browser: Browser, address: str, transport: str) -> Page:
    """Open the page, press start, and wait until pictures flow."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    press_start(page, transport)
    for _ in range(200):
        if page.evaluate("window.pix2live.stats().shown") > 5:
            break
        page.wait_for_timeout(200)
    page.wait_for_timeout(WARM_UP_S * 1000)
    return page


def press_start(page: Page, transport: str) -> None:
    """Press start once the gallery is there."""
    page.wait_for_selector("#gallery input", state="attached")
    page.select_option("#transport", transport)
    page.click("#start")


def through_the_page(
    browser: Browser, address: str, transport: str, seconds: float
) -> dict[str, Any]:
    """Return what the page measured."""
    page = start_page(browser, address, transport)
    try:
        page.wait_for_timeout(seconds * 1000)
        stats = page.evaluate(f"window.pix2live.stats({seconds:g})")
        assert page.evaluate("window.pix2live.transport") == transport
    finally:
        page.close()
    trip = stats["roundTrip"]
    return {
        "fps": round(stats["fps"], 1),
        "round_trip_p50_ms": round(trip["p50"], 1),
        "round_trip_p95_ms": round(trip["p95"], 1),
        "samples": trip["samples"],
    }


def watchers_cost(seconds: float, rounds: int) -> dict[str, Any]:
    """Return what part of a core each watcher takes of the server, alternating with and without."""
    found = []
    with server("test-pattern:640x360@30") as (address, process):
        for _ in range(rounds):
            without = asyncio.run(watched(address, process, 1, seconds))
            beside = asyncio.run(watched(address, process, 1 + WATCHERS, seconds))
            found.append((beside - without) / WATCHERS)
    return common.summary([100 * share for share in found])


async def watched(address: str, process: psutil.Process, count: int, seconds: float) -> float:
    """Return the cores that the server uses while ``count`` pages watch."""

    async def watch(client: aiohttp.ClientSession) -> None:
        async with client.ws_connect(f"{address}/ws") as socket:
            await socket.send_json({"type": "watch", "session": "local"})
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    index = int.from_bytes(message.data[:4], "little")
                    await socket.send_json({"type": "shown", "index": index})

    async with aiohttp.ClientSession() as client:
        tasks = [asyncio.create_task(watch(client)) for _ in range(count)]
        await asyncio.sleep(1.0)
        before, started_s = sum(process.cpu_times()[:2]), time.monotonic()
        await asyncio.sleep(seconds)
        used = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - started_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return used


def visits(browser: Browser, address: str, process: psutil.Process, count: int) -> dict[str, Any]:
    """Let pages come and go, some in the middle of everything; return what they left behind."""
    rng = random.Random(7)
    page = browser.new_page()

    def once(transport: str, rest_ms: float) -> None:
        page.goto(address)
        press_start(page, transport)
        page.wait_for_timeout(rest_ms)
        page.goto("about:blank")

    for transport in ("websocket", "webrtc") * 3:
        once(transport, 1500)
    settled(address)
    before = process.num_threads(), process.num_fds(), process.memory_info().rss
    curve = {}
    for number in range(count):
        once(("websocket", "webrtc")[number % 2], rng.uniform(0, 900))
        if (number + 1) % max(1, count // VISIT_SAMPLES) == 0:
            settled(address, SETTLE_BETWEEN_S)
            curve[number + 1] = round(process.memory_info().rss / 1e6, 1)
    settled(address)
    after = process.num_threads(), process.num_fds(), process.memory_info().rss
    page.close()
    return {
        "visits": count,
        "threads": [before[0], after[0]],
        "handles": [before[1], after[1]],
        "memory_mb": [round(before[2] / 1e6, 1), round(after[2] / 1e6, 1)],
        "memory_mb_after_visit": curve,
    }


def settled(address: str, rest_s: float = SETTLE_S) -> None:
    """Wait until no session runs any more, and for what lingers."""
    running = 1
    while running:
        with urllib.request.urlopen(f"{address}/api/state") as answer:
            running = json.load(answer)["sessions"]["running"]
        time.sleep(0.5)
    time.sleep(rest_s)


def memory(
    browser: Browser, address: str, process: psutil.Process, minutes: float
) -> dict[str, Any]:
    """Return the server's memory while one page runs, every `SAMPLE_S`, after a warm-up."""
    page = start_page(browser, address, "websocket")
    samples = []
    for _ in range(max(2, round(minutes * 60 / SAMPLE_S))):
        page.wait_for_timeout(SAMPLE_S * 1000)
        samples.append(round(process.memory_info().rss / 1e6, 1))
    stats = page.evaluate("window.pix2live.stats(30)")
    page.close()
    third = len(samples) // 3 or 1
    return {
        "minutes": minutes,
        "first_third_mb": statistics.median(samples[:third]),
        "last_third_mb": statistics.median(samples[-third:]),
        "most_mb": max(samples),
        "fps_at_the_end": round(stats["fps"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--minutes", type=float, default=0.0, help="of the run for memory")
    parser.add_argument("--visits", type=int, default=VISITS)
    asked = parser.parse_args()
    result: dict[str, Any] = {"size": list(common.SIZE), "filter": common.FILTER}
    with tempfile.TemporaryDirectory() as folder:
        film = camera_film(Path(folder))
        with server() as (address, process), chromium(film) as browser:
            rounds: dict[str, list[dict[str, Any]]] = {"websocket": [], "webrtc": []}
            for _ in range(asked.rounds):
                for transport, found in rounds.items():
                    found.append(through_the_page(browser, address, transport, asked.seconds))
                    print(transport, found[-1], file=sys.stderr)
            for transport, found in rounds.items():
                result[transport] = {
                    key: common.summary([item[key] for item in found])
                    for key in ("fps", "round_trip_p50_ms", "round_trip_p95_ms")
                }
            if asked.visits:
                result["visits"] = visits(browser, address, process, asked.visits)
                print(result["visits"], file=sys.stderr)
            if asked.minutes:
                result["memory"] = memory(browser, address, process, asked.minutes)
        result["watcher_percent_of_a_core"] = watchers_cost(asked.seconds, asked.rounds)
    common.save("browser", result)


if __name__ == "__main__":
    main()
