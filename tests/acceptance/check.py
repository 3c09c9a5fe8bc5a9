"""Judge `pix2live` between a real V4L2 camera and a real virtual camera.

Runs inside the guest, beside pix2live and not in it: this is the "other program" that opens the
virtual camera. Usage: check.py CAMERA VIRTUAL_CAMERA RESULTS_FOLDER; exit status 1 if anything
is not as it should be.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

WIDTH_PX, HEIGHT_PX = 320, 180
# Emulation is some thirty times slower than the machine it runs on.
START_LIMIT_S = 240
FRAME_LIMIT_S = 60
MOVE_LIMIT_S = 300
STOP_LIMIT_S = 60

EXIT_INTERRUPTED = 130
DIFFERENT_FRAMES = 8
SAME_PICTURE = 4.0
"""Mean difference, of 255, that the virtual camera's own colour format (I420) may make."""

BARS = {
    "white": (191, 191, 191),
    "yellow": (0, 191, 191),
    "cyan": (191, 191, 0),
    "green": (0, 191, 0),
    "magenta": (191, 0, 191),
    "red": (0, 0, 191),
    "blue": (191, 0, 0),
    "black": (0, 0, 0),
}
"""The test camera's 75% colour bars, left to right, as BGR."""
EXACT = 16
"""How far, of 255, a bar may be from the colour that it should have."""

failures: list[str] = []


@dataclass(frozen=True)
class Devices:
    camera: str
    virtual: str


def check(passed: bool, what: str, found: object = "") -> None:
    detail = f" ({found})" if found != "" else ""
    print(f"{'ok  ' if passed else 'FAIL'} {what}{detail}", flush=True)
    if not passed:
        failures.append(what)


def main(devices: Devices, results: Path) -> int:
    size = ["--size", f"{WIDTH_PX}x{HEIGHT_PX}"]
    try:
        check_doctor(devices, results / "doctor.txt")
        check_run(devices, results / "identity", ["--backend", "identity", *size], 30)
        check_run(devices, results / "comic", ["--filter", "comic", *size], 1)
    except (OSError, subprocess.SubprocessError) as e:  # a time limit, mostly
        check(False, "the checks could be carried out", e)
        for log in sorted(set(results.glob("*.log")) - {results / "console.log"}):
            print(f"---- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
    print(f"{len(failures)} failed: {failures}" if failures else "all passed")
    return 1 if failures else 0


def check_doctor(devices: Devices, report: Path) -> None:
    said = output_of("pix2live", "doctor")
    report.write_text(said)
    check(f"{devices.camera} vivid" in said, "doctor lists the camera by its name")
    check(devices.virtual in said, "doctor lists the virtual camera")
    # The witness: each "Size: ..." is followed by its rates.
    fastest: dict[str, float] = {}
    size = ""
    for line in output_of("v4l2-ctl", "-d", devices.camera, "--list-formats-ext").splitlines():
        if found := re.search(r"Size: Discrete (\d+x\d+)", line):
            size = found[1]
        elif found := re.search(r"\(([\d.]+) fps\)", line):
            fastest[size] = max(fastest.get(size, 0), float(found[1]))
    modes = {s: re.search(f"{s}[^\n]* {fps:g} fps", said) for s, fps in fastest.items()}
    missing = [s for s, listed in modes.items() if not listed]
    check(bool(modes) and not missing, "doctor lists its modes", f"missing: {missing or 'none'}")


def check_run(devices: Devices, base: Path, arguments: list[str], moving_fps: int) -> None:
    """Run between the devices; files are named BASE-something."""
    name = base.name
    set_controls(
        devices.camera, test_pattern=0, osd_text_mode=2, horizontal_movement=3, vertical_movement=3
    )
    before = captured(devices.camera)
    worst = max(bar_errors(before, BARS).values())
    check(worst <= EXACT, f"{name}: the camera shows its colour bars", f"worst error {worst}")
    expected = translated(before, base, arguments)
    caps = capabilities(devices.virtual)
    check(
        "Video Output" in caps and "Video Capture" not in caps,
        f"{name}: nobody feeds the virtual camera, so it is no camera yet",
    )

    log, stats = base.with_suffix(".log"), base.with_suffix(".json")
    sink = ["--sink", f"virtual-camera:{devices.virtual}", "--stats", str(stats)]
    with pix2live(log, "run", devices.camera, *arguments, *sink) as process:
        still, shifts = watched(devices, process, moving_fps)
        caps = capabilities(devices.virtual)
        alive = process.poll() is None
    status = process.returncode
    check("Video Output" not in caps, f"{name}: fed, it is only a camera (exclusive_caps)")
    well = alive and status == EXIT_INTERRUPTED
    check(well, f"{name}: runs until Ctrl-C, and ends well", f"exit status {status}")
    # v4l2loopback 0.12 forgets to, after a writer that never said VIDIOC_STREAMON.
    caps = capabilities(devices.virtual)
    check("Video Output" in caps, f"{name}: afterwards it can be fed again")

    gap = np.full((before.shape[0], 8, 3), 128, np.uint8)
    cv2.imwrite(f"{base}.png", np.hstack([before, gap, cv2.resize(still, before.shape[1::-1])]))
    check(still.shape == before.shape, f"{name}: size", "x".join(map(str, still.shape[1::-1])))
    # A filter changes colours; the way through the devices must not.
    errors = bar_errors(still, bar_colours(expected))
    check(max(errors.values()) <= EXACT, f"{name}: colours", errors)
    away = round(float(cv2.absdiff(still, expected).mean()), 2)
    check(away <= SAME_PICTURE, f"{name}: the picture that pix2live makes of a file", away)
    half = WIDTH_PX // 2  # a step is taken as the shorter way round
    steps = [(b - a + half) % WIDTH_PX - half for a, b in itertools.pairwise(shifts)]
    ordered = len(shifts) == DIFFERENT_FRAMES and min(steps) > 0
    check(ordered, f"{name}: moving pictures come in order", f"moved by {shifts}")
    ages = json.loads(stats.read_text())["sinks"][0]["age"] if stats.exists() else {}
    check(bool(ages.get("p95_ms")), f"{name}: the age of the pictures is reported", ages)


def watched(
    devices: Devices, process: subprocess.Popen[bytes], moving_fps: int
) -> tuple[np.ndarray, list[int]]:
    """Return a picture of the still bars, and how far they have moved in those that follow.

    The camera is slowed down to what emulation can follow: half a round between two pictures
    would look like a step back.
    """
    capture = virtual_opened(devices.virtual, process)
    still = [read(capture) for _ in range(10)][-1]
    output_of("v4l2-ctl", "-d", devices.camera, "--set-parm", str(moving_fps))
    set_controls(devices.camera, horizontal_movement=4)  # two pixels to the right, each frame
    shifts = [0]
    deadline = time.monotonic() + MOVE_LIMIT_S
    while len(shifts) < DIFFERENT_FRAMES and time.monotonic() < deadline:
        shift = shift_px(read(capture), still)
        if shift != shifts[-1]:  # a virtual camera has a beat: it repeats what it has
            shifts.append(shift)
    capture.release()
    return still, shifts


def virtual_opened(virtual: str, process: subprocess.Popen[bytes]) -> cv2.VideoCapture:
    """Wait until the device becomes a camera, which it does with the first picture."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        if "Video Capture" in capabilities(virtual):
            capture = cv2.VideoCapture(virtual, cv2.CAP_V4L2)
            if capture.isOpened():
                return capture
            capture.release()
        time.sleep(0.5)
    raise TimeoutError(f"{virtual} is no camera; pix2live's exit status: {process.poll()}")


@contextlib.contextmanager
def pix2live(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The real command, ended as a person ends it: with Ctrl-C."""
    print("run  pix2live " + " ".join(arguments), flush=True)
    with log.open("wb") as out:
        process = subprocess.Popen(["pix2live", *arguments], stdout=out, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def translated(picture: np.ndarray, base: Path, arguments: list[str]) -> np.ndarray:
    """What pix2live makes of one picture with neither a camera nor a virtual camera."""
    folder = Path(f"{base}-file")
    folder.mkdir()
    cv2.imwrite(f"{folder}/camera.png", picture)
    output_of("pix2live", "run", f"{folder}/camera.png", *arguments, "--sink", f"{folder}/out/")
    written = sorted(folder.glob("out/*.png"))
    check(len(written) == 1, f"{base.name}: a picture file is translated")
    return cv2.imread(str(written[0])) if written else np.zeros_like(picture)


def captured(camera: str) -> np.ndarray:
    """Return a picture of the camera, taken without pix2live."""
    capture = cv2.VideoCapture(camera, cv2.CAP_V4L2)
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, WIDTH_PX)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, HEIGHT_PX)
    frames = [read(capture) for _ in range(3)]
    capture.release()
    return frames[-1]


def read(capture: cv2.VideoCapture) -> np.ndarray:
    deadline = time.monotonic() + FRAME_LIMIT_S
    while time.monotonic() < deadline:
        there, frame = capture.read()  # gives up after ten seconds by itself
        if there:
            return frame
    raise TimeoutError(f"no frame for {FRAME_LIMIT_S} s")


def bar_colours(frame: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Return the colour of each bar (BGR), away from the edges between bars."""
    height, width = frame.shape[:2]
    colours = {}
    for i, name in enumerate(BARS):
        left, right = int((i + 0.25) * width / len(BARS)), int((i + 0.75) * width / len(BARS))
        bar = frame[height // 4 : height * 3 // 4, left:right]
        colours[name] = tuple(bar.mean(axis=(0, 1)).tolist())
    return colours


def bar_errors(frame: np.ndarray, wanted: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
    """How far each bar is from the colour that is wanted (of 255)."""
    found = bar_colours(frame)
    return {
        name: round(max(abs(a - b) for a, b in zip(found[name], colour)), 1)
        for name, colour in wanted.items()
    }


def shift_px(frame: np.ndarray, still: np.ndarray) -> int:
    """How far the bars have moved to the right, 0 <= shift < width (they come round again)."""
    now, then = (picture.mean(axis=0) - picture.mean(axis=(0, 1)) for picture in (frame, still))
    spectrum = np.fft.fft(now, axis=0) * np.conj(np.fft.fft(then, axis=0))
    return int(np.fft.ifft(spectrum, axis=0).real.sum(axis=1).argmax())


def capabilities(device: str) -> str:
    """What the device says it is now: the part that exclusive_caps changes."""
    return output_of("v4l2-ctl", "-d", device, "--info").partition("Device Caps")[2]


def set_controls(camera: str, **controls: int) -> None:
    output_of("v4l2-ctl", "-d", camera, "-c", ",".join(f"{k}={v}" for k, v in controls.items()))


def output_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_LIMIT_S)
    if done.returncode:
        check(False, " ".join(command), f"exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(Devices(sys.argv[1], sys.argv[2]), Path(sys.argv[3])))
