"""Where an engine comes from: a file beside the model, the cache, or TensorRT for RTX, for real.

TensorRT for RTX builds without a GPU; nothing is run.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import pytest
from simulated_cuda import SimulatedCuda

from engines import EngineError, FrameModel
from engines.artefact import ArtefactKey, engine_file, read_artefact, write_artefact
from engines.backends.tensorrt import TensorRtRtxEngine
from engines.cache import EngineCache
from engines.nvidia.tensorrt_network import Network
from engines.nvidia.tensorrt_plan import Found, find

pytest.importorskip("tensorrt_rtx", reason="the extra tensorrt-rtx is not installed")

from engines.nvidia import tensorrt_api

SIZE = (64, 48)
RTX = "tensorrt-rtx"


def gpu(name: str = "A GPU", capability: tuple[int, int] = (8, 6), driver: str = "580.1") -> Any:
    return SimpleNamespace(name=name, compute_capability=capability, driver_version=driver)


@pytest.fixture
def model(tmp_path: Path) -> FrameModel:
    return models.written(models.blurring(), tmp_path / "blur.onnx")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


def found(model: FrameModel, cache: EngineCache, **other: Any) -> Found:
    asked: dict[str, Any] = {"precision": "f16", "device": gpu(), **other}
    size = asked.pop("size", SIZE)
    return find(RTX, model, size, cache=cache, **asked)


def built(path: Path, model: FrameModel, cache: EngineCache, **other: Any) -> ArtefactKey:
    """Put an engine file beside the model, as the converter does: for 8.6 and 8.9."""
    found(model, cache)
    artefact = read_artefact(cache.entries()[0].path)
    changed = {"device": ("8.6", "8.9"), "driver": "", **other}
    key = dataclasses.replace(artefact.key, **changed)
    write_artefact(path, key, artefact.payload, {})
    return key


def test_the_file_beside_a_model_has_a_name() -> None:
    folder = Path("a") / "b"
    assert engine_file(folder / "comic.onnx", "tensorrt", (640, 360)) == (
        folder / "comic.640x360.tensorrt.engine"
    )
    assert engine_file(folder / "x.y.onnx", RTX) == folder / "x.y.tensorrt-rtx.engine"


def test_it_is_built_once(model: FrameModel, cache: EngineCache) -> None:
    first = found(model, cache)
    assert first.notes == ("engine built now",)
    assert first.path is None
    again = found(model, cache)
    assert again.notes == ("engine from the cache",)
    assert again.data == first.data
    assert again.path is None
    assert again.kernel_cache == first.kernel_cache
    assert first.kernel_cache.parent == cache.folder
    entry = cache.entries()[0]
    assert entry.key is not None
    assert entry.key.device == "A GPU"
    assert read_artefact(entry.path).facts["layers"]["convolution"] == {"f16": 1}


@pytest.mark.parametrize(
    "other",
    [
        {"precision": "f32"},
        {"size": (32, 48)},
        {"device": gpu(name="Another GPU")},
        {"device": gpu(driver="590.2")},
    ],
    ids=["precision", "size", "device", "driver"],
)
def test_another_one_is_built_for_anything_else(
    model: FrameModel, cache: EngineCache, other: dict[str, Any]
) -> None:
    first = found(model, cache)
    second = found(model, cache, **other)
    assert second.notes == ("engine built now",)
    assert second.kernel_cache != first.kernel_cache
    assert len(cache.entries()) == 2


@pytest.mark.parametrize("sized", [True, False])
def test_the_file_beside_the_model_comes_first(
    model: FrameModel, cache: EngineCache, sized: bool, tmp_path: Path
) -> None:
    path = engine_file(model.path, RTX, SIZE if sized else None)
    built(path, model, cache, smallest=(16, 16), largest=(640, 480))
    taken = found(model, EngineCache(tmp_path / "empty"))
    assert taken.notes == (f"engine from {path.name}",)
    assert taken.path == path
    assert not (tmp_path / "empty").exists()


REFUSED = {
    "another GPU": ({"device": ("8.9", "12.0")}, r"capability 8\.9, 12\.0, this one has 8\.6"),
    "another size": ({"smallest": (65, 48), "largest": (65, 48)}, "takes 65x48 to 65x48, here 64x"),
    "another model": ({"model_sha256": "0" * 64}, "model 000000000000"),
    "another version": ({"backend_version": "1.0"}, r"tensorrt-rtx version '1\.0', here"),
    "another precision": ({"precision": "f32"}, ": it is f32, and here it runs in f16$"),
    "one GPU by name": ({"device": "B"}, "device 'B', here 'A GPU'"),
    "another driver": ({"driver": "1"}, "driver '1', here '580.1'"),
}


@pytest.mark.parametrize(("other", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_does_not_fit_is_left_out_with_the_reason(
    model: FrameModel, cache: EngineCache, other: dict[str, Any], reason: str
) -> None:
    path = engine_file(model.path, RTX, SIZE)
    built(path, model, cache, **other)
    taken_instead = found(model, cache)
    assert taken_instead.path is None
    refused, taken = taken_instead.notes
    assert refused.startswith(f"not {path.name}: ")
    assert re.search(reason, refused), refused
    assert taken == "engine from the cache"


def test_a_file_of_the_other_precision_says_why_it_is_left_out(
    model: FrameModel, cache: EngineCache
) -> None:
    path = engine_file(model.path, RTX, SIZE)
    built(path, model, cache)
    why = "f32, the slower way: f16 is only 5.0 dB from f32, 45 are needed"
    refused = found(model, cache, precision="f32", why_precision=why).notes[0]
    assert refused == (
        f"not {path.name}: it is f16, and here it runs in {why}; --precision f16 takes it all the"
        " same"
    )
    built(path, model, cache, model_sha256="0" * 64, precision="f16")
    refused = found(model, cache, precision="f32").notes[0]
    assert re.search(r": model 0+\.\.\., here .*; it is f16, and here it runs in f32$", refused)


class OnSomeGpu(TensorRtRtxEngine):
    """The backend with a device that is enough to look for an engine, and not to run one."""

    cuda_factory = staticmethod(lambda _: SimulatedCuda())

    @classmethod
    def why_not(cls) -> str | None:
        return None


def test_nothing_is_built_where_that_is_not_wanted(model: FrameModel, tmp_path: Path) -> None:
    engine = OnSomeGpu(model, precision="f16")
    engine.cache, engine.build_if_missing = EngineCache(tmp_path / "cache"), False
    with pytest.raises(EngineError) as refusal:
        engine.open(SIZE)
    assert str(refusal.value) == (
        "no tensorrt-rtx engine in f16 for blur.onnx at 64x48, and none is to be built now: there"
        " is neither blur.64x48.tensorrt-rtx.engine nor blur.tensorrt-rtx.engine"
    )
    path = engine_file(model.path, RTX, SIZE)
    path.write_bytes(b"something else")
    with pytest.raises(EngineError, match=r"built now: not blur.*is no engine file of pix2live"):
        engine.open(SIZE)
    assert engine.engine_path is None
    assert not (tmp_path / "cache").exists()


def test_auto_says_of_an_engine_in_f16_that_it_was_not_proven(
    model: FrameModel, cache: EngineCache, tmp_path: Path
) -> None:
    path = engine_file(model.path, RTX, SIZE)
    card = dataclasses.replace(model.card, proofs={"f16": {"psnr_db": 5.0}})
    engine = OnSomeGpu(dataclasses.replace(model, card=card))
    engine.cache, engine.build_if_missing = EngineCache(tmp_path / "other"), False
    built(path, model, cache)
    with pytest.raises(
        EngineError,
        match=r"in f32 .*: it is f16, and here it runs in f32, the slower way: f16 is only 5\.0 dB",
    ):
        engine.open(SIZE)
    assert engine.precision == "f32"


def test_what_is_in_the_cache_is_taken_without_building(
    model: FrameModel, cache: EngineCache
) -> None:
    first = found(model, cache)
    again = found(model, cache, build=False)
    assert (again.data, again.notes, again.path) == (first.data, ("engine from the cache",), None)


def test_a_damaged_file_is_left_out(model: FrameModel, cache: EngineCache) -> None:
    path = engine_file(model.path, RTX, SIZE)
    path.write_bytes(b"something else")
    notes = found(model, cache).notes
    assert "is no engine file of pix2live" in notes[0]
    kept = cache.entries()[0].path
    kept.write_bytes(kept.read_bytes()[:-5])
    path.unlink()
    rebuilt = found(model, cache).notes
    assert rebuilt[0] == "engine built now"
    assert "cut off" in rebuilt[1]


def test_what_cannot_be_built_is_an_error_in_words(
    model: FrameModel, cache: EngineCache, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=r"no engine for blur\.onnx: cancelled"):
        found(model, cache, progress=lambda _: False)
    model.path.unlink()
    with pytest.raises(EngineError, match=r"cannot read .*blur\.onnx") as refusal:
        found(model, cache)
    assert "\n" not in str(refusal.value)
    assert cache.entries() == ()


def test_without_a_gpu_the_real_runtime_says_why(model: FrameModel, cache: EngineCache) -> None:
    if tensorrt_api.has_driver_library():
        pytest.skip("an NVIDIA driver is here")
    data = found(model, cache).data
    for plan in (data, data[:1000], b"nothing of that kind" * 100):
        with pytest.raises(
            EngineError, match=r"^(the engine cannot be loaded|TensorRT does)"
        ) as no:
            Network(tensorrt_api.load(RTX), tensorrt_api.messages(RTX), plan)
        assert "\n" not in str(no.value)
        if plan is data:
            assert "there is no NVIDIA driver here" in str(no.value)
    assert "cannot be loaded: the engine is of another version" in str(no.value)
