"""Where frames go: `open_sink` turns what a person types into a sink."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from engines import SinkError
from realtime.frame import Frame
from realtime.sinks.base import CallableSink, NullSink, Sink, SinkInfo

__all__ = ["CallableSink", "NullSink", "Sink", "SinkInfo", "open_sink"]

KINDS = "window, virtual-camera, virtual-camera:DEVICE, FILE.mp4 (or mkv, mov), FOLDER/, null"


def open_sink(spec: str | os.PathLike[str] | Callable[[Frame], None] | Sink) -> Sink:
    """Return the sink that ``spec`` names; the pipeline starts it.

    Args:
        spec: ``window``, ``virtual-camera[:DEVICE]``, a video file (mp4, mkv, mov), a folder
            (ends with a slash, or exists), ``null``, a function that takes a `Frame`, or a `Sink`.

    Raises:
        SinkError: it names nothing that pix2live can write to.
    """
    if isinstance(spec, Sink):
        return spec
    if callable(spec):
        return CallableSink(spec)
    text = os.fspath(spec) if isinstance(spec, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "://" in text:
        raise SinkError(f"no sink {spec!r}; a sink is {KINDS}")
    kind, _, device = text.partition(":")
    if text == "null":
        return NullSink()
    if text == "window":
        from realtime.sinks.window import WindowSink

        return WindowSink()
    if kind == "virtual-camera":
        from realtime.sinks.virtual_camera import VirtualCameraSink

        return VirtualCameraSink(device)
    from realtime.sinks.video import VIDEO_SUFFIXES, VideoSink

    path = Path(text)
    if text.endswith(("/", os.sep)) or path.is_dir():
        from realtime.sinks.images import ImagesSink

        return ImagesSink(path)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSink(path)
    raise SinkError(f"no sink {text!r}; a sink is {KINDS}")
