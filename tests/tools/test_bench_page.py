"""The page of a bench: whole, self-contained, readable on a phone."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_results import full_result, made_case, made_result

from engines import SettingsError, SinkError
from tools.bench import plots
from tools.bench.report import page, write_page
from tools.bench.results import Roofline

VOID = {"meta", "br", "link", "img", "hr", "input"}
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed"
)


class Checked(HTMLParser):
    """Every element is closed in order; names are unique; nothing points outside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.used: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.names.append(str(value))
            elif name in ("href", "xlink:href", "src"):
                assert str(value).startswith("#"), (tag, value)
                self.used.append(str(value)[1:])
            self.used += re.findall(r"url\(#([^)]+)\)", str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@needs_matplotlib
def test_the_page_is_one_sound_file() -> None:
    text = page(full_result())
    found = Checked(text)
    assert len(found.names) == len(set(found.names))
    assert set(found.used) <= set(found.names)
    assert found.used, "plots use names of their own"
    assert "script" not in found.tags
    outside = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert found.tags.count("svg") == 1 + 2 * 2, "fps, then ages and time for each size"
    assert found.tags.count("table") == 2
    assert "no &lt;driver&gt; &amp; no GPU" in text
    assert "<driver>" not in text


@needs_matplotlib
def test_the_page_says_the_numbers() -> None:
    text = page(full_result())
    for words in ("openvino f32", "51.0", "50.0 to 52.0", "22 ms old", "50.0", "A Processor"):
        assert words in text
    assert (
        "torch:cpu f32</b>: the rounds differ by 35% in latency; the rounds differ by 48%" in text
    )
    assert "no temperature" not in text
    assert "°C" in text
    assert "Share of the roofline" not in text
    assert "--filter comic" in text
    assert not [colour for colour in plots.COLOURS if colour in text], "a stand-in was left"


@needs_matplotlib
def test_the_roofline_is_shown_where_it_was_measured() -> None:
    case = made_case("openvino", 50, 51, roofline=Roofline(0.83, "bytes"))
    text = page(made_result(case))
    assert "Share of the roofline" in text
    assert "83 %" in text
    assert "this machine shows no temperature" in text


@needs_matplotlib
@pytest.mark.parametrize(("share", "inside"), [(0.85, True), (0.99, True), (1.06, False)])
def test_a_share_below_100_percent_is_not_written_right_of_the_line(
    share: float, inside: bool
) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    plots._share_words(axes, 0, 100 * share, 114 * max(1, share))
    (text,) = axes.texts
    assert (text.get_ha() == "right") == inside
    assert (text.get_position()[0] < 100) == inside


@needs_matplotlib
def test_the_headline_of_a_noisy_or_partial_case_is_marked() -> None:
    def headline(*fps: float, missing: int = 0) -> str:
        text = page(made_result(made_case("openvino", *fps, rounds_missing=missing)))
        return text[text.index('class="best"') : text.index("<h2>")]

    assert "noisy, 50.0 to 60.0 fps" in headline(50, 52, 60)
    assert "in part, 2 of 5 rounds, 50.0 to 51.0 fps" in headline(50, 51, missing=3)
    assert "in part, 1 of 5 rounds<" in headline(50, missing=4)
    assert 'class="noisy"' not in headline(50, 51, 52)


def test_an_interrupted_bench_without_a_result_is_a_page_too(tmp_path: Path) -> None:
    result = made_result(finished=False)
    write_page(tmp_path / "a.html", result)
    text = (tmp_path / "a.html").read_text()
    Checked(text)
    assert "Interrupted" in text
    assert list(tmp_path.iterdir()) == [tmp_path / "a.html"]


def test_what_a_page_needs_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot write"):
        write_page(tmp_path / "nowhere" / "a.html", made_result())
    monkeypatch.setattr(plots, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'pix2live\[bench\]'"):
        write_page(tmp_path / "a.html", full_result())
    assert list(tmp_path.iterdir()) == []


@needs_matplotlib
@pytest.mark.skipif(
    importlib.util.find_spec("playwright") is None, reason="playwright is not installed"
)
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 760, 1000, 1280])
def test_nothing_is_wider_than_the_screen(tmp_path: Path, width: int) -> None:
    from playwright.sync_api import sync_playwright

    result = full_result()
    result.cases[0].device = "CPU: A Processor with a Long Name and 64 Cores"
    write_page(tmp_path / "a.html", result)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), chromium_sandbox=os.geteuid() != 0
        )
        shown = browser.new_page(viewport={"width": width, "height": 800})
        shown.goto(f"file://{tmp_path / 'a.html'}")
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        scrolls = "document.querySelector('.wide').scrollWidth > document.querySelector('.wide')"
        if width != 1000:  # there it depends on the font
            assert shown.evaluate(f"{scrolls}.clientWidth") == (width == 760), "by itself"
        smallest_px = shown.evaluate(
            """() => Math.min(...[...document.querySelectorAll('svg text')].map(
                 text => text.getBoundingClientRect().height))"""
        )
        assert smallest_px > 9, "plots can be read"
        browser.close()
