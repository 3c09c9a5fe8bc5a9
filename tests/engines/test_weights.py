"""Reading weights: every form that people have, and a message for everything else."""

from __future__ import annotations

import collections
import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
from saved_weights import FORMS, forms, refused, same, saved_to, state_of, torch, write_safetensors

from engines.weights import Weights, read_weights, reading

ASSETS = Path(__file__).resolve().parents[3] / "shared" / "assets"
REAL = {
    "cartoongan/Hayao_net_G_float_reassembled.pth": ("zip pickle", 94, False),
    "cyclegan/vintagify_G_A2B_epoch33.pth": ("zip pickle", 94, True),
    "transformer_net/candy_nc16_b1_e2_1e05_1e10.model": ("legacy pickle", 62, False),
    "transformer_net/candy_nc8_b1_e2_1e05_1e10.model": ("legacy pickle", 62, False),
    "transformer_net/legacy_candy_nf16_e2_1e5_1e10.model": ("legacy pickle", 62, False),
    "transformer_net/mosaic_nc16_b1_e2_1e05_1e10.model": ("legacy pickle", 62, False),
    "transformer_net/mosaic_nc8_b1_e2_1e05_1e10.model": ("legacy pickle", 62, False),
    "../features/squeezenet1.0_decoded_fp32.pth": ("zip pickle", 52, False),
    "../features/vgg_normalised_conv3_1.pth": ("legacy pickle", 12, False),
}


@forms
def test_every_form_gives_the_same_tensors(form: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.any"  # the name decides nothing
    FORMS[form](state_of(), path)
    found = read_weights(str(path))
    assert isinstance(found, Weights)
    assert found.tensors.keys() == state_of().keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in state_of().items())
    assert found.tensors["norm.num_batches_tracked"].dtype == torch.int64
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.path, found.format, found.entry, found.notes) == (path, form, "", ())


@forms
def test_floating_tensors_become_contiguous_float32(form: str, tmp_path: Path) -> None:
    kinds = {"a": torch.float16, "b": torch.bfloat16, "c": torch.float64, "d": torch.float32}
    whole = torch.arange(6.0).reshape(2, 3)
    state = {name: whole.to(kind).t() for name, kind in kinds.items()}
    state["e"] = torch.tensor([True, False])
    FORMS[form](state, tmp_path / "w")
    found = read_weights(tmp_path / "w")
    for name in kinds:
        assert found.tensors[name].dtype == torch.float32
        assert found.tensors[name].is_contiguous()
        assert torch.equal(found.tensors[name], whole.t())
    assert found.tensors["e"].dtype == torch.bool
    assert found.notes == tuple(f"{kind} -> float32" for kind in ("bfloat16", "float16", "float64"))


def test_tensors_are_free_of_the_file_and_of_gradients(tmp_path: Path) -> None:
    net = torch.nn.Conv2d(3, 4, 1)
    write_safetensors(net.state_dict(), tmp_path / "w")
    found = read_weights(tmp_path / "w").tensors
    (tmp_path / "w").write_bytes(bytes(1000))
    assert same(found, net.state_dict())
    found = read_weights(saved_to(dict(net.named_parameters()), tmp_path)).tensors
    assert not any(tensor.requires_grad for tensor in found.values())
    assert same(found, net.state_dict())


def test_tensors_that_share_a_storage(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    state = {"a": whole[2:6], "b": whole[4:].reshape(2, 3)}
    found = read_weights(saved_to(state, tmp_path)).tensors
    assert same(found, state)


@pytest.mark.parametrize("form", ["zip pickle", "legacy pickle"])
def test_saved_on_cuda(form: str, tmp_path: Path) -> None:
    FORMS[form](state_of(), tmp_path / "w")
    content = (tmp_path / "w").read_bytes()
    if form == "legacy pickle":
        content = content.replace(hostile.text("cpu"), hostile.text("cuda:0"))
    else:
        old = zipfile.ZipFile(io.BytesIO(content))
        entries = {i.filename.partition("/")[2]: old.read(i) for i in old.infolist()}
        program = entries["data.pkl"].replace(hostile.text("cpu"), hostile.text("cuda:0"))
        storages = {n[5:]: raw for n, raw in entries.items() if n.startswith("data/")}
        content = hostile.zipped(program, storages)
    assert b"cuda:0" in content
    (tmp_path / "w").write_bytes(content)
    found = read_weights(tmp_path / "w")
    assert same(found.tensors, state_of())
    assert found.notes == ("the tensors were saved on CUDA",)


@pytest.mark.parametrize(
    ("saved", "entry"),
    [
        *((lambda n, key=key: {key: n, "epoch": 3}, key) for key in reading.WRAPPERS),
        (lambda n: {"params_ema": n, "params": state_of(1)}, "params_ema"),
        (
            lambda n: {"g_ema": n, "g": state_of(1), "d": state_of(2), "d_ema": state_of(2)},
            "g_ema",
        ),
        (
            lambda n: {"netG": n, "netD": state_of(1), "opt": {"state": {}, "param_groups": []}},
            "netG",
        ),
        (
            lambda n: {"generator": n, "discriminator": state_of(1), "x": torch.ones(3)},
            "generator",
        ),
        (lambda n: {"my_net": n, "D_A": state_of(1), "psnr": torch.tensor(30.0)}, "my_net"),
        (lambda n: {"model": {"state_dict": n}}, "model.state_dict"),
        (lambda n: {"checkpoint": {"state_dict": {"netG": n}}}, "checkpoint.state_dict.netG"),
    ],
)
def test_wrappers(saved: Callable[[Any], Any], entry: str, tmp_path: Path) -> None:
    path = saved_to(saved(state_of()), tmp_path)
    found = read_weights(path)
    assert same(found.tensors, state_of())
    assert found.entry == entry
    assert any(f"unwrapped {entry.split('.', maxsplit=1)[0]!r}" in note for note in found.notes)
    assert same(read_weights(path, entry=entry).tensors, state_of()), "the entry is a way back"


def test_what_was_not_taken_is_said(tmp_path: Path) -> None:
    path = saved_to({"params_ema": state_of(), "params": state_of(1)}, tmp_path)
    assert read_weights(path).notes == ("unwrapped 'params_ema'; beside it, not taken: params",)
    assert same(read_weights(path, entry="params").tensors, state_of(1))
    path = saved_to(state_of() | {"epoch": 3, "name": "x"}, tmp_path)
    assert read_weights(path).notes == ("left out what is no tensor: epoch, name",)


@pytest.mark.parametrize("prefix", [*reading.PREFIXES, "module.netG.", "_orig_mod.module."])
@forms
def test_prefixes_that_all_tensors_have(prefix: str, form: str, tmp_path: Path) -> None:
    FORMS[form](state_of(start=prefix), tmp_path / "w")
    found = read_weights(tmp_path / "w")
    assert found.tensors.keys() == state_of().keys()
    assert found.entry == ""
    assert found.notes == tuple(f"stripped prefix '{p}.'" for p in prefix.split(".")[:-1])


@pytest.mark.parametrize("prefix", ["model.", "model.model.", "net.", "conv.", "down1.", "G."])
def test_names_that_a_network_has_itself_stay(prefix: str, tmp_path: Path) -> None:
    state = state_of(start=prefix) | {"other.weight": torch.ones(2)} | {"model.bias": torch.ones(2)}
    if prefix.startswith("model."):
        state.pop("other.weight")
    found = read_weights(saved_to(state, tmp_path))
    assert same(found.tensors, state)
    assert found.notes == ()


@pytest.mark.parametrize("ours", ["net", "model", "generator", "G", "netG_A"])
def test_a_lightning_checkpoint(ours: str, tmp_path: Path) -> None:
    state = state_of(start=f"{ours}.") | state_of(1, "discriminator.") | state_of(2, "vgg_loss.")
    hyper = {"lr": 2e-4, "sizes": torch.Size([1, 2]), "type": torch.float32}
    saved = {
        "epoch": 3,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": collections.OrderedDict(state),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}],
        "lr_schedulers": [{"milestones": collections.Counter([10, 20]), "last_epoch": 3}],
        "hyper_parameters": hyper,
    }
    found = read_weights(saved_to(saved, tmp_path))
    assert same(found.tensors, state_of())
    assert found.entry == f"state_dict.{ours}"
    assert "beside it, not taken: discriminator, vgg_loss" in found.notes[-1]
    again = read_weights(tmp_path / "weights.pth", entry="discriminator")
    assert same(again.tensors, state_of(1))


@pytest.mark.parametrize(
    ("saved", "names"),
    [
        ({"G_A": state_of(1), "G_B": state_of(2), "D_A": state_of(3)}, ("G_A", "G_B")),
        ({"netG_A2B": state_of(1), "netG_B2A": state_of(2)}, ("netG_A2B", "netG_B2A")),
        (
            {"genA2B": state_of(1), "genB2A": state_of(2), "disGA": state_of(3)},
            ("genA2B", "genB2A"),
        ),
        (
            {"state_dict": state_of(1, "G_A.") | state_of(2, "G_B.")},
            ("state_dict.G_A", "state_dict.G_B"),
        ),
        (
            {"model": {"first": state_of(1), "second": state_of(2)}},
            ("model.first", "model.second"),
        ),
        ({"generator": state_of(1), "model": state_of(2)}, ("generator", "model")),
    ],
)
def test_of_several_networks_a_person_chooses(
    saved: Any, names: tuple[str, str], tmp_path: Path
) -> None:
    path = saved_to(saved, tmp_path)
    refused(path, "it holds several networks: ", *names, f"choose one with --entry {names[0]}")
    for seed, name in enumerate(names, 1):
        found = read_weights(path, entry=name)
        assert same(found.tensors, state_of(seed))
        assert found.entry == name
    refused(path, "it has no entry 'G_C'", names[0], entry="G_C")


def test_entries_inside_a_wrapper_need_no_path(tmp_path: Path) -> None:
    path = saved_to({"state_dict": {"G_A": state_of(1), "G_B": state_of(2)}}, tmp_path)
    assert same(read_weights(path, entry="G_B").tensors, state_of(2))
    refused(saved_to(state_of(), tmp_path), "it has no entry 'G_A'", "conv, norm", entry="G_A")


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str) -> None:
    path = ASSETS / "weights" / name
    if not path.exists():
        pytest.skip(f"{path} is missing: the shared assets are not here")
    form, count, from_cuda = REAL[name]
    found = read_weights(path)
    assert (found.format, len(found.tensors), found.entry) == (form, count, "")
    assert ("the tensors were saved on CUDA" in found.notes) is from_cuda
    expected = torch.load(path, map_location="cpu", weights_only=True)
    assert same(found.tensors, expected)


def test_a_real_onnx_file() -> None:
    path = ASSETS / "weights" / "transformer_net" / "mosaic_nc8_256x256.onnx"
    if not path.exists():
        pytest.skip(f"{path} is missing: the shared assets are not here")
    refused(path, "ONNX model: give the .onnx file to convert directly")
