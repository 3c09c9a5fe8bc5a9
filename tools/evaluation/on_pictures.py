"""What is measured on still pictures: held-out pairs, a set to look like, and the way back."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines import EngineError, FrameModel, Pix2liveError, Pixels, SettingsError
from realtime.sources.pictures import read_picture
from tools.conversion.original import file_sha256
from tools.evaluation import distances, metrics
from tools.evaluation.pictures import fitted, match_names, pictures_of
from tools.evaluation.settings import Settings, Tick
from tools.evaluation.table import HIGHER, LOWER, Evaluation, Measure
from tools.evaluation.translating import Translator

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

UNTRANSLATED: Final = "untranslated_"


class PictureMeasurement:
    """Everything that is measured on ``--input``. Files are looked at before anything runs."""

    def __init__(self, settings: Settings, found: Evaluation) -> None:
        assert settings.input is not None
        self._settings = settings
        self._found = found
        self._models = [model for model in (found.model, found.back) if model is not None]
        self._inputs = pictures_of(settings.input, "--input")
        self._targets: list[Path] = []
        self._against: list[Path] = []
        if settings.target is not None:
            self._targets = match_names(self._inputs, pictures_of(settings.target, "--target"))
        if settings.against is not None:
            self._against = pictures_of(settings.against, "--against")
            if min(len(self._inputs), len(self._against)) < distances.FEWEST_PICTURES:
                raise SettingsError(
                    f"the kernel distance needs {distances.FEWEST_PICTURES} pictures or more, found"
                    f" {len(self._inputs)} in --input and {len(self._against)} in --against"
                )
        self._net = self._feature_net()
        self._pooled: list[NDArray[np.float64]] = []
        """(2, C) a picture: of the translated one, and of the input."""

    def measure(self, translator: Translator, tick: Tick) -> None:
        """Translate each picture once, and add the measures to the evaluation."""
        rows = self._found.pictures
        if self._found.back is None:
            rows += self._rows(translator, None, tick)
        else:
            with Translator(self._found.back, self._settings) as back:
                rows += self._rows(translator, back, tick)
        if self._targets:
            self._add("l1", "L1", "of 255", LOWER)
            self._add("psnr_db", "PSNR", "dB", HIGHER)
            self._add("ssim", "SSIM (luma)", "", HIGHER)
            if self._net is not None:
                self._add("perceptual", "perceptual, not LPIPS", "", LOWER)
        if self._found.back is not None:
            self._add("cycle_l1", "cycle error, L1", "of 255", LOWER)
            self._add("cycle_psnr_db", "cycle error, PSNR", "dB", HIGHER)
        if self._against:
            self._add_kernel_distance(tick)

    def _rows(
        self, translator: Translator, back: Translator | None, tick: Tick
    ) -> Iterator[dict[str, Any]]:
        for number, path in enumerate(self._inputs):
            tick("pictures", number, len(self._inputs))
            picture = read_picture(path)
            try:
                given = fitted(picture, self._models)
                translator.reset()
                made = translator(given)
                row: dict[str, Any] = {"name": path.name, "size": list(given.shape[1::-1])}
                if self._targets:
                    target = _target(self._targets[number], picture, self._models)
                    row |= self._to_target(given, made, target)
                if back is not None:
                    back.reset()
                    returned = back(made)
                    row["cycle_l1"] = metrics.l1(returned, given)
                    row["cycle_psnr_db"] = metrics.psnr_db(returned, given)
            except SettingsError as error:
                raise SettingsError(f"{path}: {error}") from error
            if self._against:
                assert self._net is not None
                self._pooled.append(distances.pooled_features(self._net, [made, given]))
            yield row

    def _to_target(self, given: Pixels, made: Pixels, target: Pixels) -> dict[str, float]:
        row = {}
        for key, metric in (
            ("l1", metrics.l1),
            ("psnr_db", metrics.psnr_db),
            ("ssim", metrics.ssim),
        ):
            row[key] = metric(made, target)
            row[UNTRANSLATED + key] = metric(given, target)
        if self._net is not None:
            both = distances.perceptual_distances(self._net, target, [made, given])
            row["perceptual"], row[UNTRANSLATED + "perceptual"] = both
        return row

    def _add(self, key: str, name: str, unit: str, better: str) -> None:
        """Add the mean over the pictures."""
        rows = self._found.pictures
        untranslated = [row[UNTRANSLATED + key] for row in rows if UNTRANSLATED + key in row]
        self._found.measures.append(
            Measure(
                key,
                name,
                float(np.mean([row[key] for row in rows])),
                unit,
                better,
                len(rows),
                "pictures",
                float(np.mean(untranslated)) if untranslated else None,
            )
        )

    def _add_kernel_distance(self, tick: Tick) -> None:
        assert self._net is not None
        seen = []
        for number, path in enumerate(self._against):
            tick("--against", number, len(self._against))
            seen.append(distances.pooled_features(self._net, [read_picture(path)])[0])
        right = np.array(seen)
        made, given = (
            distances.kernel_distance(values, right) for values in np.stack(self._pooled, axis=1)
        )
        self._found.notes.append(
            f"kernel distance: mean ± standard deviation of {made.blocks} random blocks of"
            f" {made.block_size}; other nets and pictures give other numbers"
        )
        self._found.measures.append(
            Measure(
                "kernel_distance",
                "kernel distance, not KID",
                made.mean,
                "",
                LOWER,
                len(self._pooled),
                f"pictures, {len(right)} others",
                untranslated=given.mean,
                deviation=made.deviation,
            )
        )

    def _feature_net(self) -> nn.Module | None:
        """The net where something needs it; without one, the other metrics are still right."""
        settings = self._settings
        if not (self._targets or self._against):
            return None
        try:
            net = _load_feature_net(settings.features)
        except Pix2liveError as error:
            if self._against or settings.features is not None:
                raise
            self._found.notes.append(f"no perceptual distance: {error}")
            return None
        file = settings.features
        self._found.features = {
            "file": None if file is None else str(file),
            "sha256": None if file is None else file_sha256(file),
            "layers": list(getattr(net, "layers", ())),
            "device": str(next(net.parameters()).device),
        }
        return net


def _load_feature_net(path: Path | None) -> nn.Module:
    if importlib.util.find_spec("torch") is None:
        raise EngineError("a feature net needs torch: pip install 'pix2live[torch]'")
    import torch

    from tools.train.features import load_features

    if path is not None and not path.is_file():
        raise SettingsError(f"--features takes a file of weights; {path} is no file")
    return load_features(path).to("cuda" if torch.cuda.is_available() else "cpu")


def _target(path: Path, picture: Pixels, models: Sequence[FrameModel]) -> Pixels:
    target = read_picture(path)
    if target.shape != picture.shape:
        raise SettingsError(
            f"it is {picture.shape[1]}x{picture.shape[0]}, and its target {path} is"
            f" {target.shape[1]}x{target.shape[0]}; pairs have one size"
        )
    return fitted(target, models)
