"""The window, for real: under Xvfb, with key presses, in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from xvfb import WAIT_S, Screen, Window, until, virtual_screen

from engines import Pixels
from realtime.sources.synthetic import SyntheticSource, read_code

ROOT = Path(__file__).resolve().parents[2]
TITLE = "pix2live: negative"
PROGRAM = """
import json, sys
import numpy as np
from engines import Pix2liveError
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.sinks.window import WindowSink
from realtime.sources.synthetic import SyntheticSource
import av  # as a video source does; before OpenCV it would be fatal

class Negative(IdentityEngine):
    name = "negative"
    def _submit(self, frame_in, frame_out):
        np.subtract(255, frame_in, out=frame_out)

width, height, fps, *frames = (int(word) for word in sys.argv[1:])
window = WindowSink()
pipeline = Pipeline(SyntheticSource((width, height), fps), Negative(None), [window],
                    frames=frames[0] if frames else None)
pipeline.next_filter = lambda: print("next filter", flush=True)
try:
    stats = pipeline.run()
except Pix2liveError as error:
    sys.exit(f"error: {error}")
print(json.dumps({"notes": pipeline.all_notes(), "shown": stats.sinks[0].ages.count}), flush=True)
"""


@pytest.fixture(scope="module")
def screen() -> Iterator[Screen]:
    with virtual_screen() as found:
        yield found


@contextmanager
def program(
    screen: Screen, folder: Path, size: tuple[int, int] = (640, 360), fps: int = 20
) -> Iterator[subprocess.Popen[str]]:
    """Run the pipeline with a window, in its own process: OpenCV's Qt knows one display only."""
    words = [sys.executable, "-c", PROGRAM, *map(str, size), str(fps)]
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=screen.env | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        # The server takes a moment; the next test must not find this one's window.
        until(lambda: not screen.xdotool("search", "--name", TITLE), "the window to go")


def finish(process: subprocess.Popen[str]) -> dict[str, object]:
    """Wait for the end and return what the program reported in its last line."""
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    report = json.loads(out.splitlines()[-1])
    assert isinstance(report, dict)
    return report | {"printed": out.splitlines()[:-1]}


def bars(picture: Pixels, part: slice = slice(None)) -> list[list[int]]:
    """Return the colours of the eight bars, where neither code, ball, text nor line is."""
    height, width = picture.shape[:2]
    row = picture[height * 30 // 100]
    return [row[int((number + 0.5) * width / 8)].tolist() for number in range(8)][part]


def pattern(size: tuple[int, int] = (640, 360)) -> Pixels:
    """Return a picture of the source, to compare with."""
    from clips import first_picture

    return first_picture(SyntheticSource(size))


def shows(screen: Screen, window: Window, wanted: list[list[int]], part: slice) -> None:
    """Wait until the bars of the window have these colours."""
    until(lambda: bars(screen.look(window), part) == wanted[part], f"bars {wanted[part]}")


RIGHT = slice(4, 8)
LEFT = slice(2, 4)


@pytest.mark.parametrize("size", [(640, 360), (1280, 720)])
def test_title_size_picture_and_keys(screen: Screen, tmp_path: Path, size: tuple[int, int]) -> None:
    plain = bars(pattern(size))
    negative = [[255 - value for value in colour] for colour in plain]
    with program(screen, tmp_path, size) as process:
        window = screen.find(TITLE)
        assert (window.width, window.height) == size
        shows(screen, window, negative, RIGHT)

        screen.press("f")
        shows(screen, window, plain, RIGHT)
        screen.press("f")
        shows(screen, window, negative, RIGHT)

        screen.press("s")
        shows(screen, window, plain, LEFT)
        shot = screen.look(window)
        assert bars(shot, RIGHT) == negative[RIGHT]
        middle = size[0] // 2
        assert (shot[size[1] // 4, middle - 1 : middle + 1] == 255).all()
        screen.press("s")
        shows(screen, window, negative, LEFT)

        def darkness() -> float:
            """Look at the second bar, blue in the negative, where the help reaches to."""
            shot = screen.look(window)
            part = shot[size[1] // 10 : size[1] // 5, size[0] * 14 // 100 : size[0] * 16 // 100]
            return float(255 - np.median(part[..., 0]))

        assert darkness() == 0
        screen.press("h")
        until(lambda: darkness() > 100, "the help")
        save(screen.look(window), f"window_help_{size[0]}.png")
        screen.press("h")
        until(lambda: darkness() == 0, "the help to go")

        label = screen.look(window)[-20:, : size[0] // 8]
        assert label.min() < 60, "a dark box"
        assert label.max() > 200, "white text"

        # X11's symbols for these end in the codes of Q, P and S.
        for key in ("Left", "Home", "Right", "shift", "F5"):
            screen.press(key)
        screen.press("n")
        shows(screen, window, negative, LEFT)
        assert process.poll() is None, "an arrow key must not quit"
        screen.press("q")
        report = finish(process)
    assert report["printed"] == ["next filter"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(640, 360), (1280, 720)])
def test_the_views_of_the_keys(screen: Screen, tmp_path: Path, size: tuple[int, int]) -> None:
    plain = bars(pattern(size))
    negative = [[255 - value for value in colour] for colour in plain]
    with program(screen, tmp_path, size) as process:
        window = screen.find(TITLE)
        shows(screen, window, negative, RIGHT)
        screen.press("d")
        apart = [[min(255, 2 * abs(2 * value - 255)) for value in colour] for colour in plain]
        shows(screen, window, apart, RIGHT)
        save(screen.look(window), f"window_difference_{size[0]}.png")
        screen.press("i")
        shows(screen, window, negative, RIGHT)
        inset = screen.look(window)[size[1] * 7 // 10 : -size[1] // 20, size[0] * 7 // 10 :]
        shown = {tuple(colour) for colour in inset[inset.shape[0] // 4].tolist()}
        assert tuple(plain[2]) in shown, "as captured"
        save(screen.look(window), f"window_inset_{size[0]}.png")
        screen.press("i")
        until(
            lambda: (
                tuple(plain[2])
                not in map(tuple, screen.look(window)[size[1] * 8 // 10, -size[0] // 4 :].tolist())
            ),
            "the inset to go",
        )
        screen.press("q")
        finish(process)


@pytest.mark.parametrize("window_size", [(640, 360), (960, 540), (640, 540)])
def test_the_split_line_is_dragged_with_the_mouse(
    screen: Screen, tmp_path: Path, window_size: tuple[int, int]
) -> None:
    with program(screen, tmp_path) as process:
        found = screen.find(TITLE)
        if window_size != (640, 360):
            screen.xdotool("windowsize", "--sync", str(found.number), *map(str, window_size))
        window = dataclasses.replace(found, width=window_size[0], height=window_size[1])

        def line() -> float | None:
            """Return where the white line is, as a part of the width, looked for above the bars."""
            row = screen.look(window)[window.height * 30 // 100].astype(int)
            white = np.flatnonzero((row > 235).all(axis=1))
            return float(white.mean()) / window.width if 0 < len(white) <= 6 else None

        def near(part: float) -> bool:
            there = line()
            return there is not None and abs(there - part) < 0.012

        def move(part: float) -> None:
            x, y = window.left + round(part * window.width), window.top + window.height // 2
            screen.xdotool("mousemove", "--sync", str(x), str(y))

        screen.press("s")
        until(lambda: near(0.5), "the split line")
        move(0.5)
        screen.xdotool("mousedown", "1")
        for part in (0.45, 0.35, 0.31):
            move(part)
            until(lambda part=part: near(part), f"the line at {part}")
        screen.xdotool("mouseup", "1")
        move(0.8)
        screen.press("h")  # a key comes after the motion: what that would do is done
        screen.press("h")
        until(lambda: near(0.31), "the line to stay where it was let go")
        screen.press("q")
        finish(process)


def test_what_is_shown_is_in_order_and_the_screenshot_is_what_is_shown(
    screen: Screen, tmp_path: Path
) -> None:
    with program(screen, tmp_path, fps=3) as process:
        window = screen.find(TITLE)
        below = slice(60, None)  # the message about the screenshot is above
        seen: list[Pixels] = []

        def look() -> list[Path]:
            seen.append(screen.look(window)[below])
            return list(tmp_path.glob("pix2live-*.png"))

        until(lambda: bars(screen.look(window))[4] == [255 - 220, 255, 255 - 220], "a picture")
        look()
        screen.press("p")
        (path,) = until(look, "the screenshot")
        look()
        screen.press("q")
        report = finish(process)
    picture = cv2.imread(str(path))
    assert picture is not None
    assert any(np.array_equal(picture[below], shot) for shot in seen)
    assert read_code(np.subtract(255, picture, dtype=np.uint8)) is not None, "no hint on it"
    assert any("screenshot: " in note for note in as_list(report["notes"]))
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_record_makes_a_film_that_plays(screen: Screen, tmp_path: Path) -> None:
    with program(screen, tmp_path) as process:
        screen.find(TITLE)
        screen.press("r")
        until(lambda: list(tmp_path.glob(".pix2live-*.part*.mp4")), "the recording")
        shown = until(lambda: film_grows(tmp_path), "a second of film")
        assert shown
        screen.press("r")
        (path,) = until(lambda: list(tmp_path.glob("pix2live-*.mp4")), "the film")
        screen.press("Escape")
        report = finish(process)
    with av.open(str(path)) as film:
        numbers = []
        for frame in film.decode(video=0):
            code = read_code(np.subtract(255, frame.to_ndarray(format="bgr24"), dtype=np.uint8))
            assert code is not None
            numbers.append(code[0])
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 10
    assert any("recorded" in note for note in as_list(report["notes"]))
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def film_grows(folder: Path) -> bool:
    return any(part.stat().st_size > 2000 for part in folder.glob(".pix2live-*.part*.mp4"))


def as_list(notes: object) -> list[str]:
    assert isinstance(notes, list)
    return notes


@pytest.mark.parametrize("way", ["Escape", "Q", "cross"])
def test_the_ways_to_end_it(screen: Screen, tmp_path: Path, way: str) -> None:
    with program(screen, tmp_path) as process:
        window = screen.find(TITLE)
        if way == "cross":
            screen.ask_to_close(window)
        else:
            screen.press(way)
        finish(process)


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({}, "DISPLAY is not set"),
        ({"DISPLAY": ":4711"}, "does not answer"),
        ({"DISPLAY": "nonsense"}, "does not answer"),
    ],
)
def test_without_a_screen_it_is_an_error_and_no_abort(
    tmp_path: Path, env: dict[str, str], reason: str
) -> None:
    check_refused(tmp_path, env, reason)


def test_a_wish_for_wayland_is_an_error_and_no_abort(screen: Screen, tmp_path: Path) -> None:
    if not (Path(cv2.__file__).parent / "qt" / "plugins").is_dir():
        pytest.skip("this OpenCV has another Qt than the wheel's")
    env = {"DISPLAY": screen.display, "QT_QPA_PLATFORM": "wayland"}
    check_refused(tmp_path, env, "unset QT_QPA_PLATFORM")


def test_pyav_before_opencv_is_an_error_and_does_not_hang(screen: Screen, tmp_path: Path) -> None:
    """A program that imports PyAV first: either it works, or it says why it cannot."""
    done = subprocess.run(
        [sys.executable, "-c", "import av\n" + PROGRAM, "64", "64", "30", "5"],
        cwd=tmp_path,
        env=screen.env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    if done.returncode != 0:
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: cannot open a window: ")
        assert "import cv2 before av" in line


def check_refused(folder: Path, env: dict[str, str], reason: str) -> None:
    without = {"DISPLAY", "QT_QPA_PLATFORM", "WAYLAND_DISPLAY"}
    clean = {name: value for name, value in os.environ.items() if name not in without}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "64", "64", "30"],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: cannot open a window: ")
    assert reason in line


def save(picture: Pixels, name: str) -> None:
    """Keep a picture for a person to look at, where one is asked for."""
    folder = os.environ.get("PIX2LIVE_LOOK")
    if folder:
        cv2.imwrite(str(Path(folder) / name), picture)
