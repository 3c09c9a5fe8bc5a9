"""A|B pictures, edges and photograph, of a folder: `python examples/edge_pairs.py PHOTOS OUT`.

OUT/pairs is for `pix2live train paired`; every tenth goes to OUT/held-out, for `pix2live evaluate`.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from realtime.sources.pictures import list_pictures, read_picture, write_picture


def edges(photo: np.ndarray) -> np.ndarray:  # black lines on white (Canny, 1986)
    smooth = cv2.GaussianBlur(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY), (0, 0), 1.4)
    return cv2.cvtColor(255 - cv2.Canny(smooth, 30, 90), cv2.COLOR_GRAY2BGR)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    out = Path(sys.argv[2])
    try:
        photos = list_pictures(Path(sys.argv[1]))
        for number, file in enumerate(photos):
            found = read_picture(file)
            scale = 360 / min(found.shape[:2])  # one size, so that lines are equally thick
            photo = cv2.resize(found, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            made = {"pairs": np.hstack([edges(photo), photo])}
            if number % 10 == 9:
                made = {"held-out/input": edges(photo), "held-out/target": photo}
            for folder, picture in made.items():
                (out / folder).mkdir(parents=True, exist_ok=True)
                write_picture(out / folder / f"{file.stem}.png", picture)
    except OSError as error:  # what cannot be read or written; ours are such, too
        sys.exit(f"edge_pairs: {error}")
    print(f"{out}: edges of {len(photos)} photographs, {len(photos) // 10} of them held out")
