"""Where frames come from: `open_source` turns what a person types into a source."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from engines import Size, SourceError
from realtime.sources.base import Source, SourceInfo

__all__ = ["Source", "SourceInfo", "open_source", "parse_size"]

KINDS = "0, /dev/video0, a file, a folder of pictures, a URL, page:URL, screen, test-pattern"


def open_source(spec: str | int | os.PathLike[str] | Source) -> Source:
    """Return the source that ``spec`` names; the pipeline starts it.

    Args:
        spec: a camera (``0``, ``/dev/video0``), a video file, a picture, a folder of pictures, a
            URL (RTSP, HTTP, TCP, ...), ``page:URL`` (a web page as Chromium draws it),
            ``screen`` or ``screen:2``, ``test-pattern`` or ``test-pattern:1280x720@60``, or a
            `Source`, which is returned as it is.

    Raises:
        SourceError: it names nothing that is there.
    """
    if isinstance(spec, Source):
        return spec
    text = str(spec) if isinstance(spec, int) else os.fspath(spec)
    if text.startswith("file://"):
        text = url2pathname(urlsplit(text).path)
    if not text.strip() or "\0" in text:
        raise SourceError(f"a source is {KINDS}, found {text!r}")
    if text.isdecimal() or (text.startswith("/dev/") and not _is_file_or_folder(text)):
        from realtime.sources.camera import CameraSource

        return CameraSource(int(text) if text.isdecimal() else text)
    kind, _, details = text.partition(":")
    if kind == "screen":
        from realtime.sources.screen import ScreenSource

        if details and not details.isdigit():
            raise SourceError(f"a screen is 'screen' or 'screen:NUMBER', found {text!r}")
        return ScreenSource(int(details or 1))
    if kind == "page":
        from realtime.sources.web_page import WebPageSource

        return WebPageSource(details)
    if kind == "test-pattern":
        return _test_pattern(details)
    if "://" not in text:
        path = Path(text)
        if not path.exists():
            raise SourceError(f"no such file: {text} (a source is {KINDS})")
        from realtime.sources.pictures import is_picture

        if path.is_dir() or is_picture(path):
            from realtime.sources.images import ImagesSource

            return ImagesSource(path)
    from realtime.sources.video import VideoSource

    return VideoSource(text)


def _is_file_or_folder(text: str) -> bool:
    return Path(text).is_file() or Path(text).is_dir()  # /dev/shm may hold both


def _test_pattern(details: str) -> Source:
    from realtime.sources.synthetic import SyntheticSource

    size_text, _, fps_text = details.partition("@")
    try:
        size = parse_size(size_text) if size_text else None
        fps = float(fps_text or 30)
        if not 0 < fps <= 1000:
            raise ValueError(fps_text)
    except ValueError as error:
        raise SourceError(
            f"a test pattern is 'test-pattern' or 'test-pattern:640x360@30', found {details!r}"
        ) from error
    return SyntheticSource(size, fps)


def parse_size(text: str) -> Size:
    """Return (width, height) of ``640x360``.

    Raises:
        ValueError: it is no size.
    """
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if not match or not int(match[1]) or not int(match[2]):
        raise ValueError(f"a size is WIDTHxHEIGHT, for instance 640x360, found {text!r}")
    return int(match[1]), int(match[2])
