"""The rules of the house: imports go downwards, and extras are needed only where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("engines", "realtime", "tools")
"""From the ground to the top: a floor imports itself and those below."""
NEVER_IMPORTED = ("tests", "benchmarks", "examples")
EXTRAS = (
    *("torch", "onnxscript", "onnxruntime", "mss", "skvideo"),
    *("aiortc", "pycuda", "cuda", "safetensors", "tensorrt", "tensorrt_rtx"),
    *("aiohttp", "prometheus_client", "cryptography", "playwright"),
    *("matplotlib", "pynvml"),
    *("lightning_fabric", "tensorboard", "torchvision", "pydicom"),
)
NEEDS_EXTRAS = ("engines.generators.", "engines.export", "tools.train.", "realtime.web.")
"""PyTorch is what these are about, or aiohttp; nothing else may import them before use."""


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
MODULES = [_module(path) for path in FILES]


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and module of every import, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, item.name) for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.lineno, node.module or ""


def test_there_is_a_house() -> None:
    assert {module.partition(".")[0] for module in MODULES} == set(FLOORS)
    assert {"engines.base", "realtime.pipeline", "tools.cli"} <= set(MODULES)


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_imports_are_absolute_and_go_downwards(path: Path) -> None:
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    for line, module in _imports(path):
        top = module.partition(".")[0]
        assert top not in NEVER_IMPORTED, f"{path}:{line}: imports {module}"
        assert top not in FLOORS[floor + 1 :], f"{path}:{line}: imports {module}, from above"


def test_openvino_is_imported_in_one_place() -> None:
    """There its telemetry is left out; any other import would start it."""
    folders = (*FLOORS, *NEVER_IMPORTED)
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if "openvino" in {module.partition(".")[0] for _, module in _imports(path)}
    }
    assert found == {"engines/backends/openvino.py"}


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT_EXTRAS = f"""
import importlib, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (it is an extra)", name=name)

sys.meta_path.insert(0, NotInstalled())
sys.path.insert(0, "")
"""


def test_every_module_imports_without_any_extra() -> None:
    modules = [name for name in MODULES if not f"{name}.".startswith(NEEDS_EXTRAS)]
    assert "tools.cli" in modules
    assert "engines.backends.torch" in modules
    modules.remove("tools.__main__")  # runs the command line
    _python(
        f"{WITHOUT_EXTRAS}\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        f"assert not set({EXTRAS!r}) & set(sys.modules)"
    )


def test_the_command_line_answers_without_any_extra() -> None:
    run = "import runpy\nrunpy.run_module('tools', run_name='__main__', alter_sys=True)"
    assert "run" in _python(f"{WITHOUT_EXTRAS}\nsys.argv = ['pix2live', '--help']\n{run}")


def test_a_missing_extra_is_an_error_that_names_it() -> None:
    found = _python(
        f"{WITHOUT_EXTRAS}\n"
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name in {EXTRAS!r}"
        " else real(name, *rest)\n"
        "from engines import EngineError, open_engine\n"
        "for name in ('torch', 'onnxruntime'):\n"
        "    try:\n"
        "        open_engine(None, (8, 8), backend=name)\n"
        "    except EngineError as error:\n"
        "        print(error)\n"
    )
    assert "pip install 'pix2live[torch]'" in found
    assert "pip install 'pix2live[onnxruntime]'" in found


def test_nothing_heavy_is_loaded_before_it_is_used() -> None:
    """`pix2live --help` and a screen that lists filters start at once."""
    found = _python("import sys, engines\nprint(*sys.modules)").split()
    assert not {"openvino", "onnx", "torch", "cv2", "av"} & set(found)
