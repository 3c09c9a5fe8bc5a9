"""Shared values by themselves, then the compiled filters that engines of one process share."""

from __future__ import annotations

import gc
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import models
import numpy as np
import psutil
import pytest
from at_once import PATIENCE_S, in_threads

from engines import Engine, EngineError, FrameModel, open_engine
from engines.artefact import engine_file, write_artefact
from engines.backends import openvino as backend
from engines.shared import Shared

ROOT = Path(__file__).resolve().parents[2]
SIZE = (64, 48)
OpenVinoEngine = backend.OpenVinoEngine


class Thing:
    """A value, or a key: something that weak references can point to."""


# --- values -----------------------------------------------------------------------------------


def test_a_value_lives_as_long_as_somebody_uses_it() -> None:
    shared: Shared[str, Thing] = Shared()
    one = shared.get("a", Thing)
    assert shared.get("a", Thing) is one
    assert shared.get("b", Thing) is not one
    assert len(shared) == 1, "nobody uses b"
    seen = weakref.ref(one)
    other = shared.get("a", Thing)
    del one
    assert seen() is other
    del other
    gc.collect()
    assert seen() is None
    assert len(shared) == 0


def test_whoever_comes_at_the_same_moment_waits_for_the_one_who_makes() -> None:
    shared: Shared[str, Thing] = Shared()
    made = []

    def make() -> Thing:
        made.append(threading.get_ident())
        time.sleep(0.05)
        return Thing()

    found = in_threads(*[lambda: shared.get("a", make)] * 8)
    assert len(made) == 1
    assert len({id(value) for value in found}) == 1


def test_an_error_is_not_remembered() -> None:
    shared: Shared[str, Thing] = Shared()
    tries: list[int] = []

    def make() -> Thing:
        tries.append(1)
        time.sleep(0.02)
        if len(tries) < 3:
            raise EngineError(f"try {len(tries)}")
        return Thing()

    def get() -> Thing | str:
        try:
            return shared.get("a", make)
        except EngineError as error:
            return str(error)

    found = in_threads(*[get] * 5)
    assert len(tries) == 3, "each failed for one of them, and the third one made it"
    assert sorted(item for item in found if isinstance(item, str)) == ["try 1", "try 2"]
    assert len({id(item) for item in found if isinstance(item, Thing)}) == 1


def test_other_keys_do_not_wait() -> None:
    shared: Shared[str, Thing] = Shared()
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> Thing:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return Thing()

    thread = threading.Thread(target=shared.get, args=("slow", slow))
    thread.start()
    assert begun.wait(PATIENCE_S)
    assert shared.get("quick", Thing)
    go_on.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_key_is_not_kept() -> None:
    shared: Shared[Thing, Thing] = Shared()

    def fail() -> Thing:
        raise EngineError("no")

    key = Thing()
    seen = weakref.ref(key)
    with pytest.raises(EngineError):
        shared.get(key, fail)
    shared.get(key, Thing)
    del key
    gc.collect()
    assert seen() is None


def test_all_who_hold_a_value_at_one_time_hold_the_same() -> None:
    shared: Shared[int, Thing] = Shared()
    holders: dict[int, list[Thing]] = {key: [] for key in range(3)}
    lock = threading.Lock()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(400):
            key = rng.randrange(3)
            value = shared.get(key, Thing)
            with lock:
                assert all(other is value for other in holders[key])
                holders[key].append(value)
            if rng.random() < 0.3:
                time.sleep(rng.random() / 2000)
            with lock:
                holders[key].remove(value)
            del value

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        in_threads(*[lambda seed=seed: work(seed) for seed in range(8)])
    finally:
        sys.setswitchinterval(before)
    gc.collect()
    assert len(shared) == 0


# --- engines ----------------------------------------------------------------------------------


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What OpenVINO was given to compile: device, precision, depth."""
    found: list[tuple[Any, ...]] = []
    compile_ = backend._compile

    def counting(core: Any, network: Any, *how: Any) -> Any:
        found.append(how)
        return compile_(core, network, *how)

    monkeypatch.setattr(backend, "_compile", counting)
    return found


def _open(model: FrameModel, size: tuple[int, int] = SIZE, **options: Any) -> Engine:
    return open_engine(model, size, backend="openvino", **{"precision": "f32", **options})


@pytest.fixture
def model(tmp_path: Path) -> FrameModel:
    return models.written(models.blurring(), tmp_path / "m.onnx")


def test_the_second_engine_compiles_nothing(
    model: FrameModel, compilations: list[tuple[Any, ...]]
) -> None:
    engines = [_open(model) for _ in range(3)]
    again = _open(FrameModel.read(model.path))
    assert compilations == [("CPU", "f32", 1)]
    frame = models.picture(SIZE)
    right = engines[0].infer(frame)
    for engine in (*engines, again):
        assert np.array_equal(engine.infer(frame), right)
        assert (engine.device, engine.precision) == (engines[0].device, "f32")
        engine.close()
    with _open(model):
        assert len(compilations) == 2, "it went with the last engine"


def test_only_what_is_the_same_is_shared(
    model: FrameModel, compilations: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    class Other(OpenVinoEngine):
        """Might compile in another way."""

    copy = tmp_path / "copy.onnx"
    shutil.copy(model.path, copy)
    engines = [
        _open(model),
        _open(model, depth=2),
        _open(model, (32, 16)),
        Other(model, precision="f32"),
    ]
    engines[-1].open(SIZE)
    engines.append(_open(FrameModel.read(copy)))
    models.written(models.inverting(), model.path)
    engines.append(_open(FrameModel.read(model.path)))
    frame = models.picture(SIZE)
    assert np.array_equal(engines[-1].infer(frame), models.inverted(frame))
    assert np.abs(engines[0].infer(frame).astype(int) - models.blurred(frame)).max() <= 1
    assert len(compilations) == len(engines) == 6
    for engine in engines:
        engine.close()


def test_all_say_the_same(tmp_path: Path, compilations: list[tuple[Any, ...]]) -> None:
    """The proof is measured once, and its result is a note of each of them."""
    model = models.written(models.fragile(), tmp_path / "m.onnx")
    with _open(model, precision="auto") as one:
        count = len(compilations)
        with _open(model, precision="auto", depth=1) as other:
            assert other.notes == one.notes
            assert other.notes
            assert other.precision == one.precision
            assert len(compilations) == count
            other.close()
            other.open(SIZE)
            assert other.notes == one.notes, "nothing twice"


def test_an_engine_file_that_comes_later_is_taken(model: FrameModel) -> None:
    path = engine_file(model.path, "openvino", SIZE)
    with _open(model) as before:
        write_artefact(path, *OpenVinoEngine(model, precision="f32").compiled(SIZE), {})
        with _open(model) as one, _open(model) as other:
            assert before.engine_path is None
            assert one.engine_path == other.engine_path == path
            assert one.notes == other.notes == [f"engine from {path.name}"]
            frame = models.picture(SIZE)
            assert np.array_equal(one.infer(frame), other.infer(frame))


def test_opened_at_the_same_moment(model: FrameModel, compilations: list[tuple[Any, ...]]) -> None:
    frames = [models.picture(SIZE, seed) for seed in range(6)]
    for _ in range(5):
        compilations.clear()
        engines = in_threads(*[lambda: _open(model)] * 6)
        assert len(compilations) == 1
        found = in_threads(
            *[
                lambda engine=engine, frame=frame: engine.infer(frame)
                for engine, frame in zip(engines, frames)
            ]
        )
        for frame, picture in zip(frames, found):
            assert np.abs(picture.astype(int) - models.blurred(frame)).max() <= 1
        in_threads(*[engine.close for engine in engines])


def test_a_failed_opening_is_not_remembered(model: FrameModel) -> None:
    right = model.path.read_bytes()
    model.path.write_bytes(b"spoilt")

    def refused() -> None:
        with pytest.raises(EngineError, match="OpenVINO cannot read"):
            _open(model)

    in_threads(*[refused] * 3)
    model.path.write_bytes(right)
    _open(model).close()


def test_an_engine_that_nobody_closed_gives_its_part_back(
    model: FrameModel, compilations: list[tuple[Any, ...]]
) -> None:
    engine: Any = _open(model)
    engine.itself = engine
    del engine
    gc.collect()
    _open(model).close()
    assert len(compilations) == 2


def test_others_come_and_go_while_one_runs(model: FrameModel) -> None:
    frames = [models.picture(SIZE, seed) for seed in range(4)]
    right = [models.blurred(frame) for frame in frames]
    over = threading.Event()
    first = _open(model)

    def run() -> int:
        count = 0
        while not over.is_set():
            found = first.infer(frames[count % 4])
            assert np.abs(found.astype(int) - right[count % 4]).max() <= 1
            count += 1
        return count

    def come_and_go() -> None:
        try:
            for turn in range(60):
                with _open(model) as engine:
                    found = engine.infer(frames[turn % 4])
                    assert np.abs(found.astype(int) - right[turn % 4]).max() <= 1
        finally:
            over.set()

    process = psutil.Process()
    handles, threads = process.num_fds(), threading.active_count()
    assert in_threads(run, come_and_go)[0] > 0
    assert process.num_fds() <= handles
    assert threading.active_count() == threads
    first.close()


ENDINGS = {
    "the second one is closed last, in its thread": "one.close(); in_thread(other.close)",
    "the first one is closed last": "in_thread(other.close); one.close()",
    "by the garbage collector": "other.itself = other; del one, other; in_thread(gc.collect)",
}


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals as POSIX has them")
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_a_signal_after_shared_engines_is_no_crash(ending: str) -> None:
    """OpenVINO takes the signal stack of a thread that opens, see engines.backends.signal_stack."""
    program = f"""
import gc, os, signal, threading
from engines import open_engine

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

box = []
one = open_engine("comic", (64, 48), backend="openvino")
in_thread(lambda: box.append(open_engine("comic", (64, 48), backend="openvino")))
other = box.pop()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
{ending}
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "handled\nhandled\n"), done.stderr
