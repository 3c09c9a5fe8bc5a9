"""`pix2live doctor`: what it says of the extras of pyproject.toml."""

from __future__ import annotations

import platform
import re
import sys
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import pytest

from tools import doctor
from tools.doctor import EXTRAS, missing_packages, packages_of

ROOT = Path(__file__).parent.parent.parent
MADE = [
    "numpy>=1.26",
    'numpy>=1.20; extra == "old"',
    'numpy>=99.1,<100; extra == "new"',
    'no-such-package>=2; extra == "absent"',
    'pix2live[new,absent]; extra == "both"',
    'no-such-package; sys_platform == "beos" and extra == "elsewhere"',
    'no-such-package; (sys_platform == "linux" and platform_machine == "vax") and extra == "vax"',
    'build-no; extra == "folder"',
]


def of_pyproject() -> dict[str, list[str]]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read pyproject.toml")
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = data["project"]["optional-dependencies"]
    return found


def test_every_extra_has_its_words() -> None:
    assert list(EXTRAS) == list(of_pyproject())


@pytest.mark.parametrize("name", EXTRAS)
def test_an_extra_consists_of_what_pyproject_says(name: str) -> None:
    """The same from the installed metadata as from the source."""
    extras = of_pyproject()

    def names(extra: str) -> set[str]:
        found = set()
        for line in extras[extra]:
            inner = re.fullmatch(r"pix2live\[(.+)\]", line)
            if inner:
                found |= set().union(*map(names, inner[1].split(",")))
            elif "platform_machine" not in line or platform.machine() == "x86_64":
                found.add(re.split(r"[<>=~;\s]", line)[0])
        return found

    try:
        installed, known = (
            requires("pix2live") or [],
            metadata("pix2live").get_all("Provides-Extra"),
        )
    except PackageNotFoundError:
        pytest.skip("pix2live is not installed: pip install -e .")
    if set(known or ()) != set(extras):
        pytest.skip("pix2live was installed from another pyproject.toml: pip install -e .")
    if sys.platform.startswith("linux"):
        assert {package for package, _ in packages_of(name, installed)} == names(name)


def test_only_conditions_that_are_understood() -> None:
    """Those of `packages_of`: this system's name and machine, joined by and."""
    for lines in of_pyproject().values():
        for line in lines:
            condition = r"(sys_platform|platform_machine) == '[^']+'"
            marker = line.partition(";")[2].strip()
            assert not marker or re.fullmatch(f"{condition}( and {condition})*", marker), line


def test_what_is_here_is_not_missing() -> None:
    assert missing_packages("old", MADE) == []
    assert missing_packages("elsewhere", MADE) == missing_packages("vax", MADE) == []


def test_what_is_absent_or_too_old_is_named_once() -> None:
    here = version("numpy")
    assert missing_packages("absent", MADE) == ["no-such-package"]
    assert missing_packages("new", MADE) == [f"numpy 99.1 or newer, found {here}"]
    both = [f"numpy 99.1 or newer, found {here}", "no-such-package"]
    assert missing_packages("both", MADE) == both


def test_a_folder_of_the_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``build/`` beside a checkout; what another distribution brings is one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "build_no").mkdir()
    assert missing_packages("folder", MADE) == ["build-no"]
    (tmp_path / "build_no" / "__init__.py").touch()
    assert missing_packages("folder", MADE) == []


@pytest.mark.parametrize(
    ("found", "versions", "wanted"),
    [
        ("4.10", ">=4.10.0", ""),
        ("4.10.0", ">=4.10", ""),
        ("4.9.9", ">=4.10", "4.10 or newer"),
        ("2.6.0+cpu", ">=2.6", ""),
        ("1.1.11", "==1.1.11", ""),
        ("1.1.11.0", "==1.1.11", ""),
        ("1.1.12", "==1.1.11", "1.1.11"),
        ("1.1.10", "==1.1.11", "1.1.11"),
        ("2.1", ">=3,<4", "3 or newer"),
        ("2.1", "", ""),
    ],
)
def test_versions_are_compared_number_by_number(
    found: str, versions: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.environment, "package_version", lambda _: found)
    missing = missing_packages("a", [f'thing{versions}; extra == "a"'])
    assert missing == ([f"thing {wanted}, found {found}"] if wanted else [])


def said(
    monkeypatch: pytest.MonkeyPatch, requirements: list[str], known: tuple[str, ...] = tuple(EXTRAS)
) -> dict[str, tuple[str, object]]:
    facts = Message()
    for name in known:
        facts["Provides-Extra"] = name
    monkeypatch.setattr(doctor, "requires", lambda _: requirements)
    monkeypatch.setattr(doctor, "metadata", lambda _: facts)
    found = [item for item in doctor.examine() if item.topic == "Extras"]
    return {item.text.partition(":")[0]: (item.text, item.good) for item in found}


def test_each_is_said_with_the_line_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ['no-such-package; extra == "int8"', 'no-such-package; extra == "test"']
    found = said(monkeypatch, lines)
    assert list(found) == list(EXTRAS)
    text, good = found["int8"]
    assert text.startswith("int8: pix2live convert --to onnx-int8; missing: no-such-package (")
    assert text.endswith("(pip install 'pix2live[int8]')")
    assert good is False
    assert found["test"][1] is None, "nobody lacks that"
    assert found["demo"] == ("demo: the film clip of pix2live demo", True)


def test_an_extra_that_the_installation_does_not_know_is_not_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after an update of the checkout beneath ``pip install -e .``."""
    found = said(monkeypatch, ['numpy; extra == "web"'], ("web",))
    assert list(found) == list(EXTRAS)
    assert found["web"] == ("web: pix2live serve", True)
    text, good = found["bench"]
    assert text == f"bench: {EXTRAS['bench']}; not in this installation: pip install -e ."
    assert good is None


def test_a_plain_checkout_says_how_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: str) -> list[str]:
        raise PackageNotFoundError

    monkeypatch.setattr(doctor, "requires", unknown)
    (found,) = (item.text for item in doctor.examine() if item.topic == "Extras")
    assert "pip install -e ." in found
