"""Where a training runs and in which precision: said, never guessed in silence."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any, Final, Literal, cast

import torch
from lightning_fabric import Fabric

from engines.errors import EngineError, SettingsError
from tools.train.recipe import Settings

ACCELERATORS: Final = ("auto", "cpu", "cuda", "mps")
DEVICE_ERRORS: Final = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "NCCL error")
PRECISIONS: Final = ("auto", "32-true", "bf16-mixed", "16-mixed")
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def make_fabric(settings: Settings) -> tuple[Fabric, str]:
    """Return Lightning's Fabric for these settings, not yet launched, and a line that says what.

    Raises:
        SettingsError: the device is not here, there are not as many, or it lacks the precision.
    """
    accelerator = _accelerator(settings.accelerator)
    here = torch.cuda.device_count() if accelerator == "cuda" else 1
    if settings.devices > here and accelerator != "cpu":
        raise SettingsError(f"--devices {settings.devices}: there are {here} of {accelerator} here")
    precision, why = _precision(settings.precision, accelerator)
    with quiet():
        fabric = Fabric(
            accelerator=accelerator,
            devices=settings.devices,
            precision=precision,
            strategy="ddp" if settings.devices > 1 else "auto",
        )
    many = f"{settings.devices} x " if settings.devices > 1 else ""
    return fabric, f"training on {many}{_described(accelerator)}, {precision}: {why}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Fabric's log lines and warnings from the person: what matters is said by us."""
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def in_our_words(error: Exception, settings: Settings) -> Exception:
    """Return an error of ours for a device that failed or is full; other errors as they are."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "t allocate memory" in reason:
        return EngineError(
            f"out of memory at --batch {settings.batch} and --crop {settings.crop_px}: make room"
            f" and go on with --resume, or begin again with less of them ({reason})"
        )
    if isinstance(error, RuntimeError) and any(name in reason for name in DEVICE_ERRORS):
        return EngineError(f"the device failed; --resume goes on ({reason})")
    return error


def _accelerator(asked: str) -> str:
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if asked == "auto":
        return next(name for name, here in found.items() if here)
    if asked not in found:
        raise SettingsError(f"--accelerator must be one of {', '.join(found)}, found {asked!r}")
    if not found[asked]:
        reason = "" if torch.version.cuda or asked != "cuda" else f" (torch {torch.__version__})"
        raise SettingsError(f"--accelerator {asked}: torch finds none here{reason}; take auto")
    return asked


def _described(accelerator: str) -> str:
    if accelerator == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads" if accelerator == "cpu" else "Apple GPU"


def _precision(asked: str, accelerator: str) -> tuple[Precision, str]:
    """Return what to take, and why."""
    if asked not in PRECISIONS:
        raise SettingsError(f"--precision must be one of {', '.join(PRECISIONS)}, found {asked!r}")
    if asked == "16-mixed" and accelerator == "cpu":
        raise SettingsError(
            "--precision 16-mixed needs a GPU; a CPU takes bf16-mixed, or 32-true where it has no"
            " bfloat16"
        )
    if asked != "auto":
        return cast(Precision, asked), "as asked"
    if accelerator == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "this GPU computes bfloat16"
        return "16-mixed", "this GPU has no bfloat16"
    if accelerator == "cpu" and _cpu_has_bfloat16():
        return "bf16-mixed", "this processor computes bfloat16"
    return "32-true", "bfloat16 would be slower here" if accelerator == "cpu" else "the safe one"


def _cpu_has_bfloat16() -> bool:
    found: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # of newer versions of torch
    asked = (
        getattr(torch.cpu, name, bool)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or any(asked))
