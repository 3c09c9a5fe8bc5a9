"""Files of weights that are damaged or hostile: an error for a person, and nothing else happens."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import hostile
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
pytest.importorskip("resource", reason="memory is measured as on POSIX")

from engines import ConversionError
from engines.weights import read_weights

ROOT = Path(__file__).resolve().parents[2]
RUNNERS = list(hostile.code_runners(Path("marker")))
MOST_GROWTH_KIB = 512 << 10
"""The largest pickle may take this while it is looked through; a file's claims take nothing."""


def _read_all(folder: Path, marker: Path) -> dict[str, Any]:
    """Read every case, one file at a time, and count what happened. Runs in a child."""
    import resource

    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # so that no machine suffers
    peak_kib = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # noqa: E731
    before_kib = peak_kib()
    found, wrong, slowest_s = Counter[tuple[str, str]](), [], (0.0, "")
    path = folder / "weights"
    for kind, content in hostile.cases(marker):
        path.write_bytes(content)
        start_s = time.perf_counter()
        try:
            weights = read_weights(path)
            ended = "read"
            if sum(t.nbytes for t in weights.tensors.values()) > 4 * len(content):
                wrong.append(f"{kind}: more than the file has")
            if not all(t.is_contiguous() and t.isfinite().all() for t in weights.tensors.values()):
                wrong.append(f"{kind}: not contiguous or not finite")
        except ConversionError as error:
            ended = "refused"
            message, cause = str(error), repr(error.__cause__)
            if "\n" in message or not message.isprintable() or len(message) > 2000:
                wrong.append(f"{kind}: no message for a person: {message!r:.500}")
            if "MemoryError" in cause or "allocate" in cause:
                wrong.append(f"{kind}: it was allocated for: {cause:.300}")
            if "torch.load" in message:
                ended = "refused by torch"
        except BaseException as error:  # noqa: BLE001  (what must not be is looked for)
            ended = "crashed"
            wrong.append(f"{kind}: {error!r:.300}")
        found[kind, ended] += 1
        slowest_s = max(slowest_s, (time.perf_counter() - start_s, kind))
    left = sorted(item.name for item in folder.iterdir())
    return {
        "found": [[*key, count] for key, count in sorted(found.items())],
        "wrong": wrong,
        "left": left,
        "slowest_s": slowest_s,
        "before_kib": before_kib,
        "peak_kib": peak_kib(),
    }


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "files").mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-X", "faulthandler", __file__),
            *(folder / "files", folder / "marker"),
        ],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "HOME": str(folder), "TMPDIR": str(folder / "files")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stderr, "nothing is printed, no warning escapes"
    found: dict[str, Any] = json.loads(done.stdout)
    found["beside"] = sorted(item.name for item in folder.iterdir())
    for kind, ended, count in found["found"]:
        print(f"{count:5} {kind}: {ended}")
    print(f"peak {found['peak_kib'] >> 10} MiB, slowest {found['slowest_s']}")
    return found


def test_two_thousand_files_end_in_weights_or_in_an_error(outcome: dict[str, Any]) -> None:
    assert outcome["wrong"] == []
    assert sum(count for *_, count in outcome["found"]) == hostile.COUNT


def test_no_code_was_run_and_no_file_left(outcome: dict[str, Any]) -> None:
    assert outcome["beside"] == ["files"], "no marker"
    assert outcome["left"] == ["weights"]


def test_claims_of_a_file_take_no_memory(outcome: dict[str, Any]) -> None:
    assert outcome["peak_kib"] < 2 << 20
    assert outcome["peak_kib"] - outcome["before_kib"] < MOST_GROWTH_KIB


def test_what_is_refused_and_what_is_read(outcome: dict[str, Any]) -> None:
    counts: dict[str, Counter[str]] = {}
    for kind, ended, count in outcome["found"]:
        counts.setdefault(kind, Counter())[ended] += count
    for kind in ("runs code", "allocating calls", "wrong archive"):
        assert set(counts[kind]) == {"refused"}, "before torch sees it"
    assert counts["runs code"]["refused"] == 300
    for form in hostile.FORMS:
        assert set(counts[f"{form} unharmed"]) == {"read"}
        assert counts[f"{form} damaged"]["refused"] > 50
    # A flipped bit among the numbers of a legacy file or of safetensors cannot be seen.
    assert counts["legacy damaged"]["read"]
    assert counts["safetensors damaged"]["read"]
    assert counts["wrong shape"]["read"], "some shapes fit: not everything is refused"
    by_torch = sum(found["refused by torch"] for found in counts.values())
    assert by_torch < hostile.COUNT / 100, "the checks before it find nearly all"


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_hostile_pickles_are_hostile(runner: str, tmp_path: Path) -> None:
    """Control: plain pickle.load runs every one of them, so the tests above can fail."""
    marker = tmp_path / "marker"
    code = hostile.code_runners(marker)[runner]
    program = hostile.PROTO + hostile.dictionary(("code", code)) + hostile.STOP
    (tmp_path / "weights.pkl").write_bytes(program)
    load = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    command = [sys.executable, "-c", load, tmp_path / "weights.pkl"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert marker.exists()


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_a_refusal_names_what_would_have_been_run(runner: str, form: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pth"
    honest = hostile.tensor(legacy=form == "legacy")
    code = hostile.code_runners(marker)[runner]
    program = hostile.PROTO + hostile.dictionary(("a", honest), ("b", code)) + hostile.STOP
    if form != "plain":
        wrap = hostile.zipped if form == "zip" else hostile.legacy
        program = wrap(program, {"0": bytes(16)})
    path.write_bytes(program)
    with pytest.raises(ConversionError) as refusal:
        read_weights(path)
    named = {
        "STACK_GLOBAL": "builtins.eval",
        "STACK_GLOBAL of the memo": "builtins.exec",
        "INST": "posix.system",
        "OBJ": "builtins.eval",
        "NEWOBJ": "builtins.list, builtins.map, builtins.eval",
        "BUILD": "types.SimpleNamespace, posix.system",
    }.get(runner, runner.rpartition(" ")[2])
    assert f"it wants to run {named}; nothing was run" in str(refusal.value)
    assert not marker.exists()


def test_the_files_are_the_same_each_time(tmp_path: Path) -> None:
    first, again = (dict(enumerate(hostile.cases(tmp_path / "m"))) for _ in range(2))
    assert pickle.dumps(first) == pickle.dumps(again)


if __name__ == "__main__":  # the child of `outcome`
    print(json.dumps(_read_all(Path(sys.argv[1]), Path(sys.argv[2]))))
