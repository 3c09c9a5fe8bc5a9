"""Markers that an effect waits for and that no frame shows: what a person is told."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from rendered import FOUR, SIZE, Printed, Scene, as_frame, still

from engines import Pixels
from realtime.effects import Context, Effect, open_effect
from realtime.effects.marker_tracker import Tracker
from realtime.effects.markers import MarkerOptions, Markers, predefined_dictionary


@cache
def four_markers(extra: int | None = None) -> Pixels:
    markers = (*FOUR, Printed(extra, (0.0, 0.0), 0.03)) if extra is not None else FOUR
    return Scene(markers, motion=still, steps=1).frame(0)


def notes_after(
    effects: list[Effect], pictures: list[Pixels], fps: float = 30.0, *, close: bool = True
) -> list[str]:
    """Return the notes about missing markers, after a run over these pictures."""
    context = Context(size=SIZE)
    for effect in effects:
        effect.prepare(SIZE, context)
    for index, picture in enumerate(pictures):
        frame = replace(as_frame(picture, index), pts_ns=round(index * 1e9 / fps))
        for effect in effects:
            effect.process(frame, context)
    for effect in effects if close else ():
        effect.close()
    return [note for effect in effects for note in effect.notes]


def options_of(*ids: int) -> Effect:
    """An effect that waits for markers, and does nothing with them."""
    effect = Markers()
    effect.options = MarkerOptions("waiting", ids)
    return effect


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ((8,), "marker 8 was in none of 40 frames; seen: 1, 2, 3, 4 (4x4_50)"),
        ((1, 8, 9), "markers 8, 9 were in none of 40 frames; seen: 1, 2, 3, 4 (4x4_50)"),
    ],
)
def test_a_marker_that_never_appears_is_said_at_the_end(ids: tuple[int, ...], said: str) -> None:
    assert notes_after([options_of(*ids)], [four_markers()] * 40) == [said]
    assert notes_after([options_of(*ids)], [four_markers()] * 40, close=False) == [], "too early"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("marker:8", "marker 8 was in none of 2 frames; seen: 1, 2, 3, 4 (4x4_50)"),
        ("inside-markers:1,2,3,9", "marker 9 was in none of 2 frames; seen: 1, 2, 3, 4 (4x4_50)"),
    ],
)
def test_every_effect_that_waits_for_markers_says_it(spec: str, said: str) -> None:
    assert notes_after([open_effect(spec)], [four_markers()] * 2) == [said]


def test_no_marker_at_all_is_said() -> None:
    empty = np.full_like(four_markers(), 128)
    assert notes_after([Markers()], [empty]) == ["no marker was in any of 1 frame (4x4_50)"]
    assert notes_after([options_of(7)], [empty] * 2) == [
        "marker 7 was in none of 2 frames; seen: none (4x4_50)"
    ]
    assert notes_after([Markers(), options_of(1, 2)], [four_markers()]) == []
    assert notes_after([options_of(7)], []) == [], "nobody has looked"


def test_a_missing_marker_is_one_note_while_it_runs_and_none_when_it_comes() -> None:
    """At 4 frames a second: due after 3 seconds, the thirteenth frame."""
    waiting = options_of(7)
    pictures = [four_markers()] * 16
    (said,) = notes_after([waiting], pictures, fps=4, close=False)
    assert said.startswith("marker 7 was in none of 14 frames; seen: 1")
    assert notes_after([options_of(7)], pictures[:13], fps=4, close=False) == []
    came = [*pictures, four_markers(7)]
    assert notes_after([options_of(7)], came, fps=4, close=False) == []
    assert len(notes_after([options_of(7)], pictures, fps=4)) == 1, "the end replaces it"
    waiting.close()
    waiting.close()
    assert waiting.notes == ["marker 7 was in none of 16 frames; seen: 1, 2, 3, 4 (4x4_50)"]
    (again,) = notes_after([waiting], pictures[:1])
    assert again.startswith("marker 7 was in none of 1 frame;"), "another run has its own"


def test_two_who_wait_for_one_marker_say_it_once() -> None:
    found = notes_after([options_of(9), options_of(9), options_of(8)], [four_markers()])
    assert [note[:8] for note in found] == ["marker 9", "marker 8"]


def test_many_markers_are_a_short_note() -> None:
    tracker = Tracker(predefined_dictionary("4x4_50"), SIZE)
    tracker.frames = 5
    tracker.seen.update(range(20))
    assert tracker.missing(frozenset({30})) == (
        "marker 30 was in none of 5 frames; seen: 0, 1, 2, 3, 4, 5, 6, 7 and 12 more"
    )
