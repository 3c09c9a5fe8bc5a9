"""Recording what is shown, started and stopped while the pipeline runs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from engines import Pix2liveError
from realtime.sinks import Sink

if TYPE_CHECKING:
    from realtime.pipeline import Pipeline


def new_recording() -> Path:
    """Return the name of a recording in the working folder that none has had before.

    By the microsecond, as screenshots are: the file of a recording appears only when that is
    complete, so looking for a free name would give one name to two.
    """
    return Path(f"pix2live-{datetime.now():%Y%m%d-%H%M%S-%f}.mp4")


class Recorder:
    """One recording at a time, each into a new mp4 in the working folder."""

    def __init__(self) -> None:
        self._sink: Sink | None = None

    def toggle(self, pipeline: Pipeline, view: str | None) -> str:
        """Start a recording of ``pipeline`` as ``view``, or finish the one that runs.

        Returns what to say.
        """
        if self._sink is not None:
            sink, self._sink = self._sink, None
            pipeline.remove_sink(sink)
            return f"recorded {sink.path}"
        path = new_recording()
        try:
            self._sink = pipeline.add_sink(path, view=view)
        except Pix2liveError as error:
            return str(error)
        return f"recording to {path}"
