"""Runs a filter in an engine, as it runs live, and measures what was asked for."""

from __future__ import annotations

from engines import load_filter
from tools.evaluation.on_clips import measure_clips
from tools.evaluation.on_pictures import PictureMeasurement
from tools.evaluation.pictures import clips_of
from tools.evaluation.settings import Settings, Tick
from tools.evaluation.table import Evaluation
from tools.evaluation.translating import Translator


def evaluate(settings: Settings, tick: Tick = lambda *_: None) -> Evaluation:
    """Measure what was asked for, and nothing else.

    Raises:
        SettingsError, SourceError: what was given cannot be used; the message names it.
        ModelError, EngineError: the filter cannot be read, or not run here.
    """
    settings.check()
    model = load_filter(settings.filter)
    back = None if settings.cycle is None else load_filter(settings.cycle)
    found = Evaluation(model, back, asked=settings.to_json())
    clips = [clip for path in settings.clips for clip in clips_of(path)]
    pictures = PictureMeasurement(settings, found) if settings.input is not None else None
    with Translator(model, settings) as translator:
        if pictures is not None:
            pictures.measure(translator, tick)
        if clips:
            measure_clips(settings, found, clips, translator, tick)
        engine = translator.engine
        found.backend, found.device, found.precision = engine.name, engine.device, engine.precision
        found.notes += [note for note in engine.notes if note not in found.notes]
    return found
