"""How a generator is computed: frame models, engines and their backends."""

from engines.base import Engine, Pixels
from engines.errors import (
    ConversionError,
    EffectError,
    EngineError,
    ModelError,
    Pix2liveError,
    SettingsError,
    SinkError,
    SourceError,
)
from engines.filters import filter_names, load_filter
from engines.model import Card, FrameModel, Size, write_frame_model
from engines.registry import backend_names, open_engine

__all__ = [
    "Card",
    "ConversionError",
    "EffectError",
    "Engine",
    "EngineError",
    "FrameModel",
    "ModelError",
    "Pix2liveError",
    "Pixels",
    "SettingsError",
    "SinkError",
    "Size",
    "SourceError",
    "backend_names",
    "filter_names",
    "load_filter",
    "open_engine",
    "write_frame_model",
]
