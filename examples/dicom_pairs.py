"""Pairs of 16-bit PNGs from DICOM files: `python examples/dicom_pairs.py OUT [FILE.dcm ...]`.

Not for medical use: the target is a STAND-IN, another window of the same picture and its edges.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from realtime.sources.dicom import read_dicom
from realtime.sources.pictures import write_picture

if __name__ == "__main__":
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    out, *files = map(Path, sys.argv[1:])
    try:
        from pydicom.data import get_testdata_file as sample

        for file in files or map(Path, map(sample, ("CT_small.dcm", "MR_small.dcm"))):
            levels = read_dicom(file).levels
            low, high = levels.min(), levels.max()
            sized = cv2.resize((levels - low) / (high - low or 1), (128, 128))
            smooth = cv2.GaussianBlur(sized, (0, 0), 1)
            edges = np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1))
            target = np.clip(0.7 * np.clip((sized - 0.2) / 0.5, 0, 1) + 0.6 * edges, 0, 1)
            for turn in range(8):  # turned and mirrored; one of the eight is held out
                part = out / ("held-out" if turn == 5 else "train")
                for kind, picture in (("input", sized), ("target", target)):
                    (part / kind).mkdir(parents=True, exist_ok=True)
                    deep = np.rint(picture * 65535).astype(np.uint16)
                    turned = np.rot90(deep if turn < 4 else deep[:, ::-1], turn).copy()
                    write_picture(part / kind / f"{file.stem}-{turn}.png", turned)
            print(f"{out}: 8 pairs of {file.name}; levels {low:g} to {high:g} become 0 to 65535")
    except (ImportError, OSError) as error:
        sys.exit(f"dicom_pairs: {error}")
