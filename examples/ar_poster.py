"""A live poster: `python examples/ar_poster.py SOURCE FILTER SINK [PICTURE|VIDEO]`.

Print marker 7 (`pix2live markers 7`). On it hangs what the camera sees, translated, in a room that
stays as it is; or another picture or film, in a translated room.
"""

import sys

from engines import Pixels
from realtime import Frame, Pipeline
from realtime.effects import Context, effect
from realtime.effects.on_marker import OnMarker
from realtime.effects.views import draw_label

source, model, sink, *poster = sys.argv[1:]
if poster:
    on_marker = OnMarker(7, poster[0], scale=2.0, fit="fit", hold_ms=500)
else:
    on_marker = OnMarker(7, scale=2.0, fit="fit", over="captured", hold_ms=500)


@effect
def seen(frame: Frame, context: Context) -> Pixels:
    """User code knows where every marker is."""
    marker = context.markers.get(7)
    where = "nowhere" if marker is None else "at {:.0f}, {:.0f}".format(*marker.corners.mean(0))
    draw_label(frame.pixels, f"marker 7 is {where}")
    return frame.pixels


Pipeline(source, model, [sink], effects=[on_marker, seen]).run()
