"""The documents: every command parses with the real options, every link leads somewhere."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from engines import open_engine
from engines.backends.identity import IdentityEngine
from realtime import Pipeline
from realtime.sources.pictures import list_pictures, read_picture
from tools.cli import COMMANDS, cli

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "docs" / "recipes").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"\s*(?:\.venv/bin/)?(?:pix2live|python) ")
SHELL = ("sh", "bash", "")


def blocks(text: str, languages: Sequence[str]) -> list[str]:
    """The code blocks of these languages; indented ones have none."""
    fenced = [code for language, code in FENCED.findall(text) if language in languages]
    return [*fenced, *(INDENTED.findall(FENCED.sub("", text)) if "" in languages else ())]


def commands(path: Path) -> Iterator[list[str]]:
    """The words of every pix2live and python command; lines that end with a backslash go on."""
    for block in blocks(path.read_text(encoding="utf-8"), SHELL):
        for line in block.replace("\\\n", " ").splitlines():
            if COMMAND.match(line):
                program, *words = shlex.split(line, comments=True)
                yield [Path(program).name, *words]


def commands_of(paths: Sequence[Path]) -> list[Any]:
    return [
        pytest.param(words[1:], id=f"{path.name}: {' '.join(words[:4])}")
        for path in paths
        for words in commands(path)
        if words[0] == "pix2live"
    ]


def parse(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> click.Context:
    """Parse as the command does, without running it; files need not be there."""
    command: click.Command = cli
    context = click.Context(cli, info_name="pix2live")
    rest = list(words)
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, f"no command {rest}"
        command, context = found, click.Context(found, info_name=name, parent=context)
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            monkeypatch.setattr(parameter.type, "exists", False)
    assert context.parent is not None
    return command.make_context(context.info_name, rest, parent=context.parent)


@pytest.mark.parametrize("words", commands_of(DOCUMENTS))
def test_commands_parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    parse(words, monkeypatch)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("train style --content a --style b --out c --colour red", "No such option"),
        ("train style --content a --out c", "(?i)missing parameter: style|missing option"),
        ("train paired --out c --steps many", "not a valid integer"),
        ("train unpaired --a a --b b --out c --preset huge", "is not one of"),
        ("train watercolour", "No such command"),
        ("dance", "No such command"),
        ("run film.mp4 --size big", "WIDTHxHEIGHT"),
        ("filters a b", "unexpected extra argument"),
    ],
)
def test_a_command_that_is_none_would_be_found(
    line: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(click.UsageError, match=reason):
        parse(line.split(), monkeypatch)


def test_the_commands_of_a_document_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "Type `pix2live run`:\n\n    pix2live run a.mp4 \\\n        --sink b.mp4   # to a file\n\n"
        "text\n\n```sh\nmake demo\npix2live filters 'a b'\n```\n\n```python\npix2live = 1\n```\n"
    )
    assert sorted(commands(path)) == [
        ["pix2live", "filters", "a b"],
        ["pix2live", "run", "a.mp4", "--sink", "b.mp4"],
    ]


@pytest.mark.parametrize("path", [ROOT / "docs" / "train.md", *RECIPES], ids=lambda p: p.name)
def test_recipes_have_commands(path: Path) -> None:
    found = [words[1] for words in commands(path) if words[0] == "pix2live"]
    assert found, "a recipe is commands that run"
    assert set(found) <= set(COMMANDS)
    if path.parent.name == "recipes" and path.name not in ("README.md", "modality.md"):
        assert {"train", "evaluate"} <= set(found), "what to run, and how to judge it"


def test_every_recipe_is_in_the_index() -> None:
    index = (ROOT / "docs" / "recipes" / "README.md").read_text(encoding="utf-8")
    assert set(LINK.findall(index)) >= {p.name for p in RECIPES} - {"README.md"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(FENCED.sub("", path.read_text(encoding="utf-8"))):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_programs_that_recipes_run_are_there(path: Path) -> None:
    for words in commands(path):
        if words[0] == "python":
            assert (ROOT / words[1]).is_file(), words


def program(path: Path) -> str:
    (code,) = blocks(path.read_text(encoding="utf-8"), ("python",))
    return code


def record(folder: str, size: str) -> None:
    """Two frames of a test pattern as PNGs."""
    Pipeline(
        f"test-pattern:{size}@30", IdentityEngine(None), [folder], mode="every", frames=2
    ).run()


def test_the_program_for_edges_of_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of edges.md as it stands, with a shipped filter and a clip."""
    monkeypatch.chdir(tmp_path)
    record("clip/", "100x76")
    code = program(ROOT / "docs" / "recipes" / "edges.md")
    for theirs, ours in (
        ('Pipeline("0"', 'Pipeline("clip"'),
        ("edges2photo/edges2photo.onnx", "comic"),
        ('["window"], size=(640, 360)', '["out/"], size=(101, 77), mode="every"'),
    ):
        assert code.count(theirs) == 1
        code = code.replace(theirs, ours)
    exec(compile(code, "edges.md", "exec"), {})
    found, frames = (
        [read_picture(path) for path in list_pictures(tmp_path / name)] for name in ("out", "clip")
    )
    edges = runpy.run_path(str(ROOT / "examples" / "edge_pairs.py"))["edges"]
    assert len(found) == len(frames) == 2
    with open_engine("comic", (100, 76)) as engine:
        for picture, frame in zip(found, frames, strict=True):
            wanted = engine.infer(edges(frame))  # as for the training: the same edges
            assert abs(picture.astype(int) - wanted).max() <= 1


def test_the_program_that_crops_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record("frames/", "640x360")
    exec(compile(program(ROOT / "docs" / "recipes" / "face.md"), "face.md", "exec"), {})
    faces = list_pictures(tmp_path / "faces")
    assert [read_picture(path).shape for path in faces] == [(260, 220, 3)] * 2
