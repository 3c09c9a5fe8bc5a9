"""Words with a slip in them: what was meant, and what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import EffectError, SettingsError
from realtime.effects import open_effect
from realtime.effects.words import Words

SLIPS = {
    "motion;invert": "did you mean 'motion:invert'?",
    "motion,invert": "did you mean 'motion:invert'?",
    "motoin": "no effect 'motoin'; did you mean 'motion'? There are: rectangle, ",
    "motoin:invert;hold_ms=3": "did you mean 'motion:invert;hold_ms=3'?",
    "Stabilize:0.4": "did you mean 'stabilise:0.4'?",
    "marker=7=poster.mp4": "did you mean 'marker:7=poster.mp4'?",
    "mine.py;sparkle": "did you mean mine.py:sparkle?",
    "person:invrt": "person does not know 'invrt' (did you mean invert?); it knows: invert, ",
    "motion:hold=300": "(did you mean hold_ms=?); it knows: invert, feather=, learn_s=, hold_ms=,",
    "marker:7;hold_ms=300": "(did you mean hold=?); it knows: scale=, fit=, over=, ",
    "status:botom": "(did you mean bottom?); it knows: bottom",
    "person:feather": "person: feather needs a value: feather=...",
    "person:invert=yes": "invert stands alone, without a value; found invert=yes",
    "person:invert;invert": "person: invert is given twice",
    "rectangle:invrt;0,0,1,1": "must be a number, found 'invrt' (did you mean invert?)",
}


@pytest.mark.parametrize("spec", SLIPS)
def test_a_slip_is_answered_by_what_was_meant(spec: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_effect(spec)
    assert SLIPS[spec] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["sparkle", "qqq:1"])
def test_what_resembles_nothing_gets_the_list_alone(spec: str) -> None:
    with pytest.raises(SettingsError, match=f"no effect '{spec}'; there are: rectangle, .*FILE.py"):
        open_effect(spec)


def test_what_an_effect_knows_is_what_it_has_asked_for() -> None:
    words = Words("thing", "large")
    with pytest.raises(SettingsError, match=r"^thing does not know 'large'$"):
        words.done()
    words.flag("small")
    words.number("width", 3)
    words.text("colour")
    with pytest.raises(SettingsError, match=r"'large'; it knows: small, width=, colour=$"):
        words.done()
    spaced = Words("thing", "width = 7")
    assert spaced.number("width", 1) == 7
    spaced.done()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine.py"


def said(path: Path, source: str, name: str = "sparkle") -> str:
    path.write_text(source)
    with pytest.raises((EffectError, SettingsError)) as caught:
        open_effect(f"{path}:{name}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_name_in_a_file_of_users(mine: Path) -> None:
    source = (
        "import math\nfrom realtime.effects import Context, effect\nNUMBER = 3\n"
        "@effect\ndef sparkle(frame, context): ...\ndef glow(frame, context): ...\n"
    )
    assert said(mine, source, "sparkel").endswith("has no 'sparkel'; did you mean sparkle?")
    assert said(mine, source, "qq").endswith("has no 'qq'; it has: sparkle, glow")
    assert said(mine, "NUMBER = 3\n", "qq").endswith("has no 'qq'")


HINT = 'belongs under if __name__ == "__main__":'


def test_a_file_that_ends_the_program_is_named(mine: Path) -> None:
    found = said(mine, "import sys\n\nsys.exit('usage: mine.py SOURCE\\nand more')\n")
    assert "mine.py (mine.py:3): it ends the program by sys.exit: usage: mine.py SOURCE; " in found
    assert "the file is imported" in found
    assert found.endswith(HINT)
    deep = "import argparse\nwords = argparse.ArgumentParser()\nwords.parse_args(['--no'])\n"
    assert "(mine.py:3): it ends the program by sys.exit: 2; " in said(mine, deep)
    assert "(mine.py:1): it ends the program by sys.exit; " in said(mine, "raise SystemExit\n")


def test_a_program_that_wants_words_is_told_that_it_is_imported(mine: Path) -> None:
    program = "import sys\nsource, model, sink = sys.argv[1:0]\n"
    found = said(mine, program)
    assert "(mine.py:2): ValueError: not enough values" in found
    assert found.endswith(HINT)
    assert HINT not in said(mine, "import nothing_like_that\n"), "that is no program"
    assert HINT not in said(mine, "import sys; sys.argv = (\n"), "that was never run"


def test_a_class_that_ends_the_program_is_named(mine: Path) -> None:
    source = (
        "from realtime.effects import Effect\nclass Mine(Effect):\n"
        "    def __init__(self):\n        raise SystemExit(3)\n"
        "    def process(self, frame, context): ...\n"
    )
    found = said(mine, source, "Mine")
    assert found == "cannot make the effect Mine (mine.py:4): it ends the program by sys.exit: 3"
