"""Who uses the page of `pix2live serve`: by mouse, keyboard, phone, and without a camera."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra web")
pytest.importorskip("playwright", reason="playwright drives the browser")

from browsing import (
    CHROMIUM,
    FILTERS,
    SIZE,
    UPRIGHT,
    Tab,
    Translator,
    film,
    get_to_look_like,
    launched,
    off,
    tab,
)
from playwright.sync_api import Browser, Playwright
from serving import Serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
FOCUSED = "document.activeElement.id || document.activeElement.name"
WITH_NAMES = {
    *("button", "combobox", "textbox", "slider", "radio", "radiogroup", "checkbox"),
    *("image", "link", "heading", "DisclosureTriangle"),
}


def test_a_snapshot_is_what_is_shown(browser: Browser, served: Serving) -> None:
    with tab(browser, served.url) as page:
        page.start("comic")
        with page.page.expect_download(timeout=60_000) as caught:
            page.page.click("#snapshot")
        file = caught.value
        assert re.fullmatch(r"pix2live-comic-\d{8}-\d{6}\.png", file.suggested_filename)
        data = Path(file.path()).read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (SIZE[1], SIZE[0], 3)
        assert picture.std() > 10


def test_a_recording_plays(browser: Browser, served: Serving) -> None:
    with tab(browser, served.url) as page:
        page.start("comic")
        page.page.click("#record")
        page.until(lambda: page.page.inner_text("#record-word") == "0:02", "two seconds")
        page.see(5)
        with page.page.expect_download(timeout=60_000) as caught:
            page.page.click("#record")
        with av.open(str(caught.value.path())) as container:
            frames = [
                np.asarray(it.to_ndarray(format="bgr24"), np.uint8)
                for it in container.decode(video=0)
            ]
        assert len(frames) > 3
        assert {frame.shape for frame in frames} == {(SIZE[1], SIZE[0], 3)}
        assert off(frames[0], frames[-1]) > 0.5
        assert frames[-1].std() > 10


def tab_to(page: Tab, name: str) -> None:
    """Press Tab until the focus is there."""
    for _ in range(60):
        if page.page.evaluate(FOCUSED) == name:
            return
        page.page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {name}")


def test_the_keyboard_alone(browser: Browser, served: Serving, translated: Translator) -> None:
    with tab(browser, served.url) as page:
        page.ready()
        keyboard = page.page.keyboard
        tab_to(page, "start")
        keyboard.press("Enter")
        page.see()
        assert page.page.evaluate(FOCUSED) == "split"  # the button that was pressed is gone
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "PageUp"):
            keyboard.press(key)
        assert page.page.get_attribute("#split", "aria-valuenow") == "62"
        assert "62 % camera" in str(page.page.get_attribute("#split", "aria-valuetext"))
        tab_to(page, "mirror")
        pressed = page.page.get_attribute("#mirror", "aria-pressed")
        keyboard.press("Space")
        assert page.page.get_attribute("#mirror", "aria-pressed") != pressed
        tab_to(page, "filter-comic")
        keyboard.press("ArrowRight")
        get_to_look_like(page, translated, FILTERS[1])
        keyboard.press("ArrowRight")
        get_to_look_like(page, translated, FILTERS[2])
        keyboard.press("Shift+Tab")
        assert page.page.evaluate(FOCUSED) == "stop"
        keyboard.press("Enter")
        page.get_to("idle")
        assert page.page.evaluate(FOCUSED) == "card"
        tab_to(page, "start")


def test_everything_has_a_name(browser: Browser, served: Serving) -> None:
    with tab(browser, served.url) as page:
        page.start("comic")
        for part in ("settings", "share", "notes"):
            page.page.evaluate(f"document.getElementById('{part}').open = true")
        tree = page.page.context.new_cdp_session(page.page).send("Accessibility.getFullAXTree")
        seen: dict[str, list[str]] = {}
        for node in tree["nodes"]:
            role = node.get("role", {}).get("value")
            if not node["ignored"] and role in WITH_NAMES:
                seen.setdefault(role, []).append(node.get("name", {}).get("value", ""))
        assert {"button", "combobox", "textbox", "slider", "radio", "checkbox"} <= set(seen)
        assert len(seen["radio"]) == len(FILTERS)
        for role, names in seen.items():
            assert all(name.strip() for name in names), (role, names)
            if role in ("button", "combobox", "slider"):
                assert len(set(names)) == len(names), (role, names)
        assert page.page.get_attribute("html", "lang") == "en"


COLOURS = """() => ["mode-camera", "mode-watch", "modes"].map((id) => {
  const { borderTopColor, backgroundColor, color } = getComputedStyle(document.getElementById(id));
  return [borderTopColor, backgroundColor, color];
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_chosen_mode_stands_out(browser: Browser, served: Serving, scheme: str) -> None:
    with tab(browser, served.url, color_scheme=scheme) as page:
        page.ready()
        page.page.evaluate("document.getElementById('mode-camera').ariaPressed = 'true'")
        page.page.wait_for_timeout(400)  # colours change gradually
        (edge, ground, words), (_, plain, _), (_, around, _) = page.page.evaluate(COLOURS)
        assert plain == "rgba(0, 0, 0, 0)", "the other one has the colour of what is around"
        assert edge.startswith("rgb("), "not transparent"
        assert contrast(edge, around) >= 3.0  # WCAG 2.2, 1.4.11
        assert contrast(words, ground) >= 4.5  # 1.4.3


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21, as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        values = np.array([int(value) for value in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_phone_held_upright(
    chromium: Playwright, served: Serving, translated: Translator, tmp_path: Path
) -> None:
    with (
        launched(chromium, film(tmp_path, UPRIGHT)) as browser,
        tab(browser, f"{served.url}/?debug", **PHONE) as page,
    ):
        page.ready()
        assert is_visible(page, "#start")
        page.choose("comic")
        page.page.tap("#start")
        page.see()
        sent, returned, _ = page.pair()
        assert returned.shape == (UPRIGHT[1], UPRIGHT[0], 3)
        assert off(returned, translated("comic", sent)) < 12
        box = page.page.locator("#canvas").bounding_box()
        assert box is not None
        assert box["width"] / box["height"] == pytest.approx(UPRIGHT[0] / UPRIGHT[1], rel=0.03)
        width = page.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["viewport"]["width"]  # nothing sticks out sideways
        for tool_id in ("compare", "snapshot", "fullscreen", "stop"):
            assert is_visible(page, f"#{tool_id}")
        page.page.tap("label.filter:has(#filter-pencil)")
        get_to_look_like(page, translated, "pencil")


def is_visible(page: Tab, selector: str) -> bool:
    """Whether an element is in the window without scrolling."""
    box, size = page.page.locator(selector).bounding_box(), page.page.viewport_size
    assert box is not None
    assert size is not None
    fits_across = box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
    return fits_across and box["y"] >= 0 and box["y"] + box["height"] <= size["height"]


def test_who_does_not_allow_the_camera_is_told_how(browser: Browser, served: Serving) -> None:
    with tab(browser, served.url, camera=False) as page:
        page.ready()
        page.page.click("#start")
        page.get_to("failed")
        assert page.title == "The camera is blocked"
        assert "Allow the camera" in page.page.inner_text("#card-text")
        assert not served.sessions.running
        page.page.context.grant_permissions(["camera"])
        page.page.click("#retry")
        page.see()


def test_who_has_no_camera_is_told_so(chromium: Playwright, served: Serving) -> None:
    with launched(chromium, None) as browser, tab(browser, served.url) as page:
        page.ready()
        page.page.click("#start")
        page.get_to("failed")
        assert page.title == "No camera was found"
        assert "Plug one in" in page.page.inner_text("#card-text")
        assert page.page.is_visible("#retry")
