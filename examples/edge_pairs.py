"""A|B pictures, edges and photograph, of a folder: `python examples/edge_pairs.py PHOTOS OUT`.

OUT/pairs is for `pix2live train paired --pairs`; every tenth photograph goes to OUT/held-out, as
input and target, for `pix2live evaluate`.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from realtime.sources.pictures import list_pictures, read_picture, write_picture

SHORT_SIDE_PX = 360


def edges(photo: np.ndarray) -> np.ndarray:
    """Black lines on white; uint8 (H, W, 3) in and out (Canny, 1986)."""
    smooth = cv2.GaussianBlur(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY), (0, 0), 1.4)
    return cv2.cvtColor(255 - cv2.Canny(smooth, 30, 90), cv2.COLOR_GRAY2BGR)


if __name__ == "__main__":
    photos, out = Path(sys.argv[1]), Path(sys.argv[2])
    for folder in ("pairs", "held-out/input", "held-out/target"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(list_pictures(photos)):
        found = read_picture(file)
        scale = SHORT_SIDE_PX / min(found.shape[:2])  # one size, so that lines are equally thick
        photo = cv2.resize(found, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if number % 10 == 9:
            write_picture(out / "held-out/input" / f"{file.stem}.png", edges(photo))
            write_picture(out / "held-out/target" / f"{file.stem}.png", photo)
        else:
            write_picture(out / "pairs" / f"{file.stem}.png", np.hstack([edges(photo), photo]))
