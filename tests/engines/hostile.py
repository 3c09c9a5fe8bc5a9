"""Damaged and hostile files of weights, 2,000 from a seed.

The hostile pickles create a marker file when they are run.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

COUNT = 2000
SEED = 20261122
PROTO = b"\x80\x02"
STOP = b"."
NUMBERS = (0, 1, 2, 3, 7, 255, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, 2**63, -1, -(2**31), 2**70)
OPCODES = bytes(opcode[0] for opcode in vars(pickle).values() if isinstance(opcode, bytes))
LEGACY_START = b"".join(
    pickle.dumps(part, 2)
    for part in (
        0x1950A86A20F9469CFC6C,
        1001,
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {}},
    )
)


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    *,
    offset: int = 0,
    key: str = "0",
    kind: str = "torch\nFloatStorage",
    count: int = 4,
    legacy: bool = False,
) -> bytes:
    """The steps that make one tensor, as torch.save writes them."""
    storage = b"(" + text("storage") + f"c{kind}\n".encode() + text(key) + text("cpu")
    storage += number(count) + (b"N" if legacy else b"") + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return (
        rebuild
        + storage
        + number(offset)
        + numbers(size)
        + numbers(stride)
        + b"\x89"
        + hooks
        + b"tR"
    )


def dictionary(*items: tuple[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in items) + b"u"


def zipped(program: bytes, storages: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive as torch.save would lay it out."""
    file = io.BytesIO()
    entries = {"data.pkl": program, "byteorder": b"little"}
    entries |= {f"data/{key}": content for key, content in storages.items()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {**entries, "version": b"3\n"}.items():
            # Without the time of day: the files are the same each time.
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content, packing)
    return file.getvalue()


def legacy(program: bytes, storages: dict[str, bytes]) -> bytes:
    """The row of pickles that torch.save wrote before 1.6, with float32 storages."""
    tail = b"".join(struct.pack("<Q", len(raw) // 4) + raw for raw in storages.values())
    return LEGACY_START + program + pickle.dumps(list(storages), 2) + tail


def safetensors(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def code_runners(marker: Path) -> dict[str, bytes]:
    """Steps that leave one value on the stack, and run code on the way: each makes ``marker``."""
    shell = f"touch '{marker}'"
    python = f"open({str(marker)!r}, 'w').close()"
    short = lambda value: b"\x8c" + bytes([len(value)]) + value.encode()  # noqa: E731
    return {
        "GLOBAL posix.system": b"cposix\nsystem\n" + text(shell) + b"\x85R",
        "GLOBAL os.system": b"cos\nsystem\n" + text(shell) + b"\x85R",
        "GLOBAL builtins.eval": b"cbuiltins\neval\n" + text(python) + b"\x85R",
        "GLOBAL __builtin__.eval": b"c__builtin__\neval\n" + text(python) + b"\x85R",
        "STACK_GLOBAL": short("builtins") + short("eval") + b"\x93" + text(python) + b"\x85R",
        "STACK_GLOBAL of the memo": short("exec")
        + b"\x94"
        + short("builtins")
        + b"h\x00\x93"
        + text(python)
        + b"\x85R\x86",
        "INST": b"(" + text(shell) + b"iposix\nsystem\n",
        "OBJ": b"(cbuiltins\neval\n" + text(python) + b"o",
        "NEWOBJ": b"cbuiltins\nlist\ncbuiltins\nmap\ncbuiltins\neval\n("
        + text(python)
        + b"t\x86\x81\x85R",
        "BUILD": b"ctypes\nSimpleNamespace\n)R}"
        + text("__setstate__")
        + b"cposix\nsystem\nsb"
        + text(shell)
        + b"b",
    }


def _plain(form: str, names: tuple[str, ...] = ("conv.weight", "conv.bias")) -> bytes:
    """An honest checkpoint of two tensors, 4 float32 each."""
    raw = {str(key): struct.pack("<4f", *range(key, key + 4)) for key in range(len(names))}
    if form == "safetensors":
        header = {
            name: {"dtype": "F32", "shape": [4], "data_offsets": [16 * index, 16 * index + 16]}
            for index, name in enumerate(names)
        }
        return safetensors(header, b"".join(raw.values()))
    old = form == "legacy"
    parts = [(name, tensor(key=key, legacy=old)) for name, key in zip(names, raw)]
    program = PROTO + dictionary(*parts) + STOP
    return legacy(program, raw) if old else zipped(program, raw)


FORMS = ("zip", "legacy", "safetensors")
BASES = {form: _plain(form) for form in FORMS}
Make = Callable[[random.Random, Path], tuple[str, bytes]]
"""-> what it is, and the content."""


def _flip(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _run_replaced(rng: random.Random, content: bytes) -> bytes:
    at, length = rng.randrange(len(content)), rng.choice((1, 2, 4, 8, 64))
    run = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return content[:at] + run + content[at + rng.choice((0, length)) :]


def _truncated(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def _opcode_put(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    step = bytes([rng.choice(OPCODES)]) + rng.choice((b"", bytes(1), rng.randbytes(4)))
    return content[:at] + step + content[at + rng.choice((0, 1, len(step))) :]


DAMAGES = (_flip, _run_replaced, _truncated, _opcode_put)


def damaged(rng: random.Random, marker: Path) -> tuple[str, bytes]:
    form = rng.choice(FORMS)
    return f"{form} damaged", rng.choice(DAMAGES)(rng, BASES[form])


def damaged_pickle(rng: random.Random, marker: Path) -> tuple[str, bytes]:
    """The archive round it is sound, so that the pickle is what has to be refused."""
    old = rng.random() < 0.5
    program = PROTO + dictionary(("a", tensor(legacy=old)), ("b", tensor(legacy=old))) + STOP
    program = rng.choice(DAMAGES)(rng, program)
    content = (legacy if old else zipped)(program, {"0": bytes(16)})
    return f"{'legacy' if old else 'zip'} pickle damaged", content


def runs_code(rng: random.Random, marker: Path) -> tuple[str, bytes]:
    code = rng.choice(list(code_runners(marker).values()))
    place = rng.choice(("first", "last", "all", "list", "before"))
    form = rng.choice(("zip", "legacy", "plain", "legacy keys", "legacy start"))
    honest = tensor(legacy=form != "zip")
    program = {
        "first": dictionary(("code", code), ("a", honest)),
        "last": dictionary(("a", honest), ("code", code)),
        "all": code,
        "list": b"](" + code + b"e",
        "before": code + b"0" + dictionary(("a", honest)),
    }[place]
    program = bytes([0x80, rng.choice((2, 2, 3, 4, 5))]) + program + STOP
    if form == "plain":
        return "runs code", program
    if form == "zip":
        return "runs code", zipped(program, {"0": bytes(16)})
    if form == "legacy":
        return "runs code", legacy(program, {"0": bytes(16)})
    if form == "legacy start":
        return "runs code", LEGACY_START[: rng.choice((15, 21))] + program + BASES["legacy"][15:]
    honest = PROTO + dictionary(("a", honest)) + STOP
    return "runs code", LEGACY_START + honest + program + struct.pack("<Q", 4) + bytes(16)


def wrong_shape(rng: random.Random, marker: Path) -> tuple[str, bytes]:
    axes = rng.choice((0, 1, 2, 4, 9, 100))
    some = lambda: tuple(rng.choice(NUMBERS) for _ in range(axes))  # noqa: E731
    what = {"size": some(), "stride": some(), "offset": rng.choice(NUMBERS)}
    if rng.random() < 0.3:
        what = {"size": (10**6, 10**6), "stride": (0, 0)}
    if rng.random() < 0.3:
        what |= {"kind": rng.choice(("torch\nDoubleStorage", "torch\nQInt8Storage", "torch\nSize"))}
    old = rng.random() < 0.5
    program = (
        PROTO + dictionary(("a", tensor(legacy=old, **what)), ("b", tensor(legacy=old))) + STOP
    )
    return "wrong shape", (legacy if old else zipped)(program, {"0": bytes(16)})


def wrong_storage(rng: random.Random, marker: Path) -> tuple[str, bytes]:
    """Sizes of storages that the file has not, kinds that make them larger, keys that are not."""
    old = rng.random() < 0.5
    what: dict[str, Any] = {"count": rng.choice((*NUMBERS, 5, 10**9, 10**12))}
    what["key"] = rng.choice(("0", "0", "1", "../data.pkl", "", "x" * 1000))
    what["kind"] = rng.choice(("torch\nFloatStorage", "torch\nLongStorage", "torch\nByteStorage"))
    if rng.random() < 0.5:
        what["size"], what["stride"] = (what["count"],), (1,)
    program = (
        PROTO + dictionary(("a", tensor(legacy=old, **what)), ("b", tensor(legacy=old))) + STOP
    )
    if not old:
        return "wrong storage", zipped(program, {"0": bytes(16)})
    tail = struct.pack("<Q", what["count"] % 2**64) + bytes(16)
    keys = pickle.dumps(rng.choice((["0"], [what["key"]], ["0", what["key"]], [], 7)), 2)
    return "wrong storage", LEGACY_START + program + keys + tail


def allocating_calls(rng: random.Random, marker: Path) -> tuple[str, bytes]:
    """Calls that torch's restricted unpickler lets through, and that only take memory or crash."""
    billion = number(rng.choice((10**9, 10**10, 10**12)))
    deep = b")" + b"\x85" * 300_000
    value = rng.choice(
        (
            b"cbuiltins\nbytearray\n" + billion + b"\x85R",
            b"ctorch\nFloatTensor\n" + billion + b"\x85R",
            b"ctorch\nTensor\n" + billion + b"\x85\x81",
            b"ctorch.storage\nUntypedStorage\n" + billion + b"\x85R",
            b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n"
            + numbers((10**9,))
            + numbers((1,))
            + b"\x89tR",
            b"}(" + deep + b"Nu",  # a key that is hashed by recursion
            b"ccollections\nOrderedDict\n](](" + deep + b"Neae\x85R",
            deep,
        )
    )
    program = PROTO + dictionary(("a", tensor()), ("b", value)) + STOP
    return "allocating calls", zipped(program, {"0": bytes(16)})


def wrong_archive(rng: random.Random, marker: Path) -> tuple[str, bytes]:
    honest = PROTO + dictionary(("a", tensor()), ("b", tensor(key="1"))) + STOP
    storages = {"0": bytes(16), "1": struct.pack("<4f", 1, 2, 3, 4)}
    how = rng.randrange(6)
    if how == 0:  # a bomb: a megabyte of nothing, many times
        bomb = {**storages, **{str(key): bytes(1 << 20) for key in range(2, 6)}}
        return "wrong archive", zipped(honest, bomb, zipfile.ZIP_DEFLATED)
    if how == 1:  # contents change places, with sizes that may fit
        return "wrong archive", zipped(storages["0"], {"0": honest, "1": storages["1"]})
    content = bytearray(zipped(honest, storages))
    first = content.index(b"PK\x01\x02")
    heads = [i for i in range(first, len(content)) if content[i : i + 4] == b"PK\x01\x02"]
    one, other = rng.sample(heads, 2)
    if how == 2:  # two entries, one place
        content[one + 42 : one + 46] = content[other + 42 : other + 46]
    elif how == 3:  # sizes that lie
        lie = struct.pack("<I", rng.choice((0, 17, 2**20, 2**31, 2**32 - 1)))
        content[one + 20 : one + 28] = lie + lie
    elif how == 4:  # one name twice
        name = bytes(content[one + 46 : one + 60])
        content[other + 46 : other + 60] = name
    else:  # a directory that is said to be elsewhere, or of another size
        at = len(content) - rng.choice((6, 10, 12, 14))
        content[at : at + 2] = rng.randbytes(2)
        if rng.random() < 0.5:  # zip64 that lies
            locator = struct.pack("<4sLQL", b"PK\6\7", 0, rng.choice((0, 2**62, 2**64 - 1)), 1)
            content[-22:-22] = locator
    return "wrong archive", bytes(content)


def wrong_header(rng: random.Random, marker: Path) -> tuple[str, bytes]:
    """Headers of safetensors whose length is right and whose claims are not."""
    header: dict[str, Any] = {
        "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "b": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16, 32]},
    }
    victim = header[rng.choice("ab")]
    what = rng.choice(("dtype", "shape", "data_offsets", "name", "deep", "length", "twin"))
    if what == "dtype":
        victim["dtype"] = rng.choice(("F64", "BF16", "U8", "C64", "F8_E4M3", "F4", "", 7, None, []))
    elif what == "name":
        header[rng.choice(("", "x" * 10**5, "\x00\x1b[31m", "__metadata__", "\ud800"))] = victim
    elif what in victim:
        size = rng.choice((0, 1, 2, 3, 40))
        victim[what] = rng.choice(
            ([rng.choice(NUMBERS) for _ in range(size)], "4", {}, None, [1.5])
        )
    if what == "deep":
        return "wrong header", safetensors(b"[" * rng.choice((10, 10**5)), bytes(32))
    content = safetensors(header, bytes(32))
    if what == "length":
        lie = rng.choice((0, 1, 7, len(content), 2**31, 2**39, 2**63, 2**64 - 1))
        content = struct.pack("<Q", lie) + content[8:]
    if what == "twin":
        twin = json.dumps(header)[:-1] + ', "a": ' + json.dumps(header["b"]) + "}"
        content = safetensors(twin.encode(), bytes(32))
    return "wrong header", content


def unharmed(rng: random.Random, marker: Path) -> tuple[str, bytes]:
    form = rng.choice(FORMS)
    return f"{form} unharmed", BASES[form]


MAKERS: tuple[tuple[int, Make], ...] = (
    (24, damaged),
    (24, damaged_pickle),
    (15, runs_code),
    (10, wrong_shape),
    (8, wrong_storage),
    (2, allocating_calls),
    (6, wrong_archive),
    (8, wrong_header),
    (3, unharmed),
)
"""How many of a hundred, and what makes them."""


def cases(marker: Path, seed: int = SEED) -> Iterator[tuple[str, bytes]]:
    """Yield `COUNT` files: what each is, and its content."""
    rng = random.Random(seed)
    makers = [maker for share, maker in MAKERS for _ in range(share)]
    for index in range(COUNT):
        yield makers[index % len(makers)](rng, marker)
