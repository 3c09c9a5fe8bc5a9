"""What a conversion was asked to do, and whether that fits together."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engines import Card, SettingsError, SinkError, Size
from engines.registry import why_not
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
            **{
                name: left.pop(name)
                for name in ("output", "stride", "entry", "family", "statistics")
            },
        )
        gpus = tuple(part.strip() for part in (left.pop("gpus") or "").split(",") if part.strip())
        return cls(words=words, gpus=gpus, **left)


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
    for target in request.targets:
        if target.startswith("tensorrt"):
            from engines.nvidia import tensorrt_api

            reason = tensorrt_api.why_not(target)
        else:
            reason = why_not(target) if target == "openvino" else None
        if reason is not None:
            raise SettingsError(f"--to {target}: {reason}")


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


def check_writable(out: Path) -> None:
    """Find out now, not after ten minutes, whether the result can be written.

    Raises:
        SinkError: the folder is missing or read-only, or a folder is in the way.
    """
    if out.is_dir():
        raise SinkError(f"{out} is a folder; --out takes a file")
    if not out.parent.is_dir():
        raise SinkError(f"no folder {out.parent} for {out.name}; make it first")
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise SinkError(f"cannot write into {out.parent}: {error.strerror}") from error


def out_path(request: Request, card: Card) -> Path:
    """Return where the frame model goes.

    Raises:
        SettingsError: it is no .onnx file, or would replace what is converted.
    """
    out = request.out or Path(f"{card.name}.onnx")
    if out.suffix.lower() != ".onnx":
        raise SettingsError(f"--out takes a FILE.onnx, found {out}")
    source = request.words.source
    if source is not None and Path(source).exists() and out.exists() and out.samefile(source):
        raise SettingsError(f"{out} would replace what is converted; say another with --out")
    return out
