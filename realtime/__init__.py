"""The live path of a frame: sources, queues, the pipeline, sinks."""

import cv2  # noqa: F401  # isort: skip  (before PyAV: else the first window waits for ever)

from realtime.frame import Frame
from realtime.pipeline import Pipeline
from realtime.sinks import Sink, SinkInfo, open_sink
from realtime.sources import Source, SourceInfo, open_source
from realtime.stats import Stats

__all__ = [
    "Frame",
    "Pipeline",
    "Sink",
    "SinkInfo",
    "Source",
    "SourceInfo",
    "Stats",
    "open_sink",
    "open_source",
]
