"""Feature nets: what a classifier sees in a picture, for perceptual losses and distances.

The first layers of VGG-19 (Simonyan and Zisserman, "Very Deep Convolutional Networks for
Large-Scale Image Recognition", 2014) up to relu3_1, from one of three places: a state dict of
torchvision's VGG-16 or VGG-19, the "normalised" VGG-19 of style transfer (Gatys, Ecker and Bethge,
2016: weights scaled so that each channel's mean activation is one), or torchvision itself.
"""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.errors import EngineError, SettingsError
from engines.weights import read_weights

LAYERS: Final = ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1")
CHANNELS: Final = (3, 64, 64, 128, 128, 256)
POOLED_BEFORE: Final = (2, 4)  # conv2_1 and conv3_1 see half of the size
NORMALISED_KEYS: Final = ("2", "5", "9", "12", "16")
TORCHVISION_KEYS: Final = tuple(f"features.{number}" for number in (0, 2, 5, 7, 10))
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION: Final = (0.229, 0.224, 0.225)
SMALLEST_PX: Final = 8


class FeatureNet(nn.Module):
    """VGG to relu3_1, frozen. Float32 (N, 3, H, W), RGB, 0 to 1, gives one map for each layer.

    The maps are (N, C, h, w), after the ReLU, in the order of ``layers``; H and W are at least 8.
    """

    layers: tuple[str, ...] = LAYERS

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Conv2d(3, 3, 1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(given, made, 3, padding=1, padding_mode="reflect")
            for given, made in itertools.pairwise(CHANNELS)
        )
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of ``layers``."""
        values = self.colours(images)
        found = []
        for number, convolution in enumerate(self.convolutions):
            if number in POOLED_BEFORE:
                values = functional.max_pool2d(values, 2)
            values = functional.relu(convolution(values))
            found.append(values)
        return found


def load_features(path: Path | None) -> FeatureNet:
    """Return the feature net of a file, or torchvision's when ``path`` is None.

    Raises:
        SettingsError: torchvision is not installed, or the file holds another network.
        ModelError, ConversionError: the file cannot be read as weights.
    """
    tensors = _from_torchvision() if path is None else dict(read_weights(path).tensors)
    net = FeatureNet()
    if set(TORCHVISION_KEYS) <= _modules(tensors):
        keys = TORCHVISION_KEYS
        deviation = torch.tensor(IMAGENET_DEVIATION)
        colours = torch.diag(1 / deviation)[..., None, None]
        colour_bias = -torch.tensor(IMAGENET_MEAN) / deviation
    elif {"0", *NORMALISED_KEYS} <= _modules(tensors):
        keys = NORMALISED_KEYS
        colours, colour_bias = tensors["0.weight"], tensors["0.bias"]
    else:
        raise SettingsError(
            f"{path} is no feature net: expected VGG-16 or VGG-19 of torchvision (features.0 ...),"
            f" or the normalised VGG-19 (0, 2, 5, 9, 12, 16), found {sorted(tensors)[:4]}"
        )
    state = {"colours.weight": colours, "colours.bias": colour_bias}
    for number, key in enumerate(keys):
        state[f"convolutions.{number}.weight"] = tensors[f"{key}.weight"]
        state[f"convolutions.{number}.bias"] = tensors[f"{key}.bias"]
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise SettingsError(f"{path} is no VGG-16 or VGG-19: {reason}") from error
    return net.eval()


def _modules(tensors: dict[str, Tensor]) -> set[str]:
    """The names that have both a weight and a bias."""
    return {
        name.removesuffix(".weight")
        for name in tensors
        if name.endswith(".weight") and f"{name.removesuffix('.weight')}.bias" in tensors
    }


def _from_torchvision() -> dict[str, Tensor]:
    if importlib.util.find_spec("torchvision") is None:
        raise SettingsError(
            "a feature net is needed: pass --features FILE (the weights of VGG-16 or VGG-19, .pth),"
            " or install torchvision"
        )
    from torchvision import models  # type: ignore[import-not-found, unused-ignore]

    try:
        network = models.vgg19(weights=models.VGG19_Weights.IMAGENET1K_V1)
    except Exception as error:  # it downloads: urllib, ssl and the file system raise their own
        raise EngineError(
            f"torchvision could not fetch VGG-19 ({error}); pass --features FILE"
        ) from error
    found: dict[str, Tensor] = network.state_dict()
    return found
