"""Thumbnails of the gallery: every shipped filter, broken ones, many who ask at once."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines import FrameModel, Pixels, filter_names, load_filter
from realtime.web import thumbnails
from realtime.web.thumbnails import (
    SIZE,
    WORKING_SIZE,
    Thumbnails,
    draw_placeholder,
    draw_scene,
    encode_thumbnail,
    make_thumbnail,
)


def decoded(jpeg: bytes) -> Pixels:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[1::-1] == SIZE
    return np.asarray(picture, np.uint8)


def broken_filter(folder: Path) -> FrameModel:
    """Return a filter whose file is gone since it was read."""
    path = folder / "gone.onnx"
    shutil.copy(load_filter("comic").path, path)
    model = FrameModel.read(path)
    path.unlink()
    return model


def test_the_scene_is_the_same_each_time_and_has_what_filters_differ_in() -> None:
    scene = draw_scene()
    assert scene.shape == (*WORKING_SIZE[::-1], 3)
    assert scene.dtype == np.uint8
    assert scene.flags.c_contiguous
    assert not scene.flags.writeable, "shared"
    assert np.array_equal(scene, draw_scene.__wrapped__())
    grey = cv2.cvtColor(scene, cv2.COLOR_BGR2GRAY)
    assert np.percentile(grey, 1) < 70
    assert np.percentile(grey, 99) > 220
    hue, saturation, _ = cv2.split(cv2.cvtColor(scene, cv2.COLOR_BGR2HSV))
    vivid = hue[saturation > 100]
    for name, low, high in (("red and yellow", 0, 30), ("green", 35, 85), ("blue", 95, 125)):
        assert np.mean((vivid >= low) & (vivid <= high)) > 0.05, name


def test_every_shipped_filter_has_a_thumbnail_of_its_own() -> None:
    pictures = {name: decoded(make_thumbnail(name, load_filter(name))) for name in filter_names()}
    pictures["none"] = decoded(encode_thumbnail(draw_scene()))
    for name, picture in pictures.items():
        assert picture.std() > 20, f"{name} shows nothing"
    for (one, first), (other, second) in combinations(pictures.items(), 2):
        apart = np.abs(first.astype(int) - second).mean()
        assert apart > 5, f"{one} and {other} look alike ({apart:.1f} of 255)"


def test_a_broken_filter_is_a_placeholder_and_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Thumbnails({"gone": broken_filter(tmp_path)})

    async def ask() -> list[bytes]:
        return [await made.jpeg("gone"), await made.jpeg("gone")]

    with caplog.at_level(logging.WARNING, "pix2live.web"):
        first, second = asyncio.run(ask())
    assert first == second == encode_thumbnail(draw_placeholder("gone"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].startswith("no thumbnail of gone: ")
    assert "cannot read" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]


@pytest.mark.parametrize("name", ["x", "comic", "a" * 200, "Übermut 猫", "\n\x1b[31m", ""])
def test_a_placeholder_has_room_for_every_name(name: str) -> None:
    picture = draw_placeholder(name)
    assert picture.shape == (*WORKING_SIZE[::-1], 3)
    text = (picture > 180).all(axis=2)
    assert text.any(), "white on grey"
    assert not text[:, :16].any(), "it stays inside of the frame"
    assert not text[:, -16:].any()
    decoded(encode_thumbnail(picture))


def test_a_filter_of_one_size_is_squeezed_into_it(tmp_path: Path) -> None:
    import onnx
    from masking import write_mask_model

    from engines import Card, write_frame_model

    path = write_mask_model(tmp_path / "free.onnx", alpha=False)
    proto = onnx.load(str(path))
    for value in (*proto.graph.input, *proto.graph.output):
        for dim, side in zip(value.type.tensor_type.shape.dim[1:3], (64, 64), strict=True):
            dim.Clear()
            dim.dim_value = side
    write_frame_model(proto, Card("fixed"), tmp_path / "fixed.onnx")
    model = FrameModel.read(tmp_path / "fixed.onnx")
    assert model.fixed_size == (64, 64)
    negative = decoded(make_thumbnail("fixed", model))
    scene = decoded(encode_thumbnail(draw_scene()))
    assert np.abs(255 - negative.astype(int) - scene).mean() < 12, "the whole scene, not a part"


def test_many_who_ask_at_once_share_one_picture_and_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy, most, made = 0, 0, []
    lock = threading.Lock()
    real: Callable[[str, FrameModel], bytes] = make_thumbnail

    def count(name: str, model: FrameModel) -> bytes:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
            made.append(name)
        try:
            return real(name, model)
        finally:
            with lock:
                busy -= 1

    monkeypatch.setattr(thumbnails, "make_thumbnail", count)
    names = ["comic", "pencil", "wave"]
    shared = Thumbnails({name: load_filter(name) for name in names})

    async def ask() -> list[bytes]:
        leaving = asyncio.create_task(shared.jpeg("comic"))
        await asyncio.sleep(0)
        asked = [asyncio.create_task(shared.jpeg(name)) for name in names * 5]
        await asyncio.sleep(0)
        leaving.cancel()  # the others wait for the same picture
        found = await asyncio.gather(*asked)
        assert leaving.cancelled()
        return found

    found = asyncio.run(ask())
    assert sorted(made) == sorted(names), "each once"
    assert most == 1, "one at a time"
    assert found[:3] * 5 == found
    assert len(set(found)) == 3


def test_the_threads_of_the_loop_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """They encode and decode video."""
    threads: list[str] = []

    def name_thread(name: str, model: FrameModel) -> bytes:
        threads.append(threading.current_thread().name)
        return b""

    monkeypatch.setattr(thumbnails, "make_thumbnail", name_thread)

    async def ask() -> None:
        asyncio.get_running_loop().set_default_executor(executor := ThreadPoolExecutor(1))
        executor.submit(released.wait)
        try:
            made = Thumbnails({"comic": load_filter("comic")})
            await asyncio.wait_for(made.jpeg("comic"), 20.0)
        finally:
            released.set()

    released = threading.Event()
    asyncio.run(ask())
    assert len(threads) == 1
    assert not any(one.name in threads for one in threading.enumerate()), "it ends"


def test_an_unknown_filter_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        asyncio.run(Thumbnails({}).jpeg("nothing"))
