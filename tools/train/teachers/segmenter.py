"""A segmentation network of somebody else, as a teacher: a frame in, where the person is out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engines.errors import EngineError, SettingsError

Picture = np.ndarray[Any, np.dtype[np.uint8]]


class Segmenter:
    """An ONNX network that takes one RGB picture, 0 to 1, and gives one mask, 0 to 1.

    Float32, (1, h, w, 3) or (1, 3, h, w) in, (1, h, w, 1) or (1, 1, h, w) out, with h and w fixed.

    Raises:
        SettingsError: the file is none of these.
        EngineError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise EngineError("a teacher in ONNX needs onnxruntime: pip install onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has one class for each of its reasons
            reason = str(error).strip().splitlines()[0]
            raise SettingsError(f"cannot read {path} as ONNX: {reason}") from error
        given, made = self._session.get_inputs(), self._session.get_outputs()
        shape = given[0].shape
        fits = len(given) == 1 and len(shape) == 4 and given[0].type == "tensor(float)"
        self._name = given[0].name
        self._channels_first = fits and shape[1] == 3
        sides = shape[2:] if self._channels_first else shape[1:3]
        wanted = [1, *sides, 1], [1, 1, *sides]
        if (
            not fits
            or 3 not in (shape[1], shape[3])
            or not all(isinstance(side, int) for side in sides)
            or made[0].shape not in wanted
        ):
            raise SettingsError(
                f"{path} takes {shape} and gives {made[0].shape}: expected a picture of a fixed"
                " size, (1, h, w, 3) or (1, 3, h, w), float32, and one mask of that size"
            )
        self.size = (sides[1], sides[0])
        """(width, height) at which it works."""

    def __call__(self, frame: Picture) -> Picture:
        """Return the mask of a frame, uint8 (H, W), 255 where the person is, for (H, W, 3) BGR."""
        image = cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA)
        given = np.ascontiguousarray(image[None, ..., ::-1], np.float32) / 255
        if self._channels_first:
            given = np.ascontiguousarray(given.transpose(0, 3, 1, 2))
        (found,) = self._session.run(None, {self._name: given})[:1]
        mask = np.asarray(found, np.float32).reshape(self.size[::-1])
        whole = cv2.resize(mask, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        made: Picture = np.clip(whole * 255 + 0.5, 0, 255).astype(np.uint8)
        return made
