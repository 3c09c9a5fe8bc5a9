"""A filter on people only, the room in grey: `person_only.py SOURCE FILTER SINK`."""

import argparse

import cv2

from engines import Pix2liveError, Pixels
from realtime import Frame, Pipeline
from realtime.effects import Context, effect


@effect
def grey_room(frame: Frame, context: Context) -> Pixels:
    grey = cv2.cvtColor(frame.pixels, cv2.COLOR_BGR2GRAY)
    nobody = context.mask < 128  # what the mask before this effect found
    frame.pixels[nobody] = grey[nobody, None]
    return frame.pixels


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    for word in ("source", "filter", "sink"):
        words.add_argument(word)
    to = words.parse_args()
    try:
        stats = Pipeline(to.source, to.filter, [to.sink], effects=["person", grey_room]).run()
    except Pix2liveError as error:
        words.exit(1, f"{words.prog}: {error}\n")
    print(f"{to.sink}: {stats.sinks[0].ages.count} frames")
