"""What happens around the generator: masks, markers, the stabiliser, overlays, views."""

from realtime.effects.base import Context, Effect, effect
from realtime.effects.specs import open_effect

__all__ = ["Context", "Effect", "effect", "open_effect"]
