"""Teachers: slow, classical picture effects that a network learns to imitate.

A teacher takes a picture and returns one of the same size: uint8, (H, W, 3), BGR, 0 to 255.
Every threshold is soft (tanh), so that a little camera noise moves a tone a little instead of
flipping it; what is steady in the teacher can become steady in the network.
"""

from tools.train.teachers.comic import comic
from tools.train.teachers.neon import neon
from tools.train.teachers.pencil import pencil
from tools.train.teachers.watercolour import watercolour

__all__ = ["comic", "neon", "pencil", "watercolour"]
