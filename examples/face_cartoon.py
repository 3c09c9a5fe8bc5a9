"""Faces become a cartoon, with a number each: `face_cartoon.py SOURCE YUNET.onnx SINK`."""

import sys

import cv2

from engines import Pixels
from realtime import Frame, Pipeline
from realtime.effects import Context, effect


@effect
def numbers(frame: Frame, context: Context) -> Pixels:
    for number, face in enumerate(context.faces, 1):
        left, top, *_ = (int(side) for side in face.box)
        place = left, max(24, top - 8)
        cv2.putText(frame.pixels, f"#{number}", place, cv2.FONT_HERSHEY_DUPLEX, 0.8, (0, 220, 255))
    return frame.pixels


source, detector, sink = sys.argv[1:]
Pipeline(source, "comic", [sink], effects=[f"face:{detector}", numbers]).run()
