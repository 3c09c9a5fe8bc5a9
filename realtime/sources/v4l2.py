"""What cameras Linux has, and what they really can do (V4L2 ioctls; nothing is opened for good)."""

from __future__ import annotations

import errno
import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

# From linux/videodev2.h: _IOR/_IOWR('V', number, struct)
_QUERYCAP = 0x80685600
_STREAMON = 0x40045612
_ENUM_FMT = 0xC0405602
_ENUM_FRAMESIZES = 0xC02C564A
_ENUM_FRAMEINTERVALS = 0xC034564B
_CAP_VIDEO_CAPTURE = 0x00000001
_CAP_VIDEO_OUTPUT = 0x00000002
_CAP_DEVICE_CAPS = 0x80000000
_TYPE_CAPTURE = 1
_TYPE_OUTPUT = 2
_DISCRETE = 1
_FORMATS = {
    "YUYV": 0, "UYVY": 0, "BGR3": 1, "RGB3": 1, "NV12": 1, "NV21": 1, "YU12": 1, "YV12": 1,
    "MJPG": 2, "JPEG": 2, "GREY": 3,
}  # fmt: skip
"""What OpenCV can convert, the best first; a camera may also offer H.264, which it cannot."""
_COMMON_SIZES = ((320, 180), (640, 360), (640, 480), (1280, 720), (1920, 1080))


@dataclass(frozen=True, slots=True, order=True)
class Mode:
    """One way in which a camera can send."""

    width: int
    height: int
    fps: float
    """The highest rate at this size; 0 where the driver does not say."""
    fourcc: str

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {self.fourcc} {self.fps:.4g} fps"


@dataclass(frozen=True, slots=True)
class Device:
    """A video device node."""

    path: str
    name: str
    driver: str
    captures: bool
    outputs: bool
    modes: tuple[Mode, ...] = field(default=())
    problem: str = ""
    """Why it could not be asked: no permission, busy, ..."""


def list_devices() -> list[Device]:
    """Return every /dev/video* in numeric order; empty where there is none."""
    nodes = [node for node in Path("/dev").glob("video*") if re.fullmatch(r"video\d+", node.name)]
    return [query(str(node)) for node in sorted(nodes, key=lambda node: int(node.name[5:]))]


def list_cameras() -> list[Device]:
    """Return the devices that capture pictures."""
    return [device for device in list_devices() if device.captures]


def query(path: str) -> Device:
    """Ask one device node what it is."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = " (is your user in the group 'video'?)" if error.errno == errno.EACCES else ""
        problem = f"{error.strerror}{hint}"
        return Device(path, _sysfs_name(path), "", captures=True, outputs=False, problem=problem)
    try:
        import fcntl  # not everywhere, and `Mode` is

        answer = bytearray(104)
        fcntl.ioctl(handle, _QUERYCAP, answer)
        driver, card, _, _, capabilities, own = struct.unpack_from("16s32s32sIII", answer)
        flags = own if capabilities & _CAP_DEVICE_CAPS else capabilities
        captures = bool(flags & _CAP_VIDEO_CAPTURE)
        return Device(
            path,
            _text(card),
            _text(driver),
            captures=captures,
            outputs=bool(flags & _CAP_VIDEO_OUTPUT),
            modes=tuple(_modes(handle)) if captures else (),
        )
    except OSError as error:
        name, problem = _sysfs_name(path), f"it does not answer: {error.strerror}"
        return Device(path, name, "", captures=False, outputs=False, problem=problem)
    finally:
        os.close(handle)


def free_loopback(path: str) -> None:
    """Make a v4l2loopback device writable again that its last writer left as neither.

    Up to 0.12 with exclusive_caps, a writer that never said VIDIOC_STREAMON (pyvirtualcam does
    not) leaves a device that neither captures nor outputs, until the module is loaded anew.
    Saying it once, and closing, brings the output back. Anything else is left as it is.
    """
    device = query(path)
    if device.driver != "v4l2 loopback" or device.captures or device.outputs:
        return
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, _STREAMON, struct.pack("i", _TYPE_OUTPUT))
    except OSError:
        pass  # refused for want of a format, and yet it counts
    finally:
        os.close(handle)


def choose_mode(modes: tuple[Mode, ...], size: tuple[int, int], fps: float) -> Mode | None:
    """Return the mode to ask for: the nearest size, then a rate that is enough, then raw pixels.

    Raw (YUYV) costs no decoding; it is left for MJPEG where the bus caps its rate. None where
    nothing is known: then the driver chooses.
    """
    readable = [mode for mode in modes if mode.fourcc in _FORMATS]
    if not readable:
        return None

    def badness(mode: Mode) -> tuple[float, ...]:
        too_small = mode.width < size[0] or mode.height < size[1]
        distance = abs(mode.width - size[0]) + abs(mode.height - size[1])
        missing_fps = max(0.0, fps - mode.fps - 0.5) if mode.fps else 0.0
        return distance + 1000 * too_small, missing_fps, _FORMATS[mode.fourcc]

    return min(readable, key=badness)


def _modes(handle: int) -> list[Mode]:
    found: set[Mode] = set()
    for number in range(64):
        request = bytearray(struct.pack("II56x", number, _TYPE_CAPTURE))
        if not _ask(handle, _ENUM_FMT, request):
            break
        pixel_format = struct.unpack_from("I", request, 44)[0]
        fourcc = struct.pack("I", pixel_format & 0x7FFFFFFF).decode("ascii", "replace")
        for width, height in _sizes(handle, pixel_format):
            found.add(Mode(width, height, _best_fps(handle, pixel_format, width, height), fourcc))
    return sorted(found)


def _sizes(handle: int, pixel_format: int) -> list[tuple[int, int]]:
    sizes: list[tuple[int, int]] = []
    for number in range(256):
        request = bytearray(struct.pack("II36x", number, pixel_format))
        if not _ask(handle, _ENUM_FRAMESIZES, request):
            break
        kind, first, second = struct.unpack_from("III", request, 8)
        if kind == _DISCRETE:
            sizes.append((first, second))
            continue
        low_w, high_w, step_w, low_h, high_h, step_h = struct.unpack_from("6I", request, 12)
        sizes += [
            (width, height)
            for width, height in _COMMON_SIZES
            if low_w <= width <= high_w
            and low_h <= height <= high_h
            and (width - low_w) % max(1, step_w) == 0
            and (height - low_h) % max(1, step_h) == 0
        ]
        break
    return sizes


def _best_fps(handle: int, pixel_format: int, width: int, height: int) -> float:
    best = 0.0
    for number in range(64):
        request = bytearray(struct.pack("IIII36x", number, pixel_format, width, height))
        if not _ask(handle, _ENUM_FRAMEINTERVALS, request):
            break
        kind, numerator, denominator = struct.unpack_from("III", request, 16)
        if numerator:  # stepwise: the first fraction is the shortest interval
            best = max(best, denominator / numerator)
        if kind != _DISCRETE:
            break
    return round(best, 3)


def _ask(handle: int, request: int, buffer: bytearray) -> bool:
    import fcntl

    try:
        fcntl.ioctl(handle, request, buffer)
    except OSError:
        return False
    return True


def _sysfs_name(path: str) -> str:
    try:
        return Path(f"/sys/class/video4linux/{Path(path).name}/name").read_text().strip()
    except OSError:
        return ""


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")
