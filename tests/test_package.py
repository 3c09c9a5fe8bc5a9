"""The wheel has everything it needs, and runs away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", reason="building a wheel needs setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--wheel-dir", str(folder), str(ROOT)],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("pix2live-*.whl")
    return found


def test_the_wheel_has_the_packages_the_filters_and_the_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("engines/filters/comic.onnx", "engines/py.typed", "realtime/pipeline.py",
                   "tools/cli.py", "tools/train/paired.py"):  # fmt: skip
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"engines", "realtime", "tools"}


def test_the_wheel_runs_in_another_place(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    done = subprocess.run(
        [sys.executable, "-m", "tools", "run", "test-pattern", "--frames", "3", "--sink", "null",
         "--stats", "s.json"],
        cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(site), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [sys.executable, "-c", "import engines, tools; print(engines.__file__, tools.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert where.stdout.count(str(site)) == 2
