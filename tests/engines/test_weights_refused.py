"""What is no file of weights: each kind gets a message that helps."""

from __future__ import annotations

import io
import os
import pickle
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_weights import FORMS, forms, refused, same, saved_to, state_of, torch

from engines import ConversionError
from engines.weights import is_torchscript, read_weights, reading


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ([state_of()], ("it is a list", "dictionary of tensors", "net.state_dict()")),
        (torch.ones(2, 3), ("it is a single tensor (2, 3)", "net.state_dict()")),
        ("weights", ("it is a str",)),
        ({"epoch": 3, "lr": 0.1}, ("dictionary without tensors", "epoch, lr")),
        ({}, ("dictionary without tensors", "none")),
        ({"loss": torch.tensor(0.1)}, ("dictionary without tensors", "loss")),
        ({"w": np.ones(3)}, ("numpy", "torch.from_numpy", "multiarray")),
        ({"w": torch.ones(3).to_sparse()}, ("sparse tensors",)),
        ({"w": torch.ones(3, dtype=torch.complex64)}, ("complex",)),
        ({"w": torch.ones(3, device="meta")}, ("meta tensors",)),
        ({"w": torch.ones(3).to(torch.float8_e4m3fn)}, ("unusual", "float8")),
        ({"w": torch.zeros(1).expand(10**6, 10**6)}, ("does not fit", "expanded")),
        ({"a.w": torch.tensor([1.0, float("nan")])}, ("tensor a.w", "NaN or infinite")),
        ({"a.w": torch.tensor([1e300], dtype=torch.float64)}, ("tensor a.w", "infinite")),
        ({"a\x1b[31m\n": torch.ones(3)}, ("no usable name: 'a?[31m?'",)),
        ({"a" * 10**6: torch.ones(3)}, ("no usable name", "... (1,000,000 characters)")),
        ({(1, 2): torch.ones(3)}, ("a key that is no text: tuple",)),
        (torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)), ("whole pickled network",)),
        (SimpleNamespace(a=1), ("it wants to run types.SimpleNamespace; nothing was run",)),
    ],
)
def test_what_is_no_dictionary_of_plain_tensors(
    saved: Any, words: tuple[str, ...], tmp_path: Path
) -> None:
    refused(saved_to(saved, tmp_path), *words)


def test_a_whole_network_is_named_with_what_to_do(tmp_path: Path) -> None:
    class Pictures(torch.nn.Module):
        pass

    Pictures.__module__, Pictures.__qualname__ = "models.networks", "ResnetGenerator"
    Pictures.__name__ = "ResnetGenerator"
    module = SimpleNamespace(ResnetGenerator=Pictures)
    net = Pictures()
    net.conv = torch.nn.Conv2d(3, 3, 1)
    sys.modules["models.networks"] = module  # type: ignore[assignment]
    try:
        for new in (True, False):
            path = saved_to(net, tmp_path, _use_new_zipfile_serialization=new)
            refused(
                path,
                "whole pickled network (models.networks.ResnetGenerator)",
                "torch.save(net.state_dict(), 'weights.pth')",
            )
    finally:
        del sys.modules["models.networks"]


def test_an_optimiser(tmp_path: Path) -> None:
    net = torch.nn.Conv2d(3, 3, 1)
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3, 4, 4)).sum().backward()
    optimiser.step()
    refused(saved_to(optimiser.state_dict(), tmp_path), "optimiser", "net.state_dict()")
    path = saved_to({"optimizer": optimiser.state_dict(), "net": net.state_dict()}, tmp_path)
    assert same(read_weights(path).tensors, net.state_dict())


def test_another_pickle_protocol(tmp_path: Path) -> None:
    for new in (True, False):
        path = saved_to(state_of(), tmp_path, pickle_protocol=4, _use_new_zipfile_serialization=new)
        refused(path, "pickle protocol 4, expected 2", "save it again")


def test_nesting_has_an_end(tmp_path: Path) -> None:
    saved: Any = state_of()
    for _ in range(70):
        saved = {"state_dict": saved}
    refused(saved_to(saved, tmp_path), "nested more than 64 deep")
    circle: dict[str, Any] = {"epoch": 1}
    circle["self"] = circle
    refused(saved_to(circle, tmp_path), "dictionary without tensors")
    circle |= state_of()
    assert same(read_weights(saved_to(circle, tmp_path)).tensors, state_of())
    circle["model"] = circle
    refused(saved_to(circle, tmp_path), "its dictionaries cannot be named: model, model")
    refused(saved_to({"x" * 10**6: state_of()}, tmp_path), "cannot be named: xxx")


NAMES = ("G", "D", "net", "model", "module", "netG_A", "discriminator", "state_dict", "x", "", "é")
KEYS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(".".join)
LEAVES = st.sampled_from((torch.ones(2), torch.tensor(1.0), 3, "text", None))
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=4), max_leaves=8)


@settings(max_examples=400)
@given(saved=TREES, entry=st.none() | KEYS)
def test_any_nesting_of_any_names_ends(saved: Any, entry: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = saved_to(saved, Path(folder))
        try:
            found = read_weights(path, entry=entry)
        except ConversionError:
            return
        assert found.tensors
        assert all(found.tensors)
        again = read_weights(path, entry=found.entry)
        assert same(again.tensors, found.tensors), "the entry is a way back"


def test_a_limit_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved_to({"w": torch.ones(3000, dtype=torch.float16)}, tmp_path)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(reading, "LARGEST_BYTES", 10_000)
    refused(path, "its tensors take 12,000 bytes, the limit is 10,000")
    monkeypatch.setattr(reading, "LARGEST_BYTES", 100)
    refused(path, "bytes, the limit is 100")


def test_checksums(tmp_path: Path) -> None:
    state = {"w": torch.arange(100.0)}
    path = saved_to(state, tmp_path)
    content = bytearray(path.read_bytes())
    at = content.index(np.arange(100, dtype=np.float32).tobytes())
    content[at + 40] ^= 1
    path.write_bytes(content)
    refused(path, "checksum", "data/0", "damaged")
    torch.serialization.set_crc32_options(False)
    try:
        path = saved_to(state, tmp_path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_weights(path).tensors, state), "torch.save can leave them out"


@forms
def test_a_download_that_was_cut_off(form: str, tmp_path: Path) -> None:
    FORMS[form](state_of(), tmp_path / "w")
    content = (tmp_path / "w").read_bytes()
    for length in (len(content) - 1, len(content) // 2, 100):
        (tmp_path / "w").write_bytes(content[:length])
        refused(tmp_path / "w", "download it again")


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.ones(3))
    return file.getvalue()


def _zip_of(**entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pth", b"", ("empty", "download it again")),
        ("a.pth", b"<!DOCTYPE html><html>404</html>", ("web page", "download failed")),
        ("a.pth", b"\n  <HTML><body>Sign in</body>", ("web page",)),
        ("a.pth", b'<?xml version="1.0"?><Error>AccessDenied', ("error message",)),
        ("a.pth", b'{"error": "Repository not found"}', ("error message",)),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid", ("git lfs pull",)),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), ("HDF5", "Keras", "tf2onnx")),
        ("a.keras", _zip_of(config_dot_json=b"{}", model_dot_weights_dot_h5=b""), ("Keras",)),
        ("saved_model.pb", b"\x08\x01\x12\x84\x1c", ("SavedModel", "tf2onnx")),
        ("frozen.pb", b"\x0a\x84\x1c", ("TensorFlow", "tf2onnx")),
        ("model.ckpt.index", b"\x00\x00\x18", ("TensorFlow",)),
        ("a.tflite", b"\x1c\0\0\0TFL3", ("TensorFlow Lite",)),
        ("a.onnx", b"", ("empty",)),
        ("a.pth", b"\x08\x08\x12\x07pytorch:", ("ONNX", "give the .onnx file to convert")),
        ("a.npz", _npz(), ("numpy arrays (.npz)", "torch.from_numpy")),
        ("a.npy", b"\x93NUMPY\x01\0", ("numpy array",)),
        ("a.zip", _zip_of(readme_dot_txt=b"hello"), ("zip archive", "readme.txt", "unpack")),
        ("a.t7", b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1", ("Torch7",)),
        ("a.tar", bytes(257) + b"ustar" + bytes(250), ("tar archive", "unpack")),
        ("a.pth.gz", b"\x1f\x8b\x08", ("gzip", "unpack")),
        ("a.pth", b"\x89PNG\r\n\x1a\n", ("picture",)),
        ("a.pth", b"something else", ("no file of weights", "73 6f 6d 65")),
        ("a.safetensors", b"something else", ("no header of safetensors",)),
        ("a.pkl", pickle.dumps({"G": np.ones(3)}), ("numpy values",)),
        ("a.pkl", pickle.dumps({"G": SimpleNamespace()}), ("run types.SimpleNamespace",)),
        ("a.pkl", pickle.dumps({"G": 3}), ("none of torch.save",)),
        ("a.pkl", b"(dp0\nS'G'\nccopy_reg\n_reconstructor\n.", ("Python 2", "copy_reg")),
    ],
)
def test_files_that_are_something_else(
    name: str, content: bytes, words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, *words)
    assert not is_torchscript(tmp_path / name)


def test_torchscript(tmp_path: Path) -> None:
    net = torch.nn.Conv2d(3, 3, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says that torch.jit is old
        torch.jit.trace(net, torch.ones(1, 3, 4, 4)).save(str(tmp_path / "net.pt"))
    assert is_torchscript(tmp_path / "net.pt")
    refused(tmp_path / "net.pt", "a TorchScript archive: convert takes it with --range")
    assert not is_torchscript(saved_to(net.state_dict(), tmp_path))
    assert not is_torchscript(tmp_path / "not there")
    assert not is_torchscript(tmp_path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    refused(tmp_path / "G.pth", "G.pth", "there is no such file")
    refused(tmp_path / ("x" * 5000), "cannot be opened")
    refused(tmp_path, "it is a folder", "it has none")
    (tmp_path / "latest_net_G.pth").write_bytes(b"1")
    refused(tmp_path, "it is a folder", "latest_net_G.pth")
    (tmp_path / "saved_model.pb").write_bytes(b"1")
    refused(tmp_path, "SavedModel", "tf2onnx")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "no regular file")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = saved_to(state_of(), tmp_path)
    path.chmod(0)
    refused(path, "cannot be opened: Permission denied")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "C64", "data_offsets": [0, 32]}, ("is of kind C64", "F32")),
        ({"dtype": "F64"}, ("does not fit into its 16 bytes",)),
        ({"shape": [2**40, 2**40]}, ("does not fit",)),
        ({"shape": [0, 2**47, 2**47], "data_offsets": [0, 0]}, ("does not fit",)),
        ({"shape": [-4]}, ("no usable shape",)),
        ({"data_offsets": [4, 20]}, ("overlaps another, or leaves a hole",)),
    ],
)
def test_claims_of_a_safetensors_header(
    change: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    header = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **change}}
    (tmp_path / "w").write_bytes(hostile.safetensors(header, bytes(16)))
    refused(tmp_path / "w", *words)


@pytest.mark.parametrize("form", ["zip pickle", "safetensors"])
def test_a_missing_package_is_named(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FORMS[form](state_of(), tmp_path / "w")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch", None)
        refused(tmp_path / "w", "PyTorch is not installed; run pip install 'pix2live[convert]'")
    if form == "safetensors":
        monkeypatch.setitem(sys.modules, "safetensors", None)
        refused(tmp_path / "w", "safetensors is not installed", "pip install 'pix2live[convert]'")


def test_quantised_tensors(tmp_path: Path) -> None:
    quantised = hostile.tensor(kind="torch\nQInt8Storage")
    program = hostile.PROTO + hostile.dictionary(("a", quantised)) + hostile.STOP
    (tmp_path / "w").write_bytes(hostile.zipped(program, {"0": bytes(4)}))
    refused(tmp_path / "w", "quantised tensors", "torch.QInt8Storage")
