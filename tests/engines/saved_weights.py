"""State dicts for the tests, the files they come in, and what a refusal looks like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines import ConversionError
from engines.weights import read_weights

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")


def state_of(seed: int = 0, start: str = "") -> dict[str, Any]:
    """A state dict: two layers, one of them with a counter of whole numbers."""
    made = torch.Generator().manual_seed(seed)
    return {
        f"{start}conv.weight": torch.randn(4, 3, 3, 3, generator=made),
        f"{start}norm.weight": torch.randn(4, generator=made),
        f"{start}norm.num_batches_tracked": torch.tensor(7),
    }


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


def saved_to(saved: Any, folder: Path, **how: Any) -> Path:
    torch.save(saved, folder / "weights.pth", **how)
    return folder / "weights.pth"


def refused(path: Path, *words: str, entry: str | None = None) -> str:
    with pytest.raises(ConversionError) as refusal:
        read_weights(path, entry=entry)
    text = str(refusal.value)
    assert text.startswith("cannot read weights from ")
    assert "\n" not in text
    assert len(text) < 900
    for word in words:
        assert word in text, text
    return text


def write_zip(state: Any, path: Path) -> None:
    torch.save(state, path)


def write_legacy(state: Any, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def write_safetensors(state: Any, path: Path) -> None:
    safetensors_torch.save_file({k: v.contiguous() for k, v in state.items()}, path)


FORMS = {"zip pickle": write_zip, "legacy pickle": write_legacy, "safetensors": write_safetensors}
forms = pytest.mark.parametrize("form", FORMS)
