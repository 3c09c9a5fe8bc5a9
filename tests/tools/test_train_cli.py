"""The command line of `pix2live train`."""

import importlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tools.train.cli import RECIPES
from tools.train.cli import train as command

ROOT = Path(__file__).parents[2]
ASSETS = ROOT.parent / "shared" / "assets"
CLASSES = {"style": "Style", "paired": "Paired", "unpaired": "Unpaired", "mask": "Mask"}


def needs_training() -> None:
    for name in ("torch", "lightning_fabric", "onnxscript"):
        pytest.importorskip(name, reason=f"training needs {name}; install pix2live[train]")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from tools.train.cli import train;"
        " done = [CliRunner().invoke(train, [*words, '--help']).output for words in"
        " ([], ['style'], ['paired'], ['unpaired'], ['mask'])];"
        " assert 'torch' not in sys.modules; print(*done)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for word in (*RECIPES, "--resume", "--export", "[default: 6000]", "--feature-matching", "--a"):
        assert word in done.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_options_and_presets_are_settings(name: str) -> None:
    needs_training()
    commands = importlib.import_module(f"tools.train.{RECIPES[name][0]}")
    found = importlib.import_module(f"tools.train.{name}")
    settings = getattr(found, f"{CLASSES[name]}Settings")
    known = {item.name for item in fields(settings)}
    given: click.Command = getattr(commands, name)
    assert {item.name for item in given.params} - {"preset"} <= known
    presets = getattr(commands, f"{name.upper()}_PRESETS")
    assert set(presets) == {"tiny", "default", "quality"}
    for preset in presets.values():
        assert set(preset) <= known
    base = {item.name: item.default for item in fields(settings)}
    for option in given.params:
        if not isinstance(option, click.Option) or option.name == "preset" or option.is_flag:
            usual = base.get(option.name or "") if option.secondary_opts else None
            shown = option.opts[0] if usual else (option.secondary_opts or [""])[0]
        else:
            usual = presets["default"].get(option.name or "", base[option.name or ""])
            shown = f"{usual:g}" if isinstance(usual, (int, float)) else str(usual)
        if isinstance(usual, (int, float)) or (isinstance(usual, str) and usual):
            assert f"[default: {shown}]" in (option.help or ""), option.name


@pytest.mark.parametrize("name", ["style", "paired", "unpaired"])
def test_presets_fit_together(name: str) -> None:
    needs_training()
    from tools.train.generators import build_generator, check_crop

    commands = importlib.import_module("tools.train.commands")
    recipe = importlib.import_module(f"tools.train.{name}")
    settings = getattr(recipe, f"{CLASSES[name]}Settings")
    base = {item.name: item.default for item in fields(settings)}
    for preset in getattr(commands, f"{name.upper()}_PRESETS").values():
        chosen = {**base, **preset}
        check_crop(build_generator(chosen["generator"]), chosen["crop_px"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["style", "--out", "x"], "Missing option '--content'"),
        (["style", "--content", "nowhere", "--style", "y", "--out", "x"], "does not exist"),
        (["painting"], "No such command 'painting'"),
    ],
)
def test_wrong_words_are_named(words: list[str], reason: str) -> None:
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 2
    assert reason in done.output


def test_style_from_the_words_to_the_filter(tmp_path: Path) -> None:
    needs_training()
    photos = ASSETS / "photos" / "clean" / "skimage"
    painting = ASSETS / "paintings" / "udnie_picabia_1913.jpg"
    features = ASSETS / "features" / "vgg_normalised_conv3_1.pth"
    for path in (photos, painting, features):
        if not path.exists():
            pytest.skip(f"no {path}")
    from engines import FrameModel

    words = ["style", "--preset", "tiny", "--steps", "3", "--crop", "64", "--batch", "1"]
    words += ["--imitate", "2"]
    words += ["--content", str(photos), "--style", str(painting), "--features", str(features)]
    words += ["--style-size", "128", "--out", str(tmp_path / "udnie"), "--domains", "photo -> oil"]
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    path = tmp_path / "udnie" / "udnie.onnx"
    said = " ".join(done.output.split())
    assert "pix2live run --filter" in said
    assert "training on" in said
    card = FrameModel.read(path).card
    assert (card.name, card.task, card.domains) == ("udnie", "style", "photo -> oil")
    assert card.architecture == "QuarterNet, 32 channels, 2 blocks"
    assert card.training.startswith("3 steps, 90% of them with 4 crops of 32 pixels of 2 photo")
    assert "--preset tiny --out udnie" in card.command
    assert str(ASSETS) not in card.training  # a home is nobody's business
    assert "openvino/f32" in card.proofs
    assert (tmp_path / "udnie" / "sheet-000003.png").exists()
    from engines.errors import SettingsError

    with pytest.raises(SettingsError, match="checkpoint already"):
        CliRunner().invoke(command, words, catch_exceptions=False)
    changed = [word if word != "128" else "256" for word in words]
    with pytest.raises(SettingsError, match="--style-size was 128, is 256"):
        CliRunner().invoke(command, [*changed, "--resume"], catch_exceptions=False)
