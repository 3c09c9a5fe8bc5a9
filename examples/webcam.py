"""The ten lines: a camera, a filter, a window and a recording, with the age of every frame."""

import sys

from engines import open_engine
from realtime import Pipeline, open_sink, open_source

source = open_source(sys.argv[1] if len(sys.argv) > 1 else "0")
engine = open_engine("comic")
sinks = [open_sink(spec) for spec in sys.argv[2:] or ["window"]]
stats = Pipeline(source, engine, sinks, max_age_ms=200).run()
print(f"{stats.fps():.1f} fps, age p50 {stats.sinks[0].ages.percentile_ms(50):.0f} ms")
