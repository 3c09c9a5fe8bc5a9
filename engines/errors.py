"""The errors of pix2live: one root, children by what a person can do about them."""


class Pix2liveError(Exception):
    """Root of every error that pix2live raises on purpose.

    The message is one line for a person: what was expected, what was found, what to run.
    """


class ModelError(Pix2liveError, ValueError):
    """A file is no frame model, or a frame model breaks its contract."""


class EngineError(Pix2liveError, RuntimeError):
    """A backend is missing, cannot open the model, or failed while it ran."""


class ConversionError(Pix2liveError, RuntimeError):
    """Weights could not be turned into a frame model, or the proof refused the result."""


class SourceError(Pix2liveError, OSError):
    """A source cannot be opened, or went away while it was read."""


class SinkError(Pix2liveError, OSError):
    """A sink cannot be opened, or cannot take any more frames."""


class EffectError(Pix2liveError, RuntimeError):
    """An effect cannot be opened, failed on a frame, or returned no picture."""


class SettingsError(Pix2liveError, ValueError):
    """What the caller asked for does not fit together."""
