"""Recording what is shown, started and stopped while the pipeline runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from engines import Pix2liveError
from realtime.sinks import Sink


class Recorder:
    """One recording at a time, each into a new mp4 in the working folder."""

    def __init__(self, add: Callable[[Path, str | None], Sink], remove: Callable[[Sink], None]):
        self._add, self._remove = add, remove
        self._sink: Sink | None = None

    def toggle(self, view: str | None) -> str:
        """Start a recording as ``view``, or finish the one that runs; returns what to say."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            self._remove(sink)
            return f"recorded {sink.path}"
        path = Path(f"pix2live-{datetime.now():%Y%m%d-%H%M%S}.mp4")
        try:
            self._sink = self._add(path, view)
        except Pix2liveError as error:
            return str(error)
        return f"recording to {path}"
