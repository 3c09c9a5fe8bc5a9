"""A filter in a box: `python examples/face_box.py SOURCE FILTER LEFT,TOP,WIDTH,HEIGHT SINK`."""

import sys

from engines import EngineError, Pix2liveError, Pixels, Size, open_engine
from engines.backends.identity import IdentityEngine
from realtime import Pipeline


class BoxEngine(IdentityEngine):  # what copies the frame
    def __init__(self, model: str, left: int, top: int, width: int, height: int) -> None:
        super().__init__(None)
        self.inner = open_engine(model)
        self.box_size = width, height = self.inner.fit((width, height))  # what the filter takes
        self.box = slice(top, top + height), slice(left, left + width)

    def _open(self, size: Size) -> None:
        if any(not 0 <= part.start < part.stop <= n for part, n in zip(self.box, size[::-1])):
            raise EngineError(f"the box reaches out of the frame of {size[0]}x{size[1]}")
        self.inner.open(self.box_size)

    def _submit(self, frame_in: Pixels, frame_out: Pixels) -> None:
        super()._submit(frame_in, frame_out)
        frame_out[self.box] = self.inner.infer(frame_in[self.box].copy())

    def _close(self) -> None:
        self.inner.close()


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[3].count(",") != 3:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    source, model, box, sink = sys.argv[1:]
    try:
        stats = Pipeline(source, BoxEngine(model, *map(int, box.split(","))), [sink]).run()
    except (Pix2liveError, ValueError) as error:
        sys.exit(f"face_box: {error}")
    print(f"{sink}: {stats.sinks[0].ages.count} frames")
