"""A live poster: `python examples/ar_poster.py SOURCE FILTER SINK [PICTURE|VIDEO]`.

Print marker 7 (`pix2live markers 7`). On it hangs what the camera sees, translated, in a room that
stays as it is; or another picture or film, in a translated room.
"""

import argparse
from functools import partial

from engines import Pix2liveError, Pixels
from realtime import Frame, Pipeline
from realtime.effects import Context, effect
from realtime.effects.on_marker import OnMarker
from realtime.effects.views import draw_label


@effect
def seen(frame: Frame, context: Context) -> Pixels:
    """User code knows where every marker is."""
    marker = context.markers.get(7)
    where = "nowhere" if marker is None else "at {:.0f}, {:.0f}".format(*marker.corners.mean(0))
    draw_label(frame.pixels, f"marker 7 is {where}")
    return frame.pixels


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    for word in ("source", "filter", "sink"):
        words.add_argument(word)
    words.add_argument("poster", nargs="?")
    to = words.parse_args()
    hang = partial(OnMarker, 7, scale=2.0, fit="fit", hold_ms=500)
    try:
        poster = hang(to.poster) if to.poster else hang(over="captured")
        stats = Pipeline(to.source, to.filter, [to.sink], effects=[poster, seen]).run()
    except Pix2liveError as error:
        words.exit(1, f"{words.prog}: {error}\n")
    print(f"{to.sink}: {stats.sinks[0].ages.count} frames")
