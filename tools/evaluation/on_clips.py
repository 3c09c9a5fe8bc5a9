"""What is measured on clips: flicker."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from engines import Pixels, SettingsError
from tools.evaluation.flicker import Flicker, flicker, ratio
from tools.evaluation.pictures import clip_frames, fitted
from tools.evaluation.settings import Settings, Tick
from tools.evaluation.table import LOWER, Evaluation, Measure
from tools.evaluation.translating import Translator


def measure_clips(
    settings: Settings,
    found: Evaluation,
    clips: Sequence[Path],
    translator: Translator,
    tick: Tick,
) -> None:
    """Translate each clip from its beginning, and add the measures to the evaluation.

    Raises:
        SettingsError, SourceError: a clip is too short or too small, or cannot be read.
    """
    measured = []
    for clip in clips:
        translator.reset()
        frames = _clip(clip, settings, found, tick)
        try:
            one = flicker(translator, frames)
        except SettingsError as error:
            raise SettingsError(f"{clip}: {error}") from error
        measured.append(one)
        rates = {"ratio": one.ratio, "still_ratio": one.still_ratio}
        found.clips.append({"name": clip.name, **asdict(one), **rates})
    found.measures += _flicker_measures(measured)


def _clip(path: Path, settings: Settings, found: Evaluation, tick: Tick) -> Iterator[Pixels]:
    frames = clip_frames(path, lambda frame: fitted(frame, [found.model]), found.notes.append)
    for number, frame in enumerate(itertools.islice(frames, settings.frames)):
        tick(path.name, number, settings.frames)
        yield frame


def _flicker_measures(measured: Sequence[Flicker]) -> list[Measure]:
    """Means over the clips, as Lai et al. report them; the ratios are of the means."""

    def mean(values: Sequence[float | None]) -> float | None:
        numbers = [value for value in values if value is not None]
        return float(np.mean(numbers)) if numbers else None

    errors = mean([one.warping_error for one in measured])
    floor = mean([one.input_warping_error for one in measured])
    still = mean([one.still_difference for one in measured])
    still_floor = mean([one.input_still_difference for one in measured])
    pairs = sum(one.pairs for one in measured)
    counted = (LOWER, pairs, "frame pairs")
    assert errors is not None
    assert floor is not None
    return [
        Measure(
            "warping_error_1e3", "warping error", 1e3 * errors, "x 1e-3", *counted, 1e3 * floor
        ),
        Measure(
            "warping_ratio",
            "warping error, ratio",
            ratio(errors, floor),
            "",
            *counted,
        ),
        Measure("still_difference", "still areas", still, "of 255", *counted, still_floor),
        Measure("still_ratio", "still areas, ratio", ratio(still, still_floor), "", *counted),
    ]
