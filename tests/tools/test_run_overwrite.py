"""`pix2live run` into a file that exists: refused at once, replaced only when asked and whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import tools.run
from engines import Pix2liveError, SettingsError, SinkError
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.sinks import CallableSink, NullSink
from tools import demo
from tools.run import Settings, make_pipeline, run

SOURCE = "test-pattern:64x48@30"
OLD = b"an older recording"
WORDS = ["--backend", "identity", "--frames", "3", "--mode", "every"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.mp4"
    path.write_bytes(OLD)
    return path


def settings(*sinks: object, **changed: Any) -> Settings:
    values = {
        "source": SOURCE,
        "filter": "comic",
        "backend": "identity",
        "frames": 3,
        "mode": "every",
    }
    values |= changed
    return Settings(sinks=tuple(map(str, sinks)), **values)


def frames(path: Path) -> int:
    return Pipeline(path, IdentityEngine(None), ["null"]).run().engine_out.count


@pytest.mark.parametrize("backend", ["identity", "auto"])
def test_a_recording_that_exists_is_refused_and_kept(
    backend: str, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("a frame was read, or an engine compiled")

    monkeypatch.setattr(Pipeline, "start", opened)
    words = ["--sink", str(old.parent / "new.mp4"), "--sink", str(old), "--backend", backend]
    result = CliRunner().invoke(run, [SOURCE, *words, "--frames", "3"])
    assert isinstance(result.exception, SinkError), result.exception
    assert str(result.exception) == f"{old} exists already; --overwrite replaces what is there"
    assert old.read_bytes() == OLD
    assert list(old.parent.iterdir()) == [old]


def test_all_that_exist_are_counted(old: Path, tmp_path: Path) -> None:
    (tmp_path / "too.mkv").write_bytes(OLD)
    with pytest.raises(SinkError, match=r"old.mp4 and 1 more exist already; --overwrite"):
        make_pipeline(settings(old, tmp_path / "too.mkv"))


def test_a_file_that_appears_during_the_run_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "new.mp4"
    appear = CallableSink(lambda _: path.exists() or path.write_bytes(OLD))
    asked = settings(path, source="test-pattern:64x48@120", frames=40)
    # No queue holds 40 frames: the recording cannot have ended when the other sink had the first.
    with pytest.raises(SinkError, match=r"new.mp4 has appeared since .* rename it"):
        make_pipeline(asked, [appear]).run()
    assert path.read_bytes() == OLD
    (part,) = tmp_path.glob(".new.part*.mp4")
    assert frames(part) == 40


def test_a_sink_that_appends_is_not_refused(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Appends(NullSink):
        path = old
        frames: Any = np.zeros(3)  # the name means nothing to the run

    made = Appends()
    monkeypatch.setattr(tools.run, "open_sink", lambda _: made)
    result = CliRunner().invoke(run, [SOURCE, "--sink", "x", *WORDS])
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert f"written: {old}" in result.output.replace("\n", "")


def test_pictures_in_a_folder_stay_even_then(tmp_path: Path) -> None:
    (tmp_path / "000001.png").write_bytes(OLD)
    result = CliRunner().invoke(run, [SOURCE, "--sink", f"{tmp_path}/", *WORDS, "--overwrite"])
    assert isinstance(result.exception, SinkError), result.exception
    assert "has numbered pictures already" in str(result.exception)
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [OLD]


def test_a_folder_that_got_nothing_is_not_said_to_be_written(tmp_path: Path) -> None:
    (tmp_path / "note.txt").touch()  # so that the folder stays
    words = ["--sink", f"{tmp_path}/", "--backend", "identity", "--max-age", "0.000001"]
    result = CliRunner().invoke(run, [SOURCE, *words, "--seconds", "0.3"])
    assert result.exit_code == 0, result.output
    assert f"no frame came to: {tmp_path}" in result.output.replace("\n", "")


def test_the_statistics_replace_older_ones_and_no_other_file(old: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(old)
    for path in (old, link):
        result = CliRunner().invoke(run, [SOURCE, "--sink", "null", *WORDS, "--stats", str(path)])
        assert isinstance(result.exception, SinkError), result.exception
        assert str(result.exception).startswith(f"{path} exists already and is no .json; --overw")
    assert old.read_bytes() == OLD
    for name, more in (
        ("new.txt", []),
        ("a.JSON", []),
        ("a.JSON", []),
        ("old.mp4", ["--overwrite"]),
    ):
        path = tmp_path / name
        words = [SOURCE, "--sink", "null", *WORDS, "--stats", str(path), *more]
        result = CliRunner().invoke(run, words)
        assert result.exit_code == 0, result.output + repr(result.exception)
        assert json.loads(path.read_text())["sinks"][0]["age"]["frames"] == 3


def test_overwrite_replaces_it_when_the_new_one_is_complete(old: Path) -> None:
    during: list[bytes] = []
    look = CallableSink(lambda _: during.append(old.read_bytes()))
    asked = settings(old, source="test-pattern:64x48@120", frames=40, overwrite=True)
    make_pipeline(asked, [look]).run()
    # No queue holds 40 frames: the recording cannot have ended when the other sink had the first.
    assert during[0] == OLD
    assert frames(old) == 40
    assert list(old.parent.iterdir()) == [old]


def test_the_command_has_the_option(old: Path) -> None:
    words = ["--sink", str(old), "--backend", "identity", "--frames", "3", "--mode", "every"]
    result = CliRunner().invoke(run, [SOURCE, *words, "--overwrite"])
    assert result.exit_code == 0, result.output
    assert f"written: {old}" in result.output.replace("\n", "")
    assert frames(old) == 3


def test_a_run_without_frames_keeps_the_old_one_and_says_so(old: Path) -> None:
    words = ["--sink", str(old), "--backend", "identity", "--max-age", "0.000001"]
    result = CliRunner().invoke(run, [SOURCE, *words, "--seconds", "0.3", "--overwrite"])
    assert result.exit_code == 0, result.output
    assert f"no frame came to: {old}" in result.output.replace("\n", "")
    assert old.read_bytes() == OLD


def test_the_source_is_refused_as_the_source(old: Path) -> None:
    """--overwrite would not help: nobody is told to give it."""
    for overwrite in (False, True):
        with pytest.raises(SettingsError, match="is the source; write to another file"):
            make_pipeline(settings(old, source=str(old), overwrite=overwrite))
    assert old.read_bytes() == OLD


def test_a_link_is_what_it_leads_to(old: Path, tmp_path: Path) -> None:
    link, nowhere = tmp_path / "link.mp4", tmp_path / "nowhere.mp4"
    link.symlink_to(old)
    nowhere.symlink_to(tmp_path / "new.mp4")
    with pytest.raises(SinkError, match=r"link.mp4 exists already"):
        make_pipeline(settings(link))
    make_pipeline(settings(nowhere)).run()
    assert frames(tmp_path / "new.mp4") == 3


def test_what_is_no_ordinary_file_is_the_sinks_to_judge(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "pictures").mkdir()
    pipeline = make_pipeline(settings(tmp_path / "pipe.mp4", tmp_path / "pictures", "null"))
    assert len(pipeline.sinks) == 3


def test_a_program_replaces_unasked_as_before(old: Path) -> None:
    Pipeline(SOURCE, IdentityEngine(None), [old], mode="every", frames=3).run()
    assert frames(old) == 3


def test_the_demo_replaces_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "choose_source", lambda: (SOURCE, "made frames"))
    monkeypatch.setattr(demo, "why_no_window", lambda: "no screen")
    (tmp_path / "demo.mp4").write_bytes(OLD)
    asked = []

    def ran(pipeline: Pipeline, console: object, settings: Settings) -> int:
        asked.append(settings.sinks)
        pipeline.run()
        return 0

    monkeypatch.setattr(demo, "run_pipeline", ran)
    words = ["--seconds", "0.5", "--out", str(tmp_path)]
    result = CliRunner().invoke(demo.demo, words)
    assert not isinstance(result.exception, Pix2liveError), result.exception
    assert asked == [(str(tmp_path / "demo.mp4"),)]
    assert frames(tmp_path / "demo.mp4") > 0
