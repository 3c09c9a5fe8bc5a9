"""Markers: ArUco and AprilTag markers in the captured picture, for effects and user code.

Square markers with a number in them (Garrido-Jurado et al. 2014; AprilTag: Olson 2011, Wang and
Olson 2016). However many effects of a chain want markers, a frame is searched once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import cv2

from engines import EffectError, Pixels, SettingsError, Size
from realtime.effects.base import Context, Effect
from realtime.effects.calibration import Calibration
from realtime.effects.marker_tracker import Marker, Tracker
from realtime.effects.words import Words
from realtime.frame import Frame

DEFAULT_DICTIONARY: Final = "4x4_50"
DICTIONARIES: Final = {
    **{f"{n}x{n}_{m}": f"DICT_{n}X{n}_{m}" for n in (4, 5, 6, 7) for m in (50, 100, 250, 1000)},
    **{f"april_{name}": f"DICT_APRILTAG_{name}" for name in ("16h5", "25h9", "36h10", "36h11")},
    "aruco_original": "DICT_ARUCO_ORIGINAL",
    "mip_36h12": "DICT_ARUCO_MIP_36h12",
}
"""Our names -> OpenCV's."""
HOLD_MS: Final = 300.0
MISSING_AFTER_S: Final = 3.0
"""Of the frames' own time: then a note says which marker has not been seen yet."""


class MarkerOptions:
    """What an effect wants to know about markers; the effects of a chain share one detection.

    Args:
        ids: the markers that matter, or None for all.
        dictionary: one of `DICTIONARIES`.
        size_m: side of the black square, in metres, for the pose.
        calibration: of the camera, or its file, for the pose and for lens distortion.
        hold_ms: how long a marker that is not seen any more stays where it was.

    Raises:
        SettingsError: there is no such dictionary, marker, or calibration, or a number is absurd.
    """

    def __init__(
        self,
        effect: str,
        ids: Iterable[int] | None = None,
        *,
        dictionary: str = DEFAULT_DICTIONARY,
        size_m: float | None = None,
        calibration: Calibration | str | os.PathLike[str] | None = None,
        hold_ms: float = HOLD_MS,
    ) -> None:
        self.dictionary_name = dictionary_name(dictionary)
        self.dictionary = predefined_dictionary(self.dictionary_name)
        self.ids = None if ids is None else frozenset(ids)
        count = len(self.dictionary.bytesList)
        for number in sorted(self.ids or ()):
            if not 0 <= number < count:
                raise SettingsError(
                    f"{effect}: {self.dictionary_name} has the markers 0 to {count - 1}, found"
                    f" {number}"
                )
        if size_m is not None and not 0 < size_m < 100:
            raise SettingsError(
                f"{effect}: size is a marker's side in metres, for instance 0.08, found {size_m:g}"
            )
        if not 0 <= hold_ms <= 60_000:
            raise SettingsError(f"{effect}: hold is 0 to 60000 ms, found {hold_ms:g}")
        self.paths: tuple[Path, ...] = ()
        """The file that is read, if any."""
        if isinstance(calibration, (str, os.PathLike)):
            self.paths = (Path(calibration),) if str(calibration) else ()
            calibration = Calibration.load(calibration) if str(calibration) else None
        self.effect, self.size_m, self.calibration = effect, size_m, calibration
        self.hold_ms = hold_ms
        self.fitted: Calibration | None = None
        """The calibration, for the size of the frames; from `prepare` on."""
        self._tracker: Tracker | None = None
        self._notes: list[str] = []
        self._missing = ""
        """What `_notes` says of markers that were never seen."""
        self._first_ns: int | None = None

    def prepare(self, size: Size, context: Context, notes: list[str]) -> None:
        """Join the detection of this run, or begin one.

        Raises:
            SettingsError: the calibration does not fit the size, or that of another effect.
        """
        calibration = self.calibration
        if calibration is not None and calibration.size != size:
            made_for = f"{self.effect}: the calibration of {'x'.join(map(str, calibration.size))}"
            calibration = calibration.at_size(size)
            notes[:] = [note for note in notes if not note.startswith(made_for)]
            notes.append(f"{made_for} was scaled to {size[0]}x{size[1]}")
        key = f"markers {self.dictionary_name}"
        tracker = context.values.get(key)
        if not isinstance(tracker, Tracker) or tracker.size != size:
            if isinstance(tracker, Tracker):
                tracker.withdraw(context)
            tracker = context.values[key] = Tracker(self.dictionary, size)
        tracker.join(self.ids, hold_ms=self.hold_ms, size_m=self.size_m, calibration=calibration)
        self.fitted = calibration
        tracker.speakers.setdefault(self.ids, self)
        notes[:] = [note for note in notes if note != self._missing]  # of an earlier run
        self._tracker, self._notes, self._missing, self._first_ns = tracker, notes, "", None

    def find(self, frame: Frame, context: Context) -> dict[int, Marker]:
        """Return the markers that are seen or held, by number."""
        if self._tracker is None:
            raise EffectError(f"{self.effect} was not prepared")
        markers = self._tracker.update(frame, context)
        self._first_ns = frame.pts_ns if self._first_ns is None else self._first_ns
        late = frame.pts_ns - self._first_ns > MISSING_AFTER_S * 1e9
        if late and not (self._missing and self._tracker.missing(self.ids)):
            self._say_missing()  # or take it back
        return {
            number: marker
            for number, marker in markers.items()
            if marker.seen_ms_ago <= self.hold_ms and (self.ids is None or number in self.ids)
        }

    def reset(self) -> None:
        """Forget where markers were."""
        if self._tracker is not None:
            self._tracker.reset()

    def close(self) -> None:
        """Say in the notes which markers the run has never seen; more than once is no error."""
        self._say_missing()

    def _say_missing(self) -> None:
        """Keep one note about markers that were never seen, and none when they came later."""
        tracker = self._tracker
        if tracker is None or tracker.speakers[self.ids] is not self:
            return
        if self._missing in self._notes:
            self._notes.remove(self._missing)
        found = tracker.missing(self.ids)
        self._missing = found and f"{found} ({self.dictionary_name})"
        if self._missing:
            self._notes.append(self._missing)


def marker_words(words: Words) -> dict[str, Any]:
    """Take what every marker effect understands: dictionary, size, calibration and hold."""
    size_m = words.number("size", 0.0)
    return {
        "dictionary": words.text("dictionary", DEFAULT_DICTIONARY),
        "size_m": size_m or None,
        "calibration": words.text("calibration") or None,
        "hold_ms": words.number("hold", HOLD_MS),
    }


def marker_id(effect: str, word: str) -> int:
    """Return a marker's number.

    Raises:
        SettingsError: it is none.
    """
    if not word.strip().isdecimal():
        raise SettingsError(f"{effect}: a marker is a whole number from 0, found {word!r}")
    return int(word)


def dictionary_name(name: str) -> str:
    """Return our name of a dictionary, of any way to write it: ``DICT_APRILTAG_36h11``.

    Raises:
        SettingsError: there is none of this name.
    """
    plain = name.strip().lower().removeprefix("dict_").replace("-", "_")
    plain = plain.replace("apriltag", "april").replace("aruco_mip", "mip")
    if plain not in DICTIONARIES:
        raise SettingsError(f"no marker dictionary {name!r}; there are: {', '.join(DICTIONARIES)}")
    return plain


def predefined_dictionary(name: str) -> cv2.aruco.Dictionary:
    """Return OpenCV's dictionary of one of our names."""
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, DICTIONARIES[name]))


class Markers(Effect):
    """Puts the markers of the captured picture into ``context.markers``; draws nothing.

    The arguments are those of `MarkerOptions`; ``size_m`` is for all markers that no other effect
    gives a size of its own.
    """

    name = "markers"
    latency_ms = 2.0
    draws = False

    def __init__(
        self,
        *,
        dictionary: str = DEFAULT_DICTIONARY,
        size_m: float | None = None,
        calibration: Calibration | str | os.PathLike[str] | None = None,
        hold_ms: float = HOLD_MS,
    ) -> None:
        super().__init__()
        self.options = MarkerOptions(
            self.name,
            dictionary=dictionary,
            size_m=size_m,
            calibration=calibration,
            hold_ms=hold_ms,
        )
        self.paths = self.options.paths

    @classmethod
    def from_words(cls, words: str) -> Markers:
        """``dictionary=april_36h11;size=0.08;calibration=cam.json;hold=500``, all optional."""
        found = Words(cls.name, words)
        effect = cls(**marker_words(found))
        found.done()
        return effect

    def prepare(self, size: Size, context: Context) -> None:
        self.options.prepare(size, context, self.notes)

    def process(self, frame: Frame, context: Context) -> Pixels:
        self.options.find(frame, context)
        return frame.pixels

    def reset(self) -> None:
        self.options.reset()

    def close(self) -> None:
        self.options.close()
