"""The recipes: they learn, have the terms that were asked for, and go on to the same numbers."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; install pix2live[train]")
pytest.importorskip("lightning_fabric", reason="training needs lightning-fabric")

import torch
from torch import Tensor, nn

from engines.errors import SettingsError
from tools.train import style as style_recipe
from tools.train.checkpoint import Checkpoint
from tools.train.curves import read_curves
from tools.train.devices import make_fabric
from tools.train.loop import fit
from tools.train.paired import Paired, PairedSettings
from tools.train.pairs import Picture
from tools.train.recipe import Recipe, translate
from tools.train.style import Style, StyleSettings
from tools.train.unpaired import Unpaired, UnpairedSettings

Make = Callable[..., Recipe]
VGG_CHANNELS = (3, 64, 64, 128, 128, 256)
VGG_LAYERS = (0, 2, 5, 7, 10)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Others compute on this machine too, and sums of one thread are the same each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shapes(number: int, side_px: int = 64) -> Picture:
    random = np.random.default_rng(number)
    picture = np.full((side_px, side_px, 3), random.integers(60, 200, 3), np.uint8)
    for _ in range(8):
        centre = tuple(int(value) for value in random.integers(0, side_px, 2))
        colour = [int(value) for value in random.integers(20, 236, 3)]
        cv2.circle(picture, centre, int(random.integers(4, side_px // 4)), colour, -1, cv2.LINE_AA)
    return picture


def darker(picture: Picture) -> Picture:
    return np.ascontiguousarray(picture[..., ::-1] // 2)


def write(folder: Path, pictures: list[Picture]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, darker targets, large ones of both, stripes to paint like, and a feature net."""
    folder = tmp_path_factory.mktemp("data")
    for name, side_px in (("", 64), ("large-", 256)):
        pictures = [shapes(number, side_px) for number in range(6)]
        write(folder / f"{name}input", pictures)
        write(folder / f"{name}target", [darker(picture) for picture in pictures])
    rows, columns = np.mgrid[:96, :96]
    stripes = np.where((rows + columns) // 6 % 2, 200, 40)
    cv2.imwrite(str(folder / "style.png"), np.dstack([stripes, 0.4 * stripes, 240 - stripes]))
    random = torch.Generator().manual_seed(3)
    tensors = {}
    for layer, inner, made in zip(VGG_LAYERS, VGG_CHANNELS, VGG_CHANNELS[1:]):
        shape = (made, inner, 3, 3)
        deviation = (2 / (9 * inner)) ** 0.5
        tensors[f"features.{layer}.weight"] = deviation * torch.randn(shape, generator=random)
        tensors[f"features.{layer}.bias"] = torch.zeros(made)
    torch.save(tensors, folder / "features.pth")
    return folder


@pytest.fixture
def make(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A recipe by its name; what is not given is small."""
    monkeypatch.setattr(style_recipe, "PAINTED_PX", 64)  # else each takes ten seconds
    monkeypatch.setattr(style_recipe, "MEAN_CROPS", 4)
    runs = 0

    def made(name: str, **changes: Any) -> Recipe:
        nonlocal runs
        runs += 1
        common: dict[str, Any] = {
            "out": tmp_path / f"run{runs}",
            "name": name,
            "generator": "quarter:16x1",
            "steps": 40,
            "batch": 2,
            "crop_px": 32,
            "learning_rate": 3e-3,
            "workers": 0,
            "save_every": 10**6,
            "sheet_every": 10**6,
            "precision": "32-true",
            "accelerator": "cpu",
        }
        kind, make_settings, own = KINDS[name]
        given = {key: data / value for key, value in own.items() if isinstance(value, str)}
        plain = {key: value for key, value in own.items() if not isinstance(value, str)}
        settings = make_settings(**{**common, **given, **plain, **changes})
        settings.check()
        settings.out.mkdir()
        return kind(settings, make_fabric(settings)[0])  # type: ignore[no-any-return]

    return made


KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "paired": (
        Paired,
        PairedSettings,
        {"input": "input", "target": "target", "discriminator_width": 4},
    ),
    "unpaired": (
        Unpaired,
        UnpairedSettings,
        {"a": "input", "b": "target", "discriminator_width": 4, "pool": 3},
    ),
    "style": (
        Style,
        StyleSettings,
        {
            "content": "input",
            "style": "style.png",
            "features": "features.pth",
            "crop_px": 64,
            "style_px": 96,
            "imitate": 0,
        },
    ),
}


def stepped(recipe: Recipe, steps: int = 1) -> dict[str, float]:
    """Prepare, and take some steps by hand; return the losses of the last one."""
    recipe.prepare(lambda *_: None)
    found: dict[str, Tensor] = {}
    for step, batch in zip(range(steps), recipe.batches(0)):
        torch.manual_seed(step)
        found = recipe.learn(batch, step)
    return {name: float(value) for name, value in found.items()}


def of_same(one: Any, other: Any) -> None:
    """Assert that two states are the same to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            of_same(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other):
            of_same(left, right)
    elif isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    else:
        assert one == other


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.equal(one[name], other[name]) for name in one)


# ---- learning ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "term", "share"), [("paired", "l1", 0.6), ("unpaired", "cycle", 0.6)]
)
def test_it_learns(make: Make, name: str, term: str, share: float) -> None:
    recipe = make(name, steps=60)
    fit(recipe)
    values = [line[term] for line in read_curves(recipe.settings.out / "curves.jsonl")]
    assert len(values) == 60
    start = values[0] if name == "paired" else max(values)  # the identity comes back as it was
    assert np.mean(values[-6:]) < share * start
    assert np.isfinite(values).all()


def test_a_paired_filter_is_like_the_target(make: Make) -> None:
    recipe = make("paired", steps=120, adversarial_weight=0.0, learning_rate=5e-3)
    fit(recipe)
    (network,) = recipe.finished().values()
    picture = shapes(100)
    wanted = darker(picture).astype(int)
    found, start = (np.abs(x - wanted).mean() for x in (translate(network, picture), picture))
    assert found < 0.5 * start


def test_unpaired_ships_both_ways(make: Make) -> None:
    recipe = make("unpaired", steps=60)
    fit(recipe)
    finished = recipe.finished()
    assert list(finished) == ["unpaired", "unpaired-back"]
    there, back = (translate(network, shapes(100)).mean() for network in finished.values())
    assert there < shapes(100).mean() < back + 1


@pytest.mark.parametrize(
    ("imitate", "term", "share"),
    # What random features paint is noise for the most part, which nobody can imitate.
    [(0, "style", 0.8), (2, "imitation", 0.93)],
)
def test_style_comes_nearer_with_and_without_imitation(
    make: Make, imitate: int, term: str, share: float
) -> None:
    weights = {"match_weight": 0.0, "style_weight": 1.0}
    off = {"temporal_weight": 0.0, "adversarial_weight": 0.0}
    recipe = make("style", imitate=imitate, **weights, **off)
    fit(recipe)
    lines = read_curves(recipe.settings.out / "curves.jsonl")
    values = [line[term] for line in lines if term in line]
    assert len(values) == len(lines) == 40
    assert np.mean(values[-8:]) < share * np.mean(values[:8])
    assert ("imitation" in lines[0]) == bool(imitate)
    assert "style" in lines[-1]  # at the end the feature net has the last word
    assert "match" not in lines[-1]


# ---- terms -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({}, {"l1", "adversarial", "discriminator"}),
        ({"adversarial_weight": 0.0}, {"l1"}),
        ({"feature_weight": 1.0}, {"l1", "adversarial", "discriminator", "features"}),
    ],
)
def test_paired_has_the_terms_that_are_asked_for(
    make: Make, changes: dict[str, float], terms: set[str]
) -> None:
    recipe = make("paired", **changes)
    assert set(stepped(recipe)) == {"loss", *terms}
    assert ("adversary" in recipe.state()) == ("discriminator" in terms)


@pytest.mark.parametrize("imitate", [0, 1])
def test_the_critic_of_a_style_knows_the_painting(make: Make, imitate: int) -> None:
    recipe = make("style", imitate=imitate, adversarial_weight=0.5)
    found = stepped(recipe)
    assert {"adversarial", "discriminator"} <= set(found)
    assert "adversary" in recipe.state()
    strokes = next(recipe.batches(0))["strokes"]
    painted = next(recipe.batches(0))["given" if imitate else "pictures"]
    assert strokes.shape == painted.shape
    red, blue = strokes[:, 0].int(), strokes[:, 2].int()
    assert ((red + blue - 240).abs() <= 2).all()  # as in the painting, and nowhere else


@pytest.mark.parametrize(("seen", "channels"), [(True, 6), (False, 3)])
def test_the_discriminator_sees_the_condition_unless_it_is_told_not_to(
    make: Make, seen: bool, channels: int
) -> None:
    recipe = make("paired", condition=seen)
    stepped(recipe)
    weights = recipe.state()["adversary"]
    assert next(value for value in weights.values() if value.ndim == 4).shape[1] == channels


def test_the_weights_weigh(make: Make) -> None:
    found = stepped(make("paired", l1_weight=3.0, adversarial_weight=0.5, feature_weight=2.0))
    parts = 3 * found["l1"] + 0.5 * found["adversarial"] + 2 * found["features"]
    assert found["loss"] == pytest.approx(parts, rel=1e-5)
    found = stepped(make("unpaired", cycle_weight=7.0, identity_weight=3.0, temporal_weight=2.0))
    parts = found["adversarial"] + 7 * found["cycle"] + 3 * found["identity"]
    assert found["loss"] == pytest.approx(parts + 2 * found["temporal"], rel=1e-5)
    assert "identity" not in stepped(make("unpaired", identity_weight=0.0))
    assert "temporal" not in stepped(make("unpaired"))


def test_the_temporal_term_comes_late_and_every_other_step(make: Make) -> None:
    recipe = make("style", steps=10)
    fit(recipe)
    lines = read_curves(recipe.settings.out / "curves.jsonl")
    assert [line["step"] for line in lines if "temporal" in line] == [7, 9]
    recipe = make("style", steps=8, temporal_weight=0.0)
    fit(recipe)
    assert not any("temporal" in x for x in read_curves(recipe.settings.out / "curves.jsonl"))


def test_a_crop_that_the_discriminator_cannot_see_is_refused(make: Make) -> None:
    with pytest.raises(SettingsError, match="--crop must give the discriminator"):
        make("paired", scales=3).prepare(lambda *_: None)


# ---- gradients ---------------------------------------------------------------------------------


def test_the_generators_gradient_does_not_reach_the_discriminator(make: Make) -> None:
    """A term of the generator's changes its step, and not that of the discriminator."""
    states = []
    for weight in (0.01, 5.0):
        recipe = make("paired", adversarial_weight=weight, feature_weight=weight)
        stepped(recipe)
        states.append(recipe.state())
    of_same(states[0]["adversary"], states[1]["adversary"])
    assert differ(states[0]["network"], states[1]["network"])
    states = []
    for weight in (10.0, 0.0):
        recipe = make("unpaired", cycle_weight=weight)
        stepped(recipe)
        states.append(recipe.state())
    of_same(states[0]["judges"], states[1]["judges"])
    assert differ(states[0]["networks"]["a_to_b"], states[1]["networks"]["a_to_b"])


def test_the_discriminators_gradient_does_not_reach_the_generator(make: Make) -> None:
    states = []
    for rate in (1e-5, 1e-2):
        recipe = make("unpaired", discriminator_rate=rate)
        stepped(recipe)
        states.append(recipe.state())
    of_same(states[0]["networks"], states[1]["networks"])
    assert differ(states[0]["judges"]["a"], states[1]["judges"]["a"])
    states = []
    for changes in ({"adversarial_weight": 0.0}, {"adversarial_weight": 1e-30}):
        recipe = make("paired", **changes)
        stepped(recipe, 3)
        states.append(recipe.state())
    of_same(states[0]["network"], states[1]["network"])


# ---- going on ----------------------------------------------------------------------------------

RESUMED: dict[str, tuple[str, dict[str, Any]]] = {
    "paired": ("paired", {"scales": 1, "feature_weight": 0.5, "damage": True}),
    "unpaired": ("unpaired", {"temporal_weight": 1.0}),
    "style": ("style", {"imitate": 1}),
    "dropout": (
        "paired",
        {
            "generator": "unet:8x4",
            "crop_px": 256,
            "batch": 1,
            "input": "large-input",
            "target": "large-target",
        },
    ),
}


@pytest.mark.parametrize("case", RESUMED)
def test_it_goes_on_to_the_same_numbers(make: Make, data: Path, case: str) -> None:
    """Weights, optimisers, averages and pools, to the last bit; dropout too, by the loop's seed."""
    name, changes = RESUMED[case]
    changes = {
        key: data / value if key in ("input", "target") else value for key, value in changes.items()
    }
    whole, resumed = (make(name, steps=6, **changes) for _ in range(2))
    learn, kept = whole.learn, io.BytesIO()

    def learned(batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        found = learn(batch, step)
        if step == 2:
            torch.save(whole.state(), kept)
        return found

    whole.learn = learned  # type: ignore[method-assign]
    fit(whole)
    torch.rand(5)  # what others draw meanwhile changes nothing
    state = torch.load(io.BytesIO(kept.getvalue()), weights_only=True)
    fit(resumed, checkpoint=Checkpoint(step=3, recipe=state))
    of_same(whole.state(), resumed.state())
    lines, more = (read_curves(recipe.settings.out / "curves.jsonl") for recipe in (whole, resumed))
    assert lines[3:] == more
    if case == "unpaired":
        assert [len(pool) for pool in whole.state()["pools"].values()] == [3, 3]
    if case == "dropout":
        network: Any = whole._network  # type: ignore[attr-defined]
        assert any(isinstance(module, nn.Dropout) for module in network.modules())
