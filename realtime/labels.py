"""What to say of an engine and its filter."""

from __future__ import annotations

from typing import Final

from engines import Engine, FrameModel, filter_names

EVERY_OF_LIVE: Final = (
    "every frame of a live source: where the path is slower than the source, the driver or the"
    " network drops frames that nobody can count"
)


def filter_label(engine: Engine) -> str:
    """Return what to call the filter of ``engine`` on a screen."""
    return str(getattr(engine.model, "name", engine.name))


def next_filter_name(engine: Engine) -> str | None:
    """Return the shipped filter after the one that runs; None when there is no other."""
    names, current = filter_names(), filter_label(engine)
    if not names or names == [current]:
        return None
    return names[(names.index(current) + 1) % len(names)] if current in names else names[0]


def why_size(engine: Engine) -> str:
    """Return why ``engine`` takes another size than it was asked for."""
    model = engine.model
    if not isinstance(model, FrameModel):
        return f"{engine.name} takes no other"
    if model.fixed_size is not None:
        return "the filter takes no other"
    return f"the filter takes multiples of {model.card.stride}"
