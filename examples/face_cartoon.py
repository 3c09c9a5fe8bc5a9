"""Faces become a cartoon, with a number each: `face_cartoon.py SOURCE YUNET.onnx SINK`."""

import argparse

import cv2

from engines import Pix2liveError, Pixels
from realtime import Frame, Pipeline
from realtime.effects import Context, effect


@effect
def numbers(frame: Frame, context: Context) -> Pixels:
    for number, face in enumerate(context.faces, 1):
        left, top, *_ = (int(side) for side in face.box)
        place = left, max(24, top - 8)
        cv2.putText(frame.pixels, f"#{number}", place, cv2.FONT_HERSHEY_DUPLEX, 0.8, (0, 220, 255))
    return frame.pixels


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    for word in ("source", "detector", "sink"):
        words.add_argument(word)
    to = words.parse_args()
    effects = [f"face:{to.detector}", numbers]
    try:
        stats = Pipeline(to.source, "comic", [to.sink], effects=effects).run()
    except Pix2liveError as error:
        words.exit(1, f"{words.prog}: {error}\n")
    print(f"{to.sink}: {stats.sinks[0].ages.count} frames")
