"""The trainer, on pictures made here: tiny, deterministic, without a camera or a GPU."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="training needs torch; install pix2live[torch]")
pytest.importorskip("onnxscript", reason="PyTorch's ONNX exporter needs onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

import torch  # noqa: E402

from engines.errors import Pix2liveError, SettingsError, SourceError  # noqa: E402
from engines.export import FrameTranslator  # noqa: E402
from engines.generators.quarter import QuarterNet  # noqa: E402
from engines.model import FrameModel  # noqa: E402
from realtime import Frame, SinkInfo  # noqa: E402
from realtime.sinks.video import VideoSink  # noqa: E402
from tools.train import paired as command  # noqa: E402
from tools.train.paired import Event, paired, train  # noqa: E402
from tools.train.pairs import (  # noqa: E402
    Degrader,
    Pair,
    frames_of,
    load_teacher,
    make_pairs,
    picture_files,
    random_crop,
)
from tools.train.teachers import comic  # noqa: E402
from tools.train.trainer import Settings, Trainer  # noqa: E402

TEACHER = '''
"""Half as bright, with red and blue exchanged; counts how often it was asked."""
calls = 0


def night(image):
    global calls
    calls += 1
    return image[..., ::-1] // 2


def cropped(image):
    return image[1:]
'''


def shapes(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Discs of many colours on a gradient."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, width)[None, :, None] * np.ones((height, 1, 3))
    picture = ramp.astype(np.uint8)
    for _ in range(12):
        centre = (int(random.integers(width)), int(random.integers(height)))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        cv2.circle(picture, centre, int(random.integers(4, 24)), colour, -1, cv2.LINE_AA)
    return picture


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lessons.py").write_text(TEACHER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lessons", raising=False)
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        cv2.imwrite(str(folder / f"photo{seed}.png"), shapes(seed))
    return folder


def tiny(photos: Path, out: Path, **changes: object) -> Settings:
    chosen: dict[str, object] = {
        "teacher": "lessons:night",
        "photos": photos,
        "out": out,
        "name": "night",
        "channels": 16,
        "blocks": 1,
        "steps": 80,
        "crop_px": 32,
        "batch": 4,
        "learning_rate": 3e-3,
        "variants": 1,
        "sheet_every": 40,
    }
    return Settings(**{**chosen, **changes})  # type: ignore[arg-type]


def test_it_learns_and_the_model_is_the_network(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    events: list[Event] = []

    path = train(tiny(photos, out), events.append)

    losses = [event.loss for event in events if event.what == "training"]
    assert len(losses) == 4
    assert np.isfinite(losses).all()
    assert [event.done for event in events if event.what == "teacher"] == [1 / 3, 2 / 3, 1]
    model = FrameModel.read(path)
    assert model.card.architecture == "QuarterNet, 16 channels, 1 blocks"
    assert model.card.training.startswith("80 steps")
    assert model.card.proofs["onnxruntime/f32"]["mean_difference"] < 1
    frame = shapes(9)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"frame": frame[None]})[0].astype(int)
    translator = FrameTranslator(QuarterNet.from_frame_model(path))
    with torch.inference_mode():
        right = translator(torch.from_numpy(frame[None])).numpy()
    assert np.abs(found - right).max() <= 1
    target = load_teacher("lessons:night")(frame).astype(int)
    assert np.abs(found[0] - target).mean() < 0.5 * np.abs(frame - target).mean()
    sheet = cv2.imread(str(out / "sheet-000040.png"))
    assert sheet is not None
    assert sheet.shape[1] == 3 * 480
    assert not list(out.glob("*.part")) + list(out.glob(".*"))


def test_the_same_seed_gives_the_same_weights(photos: Path, tmp_path: Path) -> None:
    cards = [
        FrameModel.read(train(tiny(photos, tmp_path / name, steps=3))).card for name in ("a", "b")
    ]
    assert cards[0].weights_sha256 == cards[1].weights_sha256


def test_resume_starts_from_the_checkpoint(photos: Path, tmp_path: Path) -> None:
    settings = tiny(photos, tmp_path / "out", steps=3)
    train(settings)
    saved = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    again = Trainer(tiny(photos, tmp_path / "out", resume=True))
    assert saved["step"] == again.step == 3
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, saved["weights"][name])
    with pytest.raises(SettingsError, match="--resume"):
        Trainer(tiny(photos, tmp_path / "out", resume=True, channels=8))
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(SettingsError, match="--resume"):
        Trainer(tiny(photos, tmp_path / "out", resume=True))


def test_ctrl_c_saves_and_exports(photos: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.what == "training":
            raise KeyboardInterrupt

    path = train(tiny(photos, tmp_path / "out"), interrupt)
    assert FrameModel.read(path).card.training.startswith("20 steps")
    assert (tmp_path / "out" / "checkpoint.pt").exists()


def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights(
    photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(Pix2liveError, match=r"loss became .* --learning-rate"):
        train(tiny(photos, tmp_path / "out", learning_rate=1e30))
    saved = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert all(bool(value.isfinite().all()) for value in saved["weights"].values())
    assert not (tmp_path / "out" / "night.onnx").exists()


def test_the_teacher_is_asked_once_a_picture(photos: Path, tmp_path: Path) -> None:
    teacher = load_teacher("lessons:night")
    chosen = {"variants": 2, "smallest_px": 32, "seed": 1}
    first = [pair for pair, _ in make_pairs(photos, teacher, tmp_path / "cache", **chosen)]
    calls = sys.modules["lessons"].calls
    second = [pair for pair, _ in make_pairs(photos, teacher, tmp_path / "cache", **chosen)]
    assert calls == sys.modules["lessons"].calls == 6
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.photo, other.photo)
        assert np.array_equal(one.target, other.photo[..., ::-1] // 2)


def test_another_smallest_side_is_not_read_from_the_cache(photos: Path, tmp_path: Path) -> None:
    teacher = load_teacher("lessons:night")
    for smallest_px in (32, 600):
        found = make_pairs(
            photos, teacher, tmp_path / "cache", variants=1, smallest_px=smallest_px, seed=1
        )
        sides = [min(pair.photo.shape[:2]) for pair, _ in found]
        assert (min(sides) >= 600) == (smallest_px == 600)


def test_hidden_files_are_not_trained_on(photos: Path) -> None:
    shown = picture_files(photos)
    (photos / "._photo0.png").write_bytes(b"what macOS leaves on a USB stick")
    (photos / ".cache").mkdir()
    cv2.imwrite(str(photos / ".cache" / "thumbnail.png"), shapes(1))
    assert picture_files(photos) == shown
    assert len(frames_of(photos, 9)) == len(shown) == 3


def test_frames_of_a_video_are_spread_and_only_those_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    sink = VideoSink(path)
    sink.open(SinkInfo((64, 48), 30.0))
    for number in range(10):
        grey = np.full((48, 64, 3), 20 * number + 30, np.uint8)
        sink.write(Frame(grey, index=number, pts_ns=number * 33_000_000))
    sink.close()
    retrieved = []

    class Capture:
        def __init__(self, name: str) -> None:
            self.real = real(name)
            self.grab, self.release = self.real.grab, self.real.release

        def retrieve(self) -> tuple[bool, np.ndarray]:
            retrieved.append(1)
            return self.real.retrieve()

    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    frames = frames_of(path, 3)
    assert [round((frame.mean() - 30) / 20) for frame in frames] == [0, 4, 8]
    assert len(retrieved) == 3
    assert len(frames_of(tmp_path, 100)) == 10


def test_crops_are_the_same_place_of_both_pictures() -> None:
    photo = shapes(1)
    for seed in range(8):
        crop = random_crop(Pair(photo, 255 - photo), 32, np.random.default_rng(seed))
        assert crop.photo.shape == (32, 32, 3)
        assert np.array_equal(crop.target, 255 - crop.photo)


def test_damage_keeps_the_picture_recognisable() -> None:
    degrade = Degrader(np.random.default_rng(1))
    photo = shapes(2)
    damaged = [degrade(photo) for _ in range(12)]
    differences = [np.abs(picture.astype(int) - photo).mean() for picture in damaged]
    assert all(picture.shape == photo.shape for picture in damaged)
    assert 0.5 < np.mean(differences) < 12


@pytest.mark.parametrize("reference", ["nothing", "no.such:function", "lessons:no_function", ":"])
def test_an_unknown_teacher_is_named(photos: Path, reference: str) -> None:
    with pytest.raises(SettingsError, match="expected module:function"):
        load_teacher(reference)


def test_what_cannot_be_trained_is_refused_with_a_reason(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(SettingsError, match=r"--crop .* found 30"):
        train(tiny(photos, out, crop_px=30))
    with pytest.raises(SettingsError, match="--steps or --minutes"):
        train(tiny(photos, out, steps=0, minutes=0.0))
    with pytest.raises(SettingsError, match="must return uint8"):
        train(tiny(photos, out, teacher="lessons:cropped"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no pictures"):
        train(tiny(tmp_path / "empty", out))
    with pytest.raises(SourceError, match="cannot read"):
        frames_of(tmp_path / "lessons.py", 3)
    with pytest.raises(SourceError, match="no pictures and no videos"):
        frames_of(tmp_path / "empty", 3)


def test_the_command(photos: Path, tmp_path: Path) -> None:
    given = ["--input", str(photos), "--out", str(tmp_path / "out"), "--steps", "2", "--crop", "32"]
    given += ["--batch", "2", "--variants", "1", "--validate", str(photos)]
    done = CliRunner().invoke(paired, [*given, "--preset", "comic", "--channels", "8"])
    assert done.exit_code == 0, done.output
    card = FrameModel.read(tmp_path / "out" / "comic.onnx").card
    assert card.licence == command.PRESETS["comic"]["licence"]
    assert card.architecture == "QuarterNet, 8 channels, 3 blocks"
    assert "--teacher" in CliRunner().invoke(paired, given).output


def test_comic_draws_black_lines_and_is_calm_under_noise() -> None:
    picture = np.full((96, 128, 3), 90, np.uint8)
    picture[:, 64:] = (60, 140, 220)
    drawn = comic(picture)
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8
    border = drawn[20:76, 58:70].min(axis=(1, 2))
    assert border.max() < 60
    noise = np.random.default_rng(1).normal(0, 2, picture.shape)
    noisy = comic(np.clip(picture + noise, 0, 255).astype(np.uint8))
    assert np.abs(noisy.astype(int) - drawn).mean() < 4
