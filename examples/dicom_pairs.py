"""Pairs of 16-bit PNGs from DICOM files: `python examples/dicom_pairs.py OUT [FILE.dcm ...]`.

A demonstration of the path, not for medical use. The target is a STAND-IN for a second modality:
another window of the same picture, with its edges drawn in.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom

from realtime.sources.dicom import read_dicom
from realtime.sources.pictures import write_picture

SIDE_PX = 128
SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
out = Path(sys.argv[1])
given = [Path(word) for word in sys.argv[2:]]

for file in given or [SAMPLES / "CT_small.dcm", SAMPLES / "MR_small.dcm"]:
    levels = read_dicom(file).levels
    low, high = levels.min(), levels.max()
    print(f"{file.name}: levels {low:g} to {high:g} become 0 to 65535")
    sized = cv2.resize((levels - low) / (high - low), (SIDE_PX, SIDE_PX))
    smooth = cv2.GaussianBlur(sized, (0, 0), 1)
    edges = np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1))
    target = np.clip(0.7 * np.clip((sized - 0.2) / 0.5, 0, 1) + 0.6 * edges, 0, 1)
    for turn in range(8):  # turned and mirrored; one of the eight is held out
        part = out / ("held-out" if turn == 5 else "train")
        for kind, picture in (("input", sized), ("target", target)):
            (part / kind).mkdir(parents=True, exist_ok=True)
            turned = np.rot90(picture if turn < 4 else picture[:, ::-1], turn)
            deep = np.rint(turned * 65535).astype(np.uint16)
            write_picture(part / kind / f"{file.stem}-{turn}.png", np.ascontiguousarray(deep))
