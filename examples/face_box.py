"""A filter in a box: `python examples/face_box.py SOURCE FILTER LEFT,TOP,WIDTH,HEIGHT SINK`."""

import sys

import numpy as np

from engines import Engine, EngineError, Pixels, Size, open_engine
from realtime import Pipeline


class BoxEngine(Engine):
    def __init__(self, model: str, left: int, top: int, width: int, height: int) -> None:
        super().__init__(None)
        self.inner = open_engine(model)
        self.box_size = width, height = self.inner.fit((width, height))  # what the filter takes
        self.box = np.s_[top : top + height, left : left + width]

    @classmethod
    def why_not(cls) -> None: ...  # it runs wherever the inner one does

    def _open(self, size: Size) -> None:
        if self.box[1].stop > size[0] or self.box[0].stop > size[1]:
            raise EngineError(f"the box reaches out of the frame of {size[0]}x{size[1]}")
        self.inner.open(self.box_size)
        self.notes += self.inner.notes

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        np.copyto(frame_out, frame_in)
        frame_out[self.box] = self.inner.infer(np.ascontiguousarray(frame_in[self.box]))

    def _collect(self, frame_out: Pixels) -> None: ...  # it was done in `_submit`

    def _close(self) -> None:
        self.inner.close()


source, model, box, sink = sys.argv[1:]
Pipeline(source, BoxEngine(model, *map(int, box.split(","))), [sink]).run()
