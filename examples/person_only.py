"""A filter on people only, the room in grey: `person_only.py SOURCE FILTER SINK`."""

import sys

import cv2

from engines import Pixels
from realtime import Frame, Pipeline
from realtime.effects import Context, effect


@effect
def grey_room(frame: Frame, context: Context) -> Pixels:
    grey = cv2.cvtColor(frame.pixels, cv2.COLOR_BGR2GRAY)
    nobody = context.mask < 128  # what the mask before this effect found
    frame.pixels[nobody] = grey[nobody, None]
    return frame.pixels


source, model, sink = sys.argv[1:]
Pipeline(source, model, [sink], effects=["person", grey_room]).run()
