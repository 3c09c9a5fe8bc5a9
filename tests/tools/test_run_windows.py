"""`run --window` and `--out-window`: 16-bit grey in and out, as people type it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines import SettingsError
from realtime.sources.levels import Window
from realtime.sources.pictures import write_picture
from tools.run import Settings, make_pipeline

ROOT = Path(__file__).parent.parent.parent
LEVELS = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools", "run", *words, "--backend", "identity"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    write_picture(tmp_path / "in" / "a.png", LEVELS)
    return tmp_path


def test_from_folder_to_folder_within_half_a_step(folder: Path) -> None:
    windows = ["--window", "0:4095", "--out-window", "0:4095"]
    done = run("in", *windows, "--sink", "out/", "--stats", "s.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    back = cv2.imread(str(folder / "out" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert back is not None
    assert back.dtype == np.uint16
    assert np.abs(back.astype(int) - LEVELS).max() == 3
    assert "window 0:4095 (as asked), 766 levels, one every 5.35" in done.stderr
    assert "16-bit grey, window 0:4095" in done.stderr
    settings = json.loads((folder / "s.json").read_text())["settings"]
    assert settings["window"] == settings["out_window"] == {"low": 0, "high": 4095}


@pytest.mark.parametrize("text", ["9:1", "black:white", "5"])
def test_what_is_no_window_is_wrong_usage(folder: Path, text: str) -> None:
    done = run("in", "--window", text, "--sink", "out/", cwd=folder)
    assert done.returncode == 2
    assert "a window is LOW:HIGH" in done.stderr
    assert not (folder / "out").exists()


def test_a_negative_level_is_no_option(folder: Path) -> None:
    done = run("in", "--window", "-100:100", "--sink", "out/", "--out-window", "-5:5", cwd=folder)
    assert done.returncode == 1
    assert "a 16-bit PNG holds levels from 0 to 65535, found the window -5:5" in done.stderr
    assert not (folder / "out").exists()


def test_a_window_that_nobody_can_use_is_refused(folder: Path) -> None:
    window = Window(0, 1)
    settings = Settings("test-pattern", "comic", ("null",), backend="identity", window=window)
    with pytest.raises(SettingsError, match="--window is for pictures and folders of pictures"):
        make_pipeline(settings)
    settings = Settings(str(folder / "in"), "comic", ("null",), out_window=window)
    with pytest.raises(SettingsError, match="--out-window is for sinks that are folders"):
        make_pipeline(settings)
