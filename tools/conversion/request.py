"""What a conversion was asked to do, and whether that fits together."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engines import Card, FrameModel, ModelError, SettingsError, SinkError, Size
from engines.artefact import engine_file
from engines.registry import why_not
from engines.twins import twin_path
from tools.conversion.original import Original, Words

DEFAULT_SIZE: Final = (640, 360)


@dataclass(frozen=True, slots=True)
class Request:
    """What a conversion was asked to do."""

    words: Words
    out: Path | None = None
    targets: tuple[str, ...] = ()
    size: Size | None = None
    dynamic: tuple[Size, Size] | None = None
    gpus: tuple[str, ...] = ()
    precision: str = "f16"
    frames: Path | None = None
    count: int = 16
    report_path: Path | None = None
    name: str | None = None
    title: str = ""
    domains: str = ""
    licence: str = ""

    @classmethod
    def of(cls, source: str | None, options: dict[str, Any]) -> Request:
        """Return the request that the options of the command line say."""
        left = dict(options)
        words = Words(
            source=source,
            range=left.pop("range_"),
            **{
                name: left.pop(name)
                for name in ("module", "arguments", "range_out", "colour", "colour_out", "layout")
            },
            input=left.pop("input_"),
            size=left["size"],
            **{
                name: left.pop(name)
                for name in ("output", "stride", "entry", "family", "statistics")
            },
        )
        listed = left.pop("gpus")
        gpus = tuple(part.strip() for part in (listed or "").split(",") if part.strip())
        if listed is not None and not gpus:
            raise SettingsError("--gpu takes compute capabilities: --gpu 8.6,8.9")
        targets = tuple(dict.fromkeys(left.pop("targets")))
        return cls(words=words, gpus=gpus, targets=targets, **left)


def check_request(request: Request) -> None:
    """Refuse what does not fit together before anything is read.

    Raises:
        SettingsError: which two do not fit.
    """
    if request.gpus and "tensorrt-rtx" not in request.targets:
        raise SettingsError("--gpu chooses what --to tensorrt-rtx builds for; add it")
    if request.dynamic is not None and not {"tensorrt", "tensorrt-rtx"} & set(request.targets):
        raise SettingsError("--dynamic is for --to tensorrt and tensorrt-rtx; add one")
    if request.precision == "f32" and "onnx-f16" in request.targets:
        raise SettingsError("--to onnx-f16 contradicts --precision f32")
    if "onnx-int8" in request.targets and request.frames is None:
        raise SettingsError(
            "--to onnx-int8 measures on real frames which numbers there are: add --frames CLIP"
        )
    for target in request.targets:
        reason = None
        if target == "onnx-int8":
            from engines.graphs import int8

            reason = int8.why_not()
        elif target == "tensorrt-rtx" and "current" not in request.gpus:
            from engines.nvidia import tensorrt_api

            reason = tensorrt_api.why_not(target)  # builds without a GPU
        elif target != "onnx-f16":
            reason = why_not(target)
        if reason is not None:
            raise SettingsError(f"--to {target}: {reason}")
    if request.gpus:
        from engines.nvidia.tensorrt_builder import capabilities

        known = capabilities("tensorrt-rtx")
        unknown = [gpu for gpu in request.gpus if gpu not in known]
        if unknown:
            raise SettingsError(
                f"--gpu {','.join(unknown)}: this TensorRT for RTX builds for {', '.join(known)}"
            )


def fitting_size(request: Request, original: Original) -> Size:
    """Return the size to prove and compile at.

    Raises:
        SettingsError: a size was asked for that the network does not take; the message has the
            nearest that it does.
    """
    stride, fixed = original.card.stride, original.fixed_size
    asked = request.size or DEFAULT_SIZE
    sizes = [asked, *(request.dynamic or ())]
    if fixed is not None:
        if request.size not in (None, fixed) or request.dynamic:
            raise SettingsError(
                f"this network takes {fixed[0]}x{fixed[1]} only: leave --size and --dynamic out"
            )
        return fixed
    fitted = [tuple(max(stride, side // stride * stride) for side in size) for size in sizes]
    if request.size is None and not request.dynamic:
        return fitted[0][0], fitted[0][1]
    for size, fits in zip(sizes, fitted, strict=True):
        if fits != size and (size != asked or request.size is not None):
            raise SettingsError(
                f"width and height must be multiples of {stride} for this network:"
                f" not {size[0]}x{size[1]} but {fits[0]}x{fits[1]}"
            )
    best = fitted[0][0], fitted[0][1]
    if request.dynamic:
        smallest, largest = request.dynamic
        inside = all(low <= side <= high for low, side, high in zip(smallest, best, largest))
        if not inside:
            if request.size is not None:
                raise SettingsError("--size must lie in the range of --dynamic")
            return largest
    return best


def out_path(request: Request, original: Original) -> Path:
    """Return where the frame model goes: where --out says, else here under the source's name.

    A frame model without --out stays where it is: only its card gets the proofs.

    Raises:
        SettingsError: it is no .onnx file, or would replace something else.
    """
    source, out = request.words.source, request.out
    here = Path(source) if source is not None and Path(source).is_file() else None
    if out is None:
        if here is not None and original.levels is None:
            return here
        name = here.stem if here is not None else original.card.name
        if here is not None and here.suffix.lower() == ".onnx":
            name += ".live"  # beside the file that was given
        out = Path(f"{name}.onnx")
        if out.exists() and not _is_earlier_result(out, original.card):
            raise SettingsError(f"{out} is there already and is another; say where with --out")
    if out.suffix.lower() != ".onnx":
        raise SettingsError(f"--out takes a FILE.onnx, found {out}")
    if here is not None and out.exists() and out.samefile(here) and original.levels is not None:
        raise SettingsError(f"{out} would replace what is converted; say another with --out")
    if out.is_file() and not _is_frame_model(out):
        raise SettingsError(f"{out} is there already and is no frame model; say another with --out")
    return out


def check_products(request: Request, out: Path, size: Size) -> None:
    """Find out now, not after ten minutes, whether everything can be written.

    Raises:
        SinkError: a folder is missing or read-only, or is in the way of a file.
        SettingsError: the report would replace another file of the conversion.
    """
    made = [out, out.with_name(f"{out.stem}.proof.png"), out.with_name(f"{out.stem}.refused.png")]
    beside = {"onnx-f16": out.with_name(f"{out.stem}.f16.onnx"), "onnx-int8": twin_path(out)}
    made += [path for target, path in beside.items() if target in request.targets]
    made += [
        engine_file(out, backend, None if request.dynamic and backend != "openvino" else size)
        for backend in ("openvino", "tensorrt", "tensorrt-rtx")
    ]
    for path in made:
        _check_writable(path)
    report = request.report_path
    if report is None:
        return
    if report.suffix.lower() != ".json":
        raise SettingsError(f"--report takes a FILE.json, found {report}")
    _check_writable(report)
    others = [*made, *(Path(word) for word in (request.words.source, request.frames) if word)]
    if os.path.realpath(report) in {os.path.realpath(path) for path in others}:
        raise SettingsError(f"--report {report} would replace another file of this conversion")


def _is_frame_model(path: Path) -> bool:
    try:
        FrameModel.read(path)
    except ModelError:
        return False
    return True


def _is_earlier_result(path: Path, card: Card) -> bool:
    """Whether ``path`` is a frame model of the same weights: converting twice is fine."""
    try:
        found = FrameModel.read(path).card
    except ModelError:
        return False
    return bool(card.weights_sha256) and found.weights_sha256 == card.weights_sha256


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise SinkError(f"{path} is a folder, and a file of that name is to be written")
    if not path.parent.is_dir():
        raise SinkError(f"no folder {path.parent} for {path.name}; make it first")
    try:
        path.exists()  # raises for a name that is too long
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}") from error
