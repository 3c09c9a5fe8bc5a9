"""How long a cross-fade shall take, as pages and programs ask for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra web")
pytest.importorskip("prometheus_client", reason="the page needs the extra web")

from aiohttp import web

from engines import SettingsError
from realtime.web.api import read_switch
from realtime.web.fade import read_crossfade

REFUSED = ["true", '"1"', "null", "[]", "-1", "10001", "NaN", "1e999", "1" + "0" * 400]


@pytest.mark.parametrize(
    ("asked", "found"), [("0", 0.0), ("200", 200.0), ("50.5", 50.5), ("10000", 10_000.0)]
)
def test_a_fade(asked: str, found: float) -> None:
    read = read_crossfade({"crossfade_ms": json.loads(asked)})
    assert read == found
    assert isinstance(read, float)
    assert wish(asked)["crossfade_ms"] == found


def test_without_one_there_is_none() -> None:
    assert read_crossfade({}) == 0.0
    assert read_switch(b'{"filter": "comic"}')["crossfade_ms"] == 0.0


@pytest.mark.parametrize("asked", REFUSED)
def test_what_is_none_is_refused_in_the_same_words_everywhere(asked: str) -> None:
    with pytest.raises(SettingsError) as to_a_page:
        read_crossfade({"crossfade_ms": json.loads(asked)})
    with pytest.raises(web.HTTPBadRequest) as to_a_program:
        wish(asked)
    assert json.loads(str(to_a_program.value.text))["error"] == str(to_a_page.value)


def wish(asked: str) -> dict[str, Any]:
    return read_switch(f'{{"filter": "comic", "crossfade_ms": {asked}}}'.encode())
