"""The page of `pix2live serve` in Chromium, for the tests of a module; a still collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# Only what a test asks for is imported: playwright and aiohttp may be missing.
if TYPE_CHECKING:
    from browsing import Translator
    from playwright.sync_api import Browser, Playwright
    from serving import Serving


@pytest.fixture
def nobody_collects() -> Iterator[None]:
    """The garbage collector comes by when it is called, not when chance has it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Playwright]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as found:
        yield found


@pytest.fixture(scope="module")
def browser(chromium: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Its camera shows a film."""
    from browsing import SIZE, film, launched

    with launched(chromium, film(tmp_path_factory.mktemp("film"), SIZE)) as found:
        yield found


@pytest.fixture(scope="module")
def translated() -> Iterator[Translator]:
    from browsing import Translator

    found = Translator()
    yield found
    found.close()


@pytest.fixture(scope="module")
def page_server() -> Iterator[Serving]:
    from browsing import serve

    with serve() as found:
        yield found


@pytest.fixture
def served(page_server: Serving) -> Serving:
    """All that came before have gone."""
    from loopback import wait_for

    wait_for(lambda: not page_server.sessions.running)
    return page_server
