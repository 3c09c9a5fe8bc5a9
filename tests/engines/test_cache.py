"""Compiled engines on disk: built once, never trusted when anything is off, never in the way."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.artefact import FORMAT, Artefact, ArtefactKey, read_artefact, write_artefact
from engines.cache import EngineCache
from engines.errors import EngineError

pytest.importorskip("filelock", reason="the cache locks with filelock")

ROOT = Path(__file__).resolve().parents[2]
KEY = ArtefactKey(
    model_sha256="ab" * 32,
    smallest=(64, 48),
    best=(640, 360),
    largest=(1280, 720),
    precision="f16",
    backend="tensorrt-rtx",
    backend_version="1.7.1.116",
    device=("8.6", "8.9"),
)
FACTS: dict[str, Any] = {"layers": {"convolution": {"f16": 3}}, "islands": ["Tanh"]}
PAYLOAD = bytes(range(256)) * 8


class Builds:
    """A build that can be counted."""

    def __init__(self, payload: bytes = PAYLOAD) -> None:
        self.payload = payload
        self.count = 0

    def __call__(self) -> tuple[bytes, dict[str, Any]]:
        self.count += 1
        return self.payload, FACTS


def _left(folder: Path) -> list[str]:
    """What is in the folder besides locks, which are empty and harmless."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_an_artefact_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "filter.engine"
    write_artefact(path, KEY, PAYLOAD, FACTS)
    assert read_artefact(path, KEY) == read_artefact(path) == Artefact(KEY, PAYLOAD, FACTS)
    assert _left(tmp_path) == ["filter.engine"]
    on_gpu = dataclasses.replace(KEY, device="NVIDIA GeForce RTX 4070", driver="580.65")
    write_artefact(path, on_gpu, b"", {})
    assert read_artefact(path, on_gpu) == Artefact(on_gpu, b"", {})


def test_the_file_is_readable_as_its_neighbours(tmp_path: Path) -> None:
    """An engine that is handed to others must not be for its owner's eyes only."""
    (tmp_path / "plain").write_bytes(b"")
    write_artefact(tmp_path / "filter.engine", KEY, PAYLOAD, FACTS)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()]
    assert modes[0] == modes[1]


CHANGES: dict[str, Any] = {
    "model_sha256": "cd" * 32,
    "smallest": (64, 64),
    "best": (320, 240),
    "largest": (1920, 1080),
    "precision": "f32",
    "backend": "tensorrt",
    "backend_version": "1.8.0.1",
    "device": ("12.0",),
    "driver": "580.65",
    "options": "level 5",
}


def test_every_field_decides_what_an_engine_is() -> None:
    assert set(CHANGES) == {item.name for item in dataclasses.fields(ArtefactKey)}
    digests = {dataclasses.replace(KEY, **{name: x}).digest() for name, x in CHANGES.items()}
    assert len(digests | {KEY.digest()}) == len(CHANGES) + 1
    assert dataclasses.replace(KEY, device="8.6").digest() != (
        dataclasses.replace(KEY, device=("8.6",)).digest()
    )
    assert KEY.digest() == dataclasses.replace(KEY).digest()
    assert ArtefactKey.from_dict(json.loads(KEY.to_json())) == KEY


@pytest.mark.parametrize("name", CHANGES)
def test_an_engine_for_something_else_says_what_differs(name: str, tmp_path: Path) -> None:
    path = tmp_path / "filter.engine"
    write_artefact(path, KEY, PAYLOAD, FACTS)
    here = dataclasses.replace(KEY, **{name: CHANGES[name]})
    with pytest.raises(EngineError) as caught:
        read_artefact(path, here)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"{path} was built for something else: ")
    assert said.endswith("; build it again here (pix2live convert)")
    expected = {
        "model_sha256": "model abababababab..., here cdcdcdcdcdcd...",
        "best": "best 640x360, here 320x240",
        "backend_version": "tensorrt-rtx version '1.7.1.116', here '1.8.0.1'",
        "device": "device 8.6, 8.9, here 12.0",
        "driver": "driver none, here '580.65'",
    }
    assert expected.get(name, f"{name} ") in said
    assert said.count(", here ") == 1


def _without(part: bytes) -> Any:
    return lambda data: data.replace(part, b"", 1)


DAMAGES: dict[str, tuple[Any, str]] = {
    "empty": (lambda data: b"", "is no engine file of pix2live"),
    "a bare plan": (lambda data: data.split(b"\n", 2)[2], "is no engine file of pix2live"),
    "text": (lambda data: b"hello\nworld\n", "is no engine file of pix2live"),
    "zeros": (lambda data: bytes(len(data)), "is no engine file of pix2live"),
    "another format": (
        lambda data: data.replace(b"engine %d " % FORMAT, b"engine 99 ", 1),
        "has version 99 of the format, this pix2live reads 1",
    ),
    "first line only": (lambda data: data.split(b"\n")[0] + b"\n", "damaged in its header"),
    "half a header": (lambda data: data[:200], "damaged in its header"),
    "another header": (lambda data: data.replace(b"f16", b"f32", 1), "damaged in its header"),
    "no payload": (lambda data: data[: -len(PAYLOAD)], "is cut off: 2048 bytes"),
    "half a payload": (lambda data: data[:-1000], "2048 bytes of engine expected, 1048 found"),
    "a byte too many": (lambda data: data + b"\0", "is damaged: its checksum is another"),
    "another byte": (lambda data: data[:-1] + b"\0", "is damaged: its checksum is another"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_named_and_built_again(name: str, tmp_path: Path) -> None:
    damage, reason = DAMAGES[name]
    cache, build = EngineCache(tmp_path), Builds()
    cache.get_or_build(KEY, build)
    path = cache.path(KEY)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(EngineError) as caught:
        read_artefact(path, KEY)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    again = cache.get_or_build(KEY, build)
    assert again.built
    assert again.note.startswith("built again: ")
    assert reason in again.note
    kept = cache.get_or_build(KEY, build)
    assert (kept.payload, kept.built, kept.note, build.count) == (PAYLOAD, False, "", 2)


def test_a_wrong_key_inside_a_right_name_is_not_trusted(tmp_path: Path) -> None:
    cache, build = EngineCache(tmp_path), Builds()
    other = dataclasses.replace(KEY, best=(320, 240))
    write_artefact(cache.path(KEY), other, b"another engine", {})
    found = cache.get_or_build(KEY, build)
    assert found.payload == PAYLOAD
    assert "best 320x240, here 640x360" in found.note


HEADER_KEYS: list[Any] = [
    None,
    [],
    {},
    {**dataclasses.asdict(KEY), "best": None},
    {**dataclasses.asdict(KEY), "best": [1, 2, 3], "largest": [4]},
    {**dataclasses.asdict(KEY), "best": [1.5, 2]},
    {**dataclasses.asdict(KEY), "device": None},
    {**dataclasses.asdict(KEY), "device": [1]},
    {**dataclasses.asdict(KEY), "driver": 5},
    {**dataclasses.asdict(KEY), "colour": "red"},
]


@pytest.mark.parametrize("raw", HEADER_KEYS, ids=range(len(HEADER_KEYS)))
def test_a_key_of_another_shape_is_refused(raw: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """With a right checksum: written by another program, or by a later pix2live."""
    path = tmp_path / "filter.engine"
    with monkeypatch.context() as patch:
        patch.setattr("engines.artefact.asdict", lambda key: raw)
        write_artefact(path, KEY, PAYLOAD, FACTS)
    with pytest.raises(EngineError, match="has a header that says too little"):
        read_artefact(path)


def test_facts_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="the facts of an engine must be JSON"):
        write_artefact(tmp_path / "x.engine", KEY, PAYLOAD, {"proof": object()})
    with pytest.raises(EngineError, match="the facts of an engine must be JSON"):
        EngineCache(tmp_path).get_or_build(KEY, lambda: (PAYLOAD, {"psnr": float("nan")}))
    assert _left(tmp_path) == []


@pytest.fixture(scope="module")
def whole() -> Iterator[tuple[Path, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "filter.engine"
        write_artefact(path, KEY, PAYLOAD[:300], FACTS)
        yield path, path.read_bytes()


@given(st.data())
def test_no_changed_byte_goes_unnoticed(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, right = whole
    where = data.draw(st.integers(0, len(right) - 1))
    flipped = right[where] ^ data.draw(st.integers(1, 255))
    path.write_bytes(right[:where] + bytes([flipped]) + right[where + 1 :])
    with pytest.raises(EngineError):
        read_artefact(path)


@given(st.data())
def test_no_cut_goes_unnoticed(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, right = whole
    path.write_bytes(right[: data.draw(st.integers(0, len(right) - 1))])
    with pytest.raises(EngineError):
        read_artefact(path)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_an_error_in_words(
    whole: tuple[Path, bytes], rubbish: bytes, begins_right: bool
) -> None:
    path, right = whole
    path.write_bytes((right[:21] if begins_right else b"") + rubbish)
    with pytest.raises(EngineError):
        read_artefact(path)


def test_what_is_no_file_is_an_error_in_words(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.engine")
    for name in ("missing.engine", ".", "pipe.engine"):
        with pytest.raises(EngineError, match="no engine file"):
            read_artefact(tmp_path / name)
    with pytest.raises(EngineError, match=r"cannot write .*: No such file or directory"):
        write_artefact(tmp_path / "no folder" / "x.engine", KEY, PAYLOAD, FACTS)
    link = tmp_path / "link.engine"  # a person's link is fine
    write_artefact(tmp_path / "x.engine", KEY, PAYLOAD, FACTS)
    link.symlink_to("x.engine")
    assert read_artefact(link, KEY).payload == PAYLOAD


def test_a_link_in_its_place_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    cache, build = EngineCache(tmp_path / "cache"), Builds()
    cache.folder.mkdir()
    target = tmp_path / "target"
    write_artefact(target, KEY, b"somebody else's", {})
    before = target.read_bytes()
    cache.path(KEY).symlink_to(target)
    found = cache.get_or_build(KEY, build)
    assert found.payload == PAYLOAD
    assert "is a link or no file" in found.note
    assert not cache.path(KEY).is_symlink()
    assert target.read_bytes() == before
    assert not cache.get_or_build(KEY, build).built


def test_a_folder_in_its_place_is_left_alone(tmp_path: Path) -> None:
    cache, build = EngineCache(tmp_path), Builds()
    (cache.path(KEY) / "precious").mkdir(parents=True)
    found = cache.get_or_build(KEY, build)
    assert found.payload == PAYLOAD
    assert found.note.startswith("not kept, so it is built again next time: cannot write ")
    assert found.note.endswith("; remove that folder")
    assert (cache.path(KEY) / "precious").is_dir()
    assert _left(tmp_path) == [cache.path(KEY).name]


def test_a_folder_that_cannot_be_made_stops_no_build(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache, build = EngineCache(tmp_path / "file" / "engines"), Builds()
    found = cache.get_or_build(KEY, build)
    assert (found.payload, found.facts, found.built) == (PAYLOAD, FACTS, True)
    assert found.note.startswith("not kept, so it is built again next time: ")
    assert found.note.endswith("; make room or make it writable")
    assert str(cache.folder) in found.note
    assert "\n" not in found.note
    assert cache.entries() == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_stops_no_build(small_disk: Path) -> None:
    cache, build = EngineCache(small_disk), Builds(bytes(200_000))
    found = cache.get_or_build(KEY, build)
    assert len(found.payload) == 200_000
    assert "cannot write" in found.note
    assert "No space left on device" in found.note
    assert "make room" in found.note
    assert _left(small_disk) == []
    small = EngineCache(small_disk).get_or_build(KEY, Builds())
    assert (small.built, small.note) == (True, "")


def test_the_folder_is_made_when_something_is_written(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "a" / "b")
    assert cache.entries() == ()
    assert not cache.folder.exists()
    cache.get_or_build(KEY, Builds())
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert EngineCache().folder == Path.home() / ".cache" / "pix2live" / "engines"


def test_without_a_home_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run as a user that the system does not know."""
    pwd = pytest.importorskip("pwd", reason="users as POSIX has them")

    def unknown(number: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(RuntimeError):
        Path.home()
    cache, build = EngineCache(), Builds()
    for _ in range(2):
        found = cache.get_or_build(KEY, build)
        assert (found.payload, found.built) == (PAYLOAD, True)
        assert found.note == (
            "not kept, so it is built again next time: there is no home folder for it, set HOME"
        )
    assert build.count == 2
    assert cache.get(KEY) is None
    assert cache.entries() == cache.remove_oldest(0) == ()
    with pytest.raises(OSError, match=re.escape(str(cache.folder.parent))):
        cache.folder.mkdir(parents=True)  # whoever keeps something beside the engines


def test_get_builds_nothing(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "a")
    assert cache.get(KEY) is None
    assert not cache.folder.exists()
    cache.get_or_build(KEY, Builds())
    found = cache.get(KEY)
    assert found is not None
    assert (found.payload, found.built) == (PAYLOAD, False)
    cache.path(KEY).write_bytes(b"damaged")
    assert cache.get(KEY) is None


def test_facts_are_the_same_new_and_kept(tmp_path: Path) -> None:
    """What JSON has no word for, such as a tuple, does not change at the second start."""
    cache = EngineCache(tmp_path)
    new, kept = (cache.get_or_build(KEY, lambda: (b"x", {"sizes": (1, 2)})) for _ in range(2))
    assert new.facts == kept.facts == {"sizes": [1, 2]}


@pytest.mark.parametrize("error", [KeyboardInterrupt, EngineError("no GPU")])
def test_a_build_that_fails_leaves_nothing_and_frees_the_lock(error: Any, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)

    def failing() -> tuple[bytes, dict[str, Any]]:
        raise error

    with pytest.raises((KeyboardInterrupt, EngineError)):
        cache.get_or_build(KEY, failing)
    assert _left(tmp_path) == []
    with ThreadPoolExecutor(1) as pool:  # another thread: a lock that is held would stop it
        assert pool.submit(cache.get_or_build, KEY, Builds()).result(30).built


def test_threads_build_once(tmp_path: Path) -> None:
    count, together = 8, threading.Barrier(8)
    build = Builds()

    def slow() -> tuple[bytes, dict[str, Any]]:
        time.sleep(0.2)  # long enough for the others to come
        return build()

    def ask() -> Artefact:
        together.wait(30)
        return EngineCache(tmp_path).get_or_build(KEY, slow)

    with ThreadPoolExecutor(count) as pool:
        found = [future.result(60) for future in [pool.submit(ask) for _ in range(count)]]
    assert build.count == 1
    assert sum(item.built for item in found) == 1
    assert {item.payload for item in found} == {PAYLOAD}


CHILD = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from test_cache import KEY, EngineCache
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])

def build():
    with (folder / "builds.txt").open("a") as file:
        file.write("built\\n")
    time.sleep(seconds)
    return b"from a child", {}

print("ready", flush=True)
sys.stdin.readline()
print(EngineCache(folder).get_or_build(KEY, build).built)
"""


def _child(folder: Path, seconds: float) -> subprocess.Popen[str]:
    here = [str(ROOT), str(Path(__file__).parent)]
    command = [sys.executable, "-c", CHILD, str(folder), str(seconds), *here]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_processes_build_once(tmp_path: Path) -> None:
    children = [_child(tmp_path, 0.5) for _ in range(2)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=60) for child in children]
    assert sorted(out for out, _ in said) == ["False\n", "True\n"], said
    assert (tmp_path / "builds.txt").read_text() == "built\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_builder_locks_nobody_out(number: signal.Signals, tmp_path: Path) -> None:
    child = _child(tmp_path, 60)
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    for _ in range(3000):  # until it builds: it holds the lock then
        if (tmp_path / "builds.txt").exists():
            break
        time.sleep(0.01)
    child.send_signal(number)
    child.communicate(timeout=30)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(EngineCache(tmp_path).get_or_build, KEY, Builds()).result(30)
    assert found.built
    assert _left(tmp_path) == sorted([EngineCache(tmp_path).path(KEY).name, "builds.txt"])


def test_old_leftovers_are_removed_and_young_ones_are_not(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    old, young = (tmp_path / f".{x}.engine.1.2.part" for x in ("old", "young"))
    other = tmp_path / "notes.txt"
    for path in (old, young, other):
        path.write_bytes(b"half")
    day_s = 24 * 60 * 60
    now_s = other.stat().st_mtime
    for path, age_s in ((old, day_s + 60), (young, day_s - 60), (other, 10 * day_s)):
        os.utime(path, (now_s - age_s, now_s - age_s))
    cache.get_or_build(KEY, Builds())
    assert not old.exists()
    assert young.exists()
    assert other.exists()


def _key(number: int) -> ArtefactKey:
    return dataclasses.replace(KEY, options=str(number))


def test_the_engines_used_longest_ago_go_first(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    for number in range(4):
        cache.get_or_build(_key(number), Builds())
        os.utime(cache.path(_key(number)), (1000 + number, 1000 + number))
    cache.get_or_build(_key(0), Builds())  # used again
    entries = cache.entries()
    assert [entry.key for entry in entries] == [_key(0), _key(3), _key(2), _key(1)]
    size_bytes = entries[0].path.stat().st_size
    assert {entry.size_bytes for entry in entries} == {size_bytes}
    assert cache.remove_oldest(4 * size_bytes) == ()
    removed = cache.remove_oldest(2 * size_bytes)
    assert removed == (cache.path(_key(2)), cache.path(_key(1)))
    assert [entry.key for entry in cache.entries()] == [_key(0), _key(3)]


def test_what_a_backend_keeps_beside_an_engine_goes_with_it(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    for number in range(2):
        cache.get_or_build(_key(number), Builds())
        os.utime(cache.path(_key(number)), (1000 + number, 1000 + number))
        cache.path(_key(number)).with_suffix(".kernels").write_bytes(bytes(5000))
    timings = tmp_path / "kernels.timings"
    timings.write_bytes(b"of all engines")
    engine_bytes = cache.path(_key(0)).stat().st_size
    assert [entry.size_bytes for entry in cache.entries()] == [engine_bytes + 5000] * 2
    cache.remove_oldest(2 * engine_bytes + 5000)
    kept = cache.path(_key(1))
    assert _left(tmp_path) == sorted([kept.name, kept.with_suffix(".kernels").name, timings.name])


def test_a_full_cache_keeps_what_was_just_built(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_bytes=100)
    for number in range(3):
        assert cache.get_or_build(_key(number), Builds()).built
        os.utime(cache.path(_key(number)), (1000 + number, 1000 + number))
        assert [entry.key for entry in cache.entries()] == [_key(number)]


def test_what_cannot_be_read_is_listed_too(tmp_path: Path) -> None:
    """It takes room: whoever tidies up must see it."""
    (tmp_path / "broken.engine").write_bytes(b"nothing")
    (entry,) = EngineCache(tmp_path).entries()
    assert (entry.path.name, entry.size_bytes, entry.key) == ("broken.engine", 7, None)
