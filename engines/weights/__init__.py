"""Other people's checkpoints, read as data: nothing in them is ever run."""

from engines.weights.reading import Weights, is_torchscript, read_weights

__all__ = ["Weights", "is_torchscript", "read_weights"]
