"""The guard in a real browser: a foreign page gets nothing, a link gets a person in."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra web")
pytest.importorskip("playwright", reason="playwright drives the browser")

from guarded import TOKEN, Guarded, guarding
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium")
FOREIGN = """<!doctype html><title>waiting</title>
<a id="link" href="{url}/">the page</a> <a id="token" href="{url}/?token={token}">with a token</a>
<iframe src="{url}/"></iframe><img src="{url}/frame.jpg">
<script>
const tries = [
  fetch("{url}/api/state"),
  fetch("{url}/api/state", {{credentials: "include", mode: "no-cors"}}),
  fetch("{url}/api/switch",
        {{method: "POST", mode: "no-cors", credentials: "include", body: "{{}}"}}),
  fetch("{url}/api/switch",
        {{method: "POST", headers: {{"Content-Type": "application/json"}}, body: "{{}}"}}),
  new Promise((resolve) => {{
    const socket = new WebSocket("{socket}/ws");
    socket.onopen = socket.onerror = resolve;
  }}),
];
Promise.allSettled(tries).then(() => {{ document.title = "done"; }});
</script>"""


@pytest.fixture
def locked() -> Iterator[Guarded]:
    with guarding(TOKEN) as served:
        yield served


@pytest.fixture
def foreign(locked: Guarded) -> Iterator[str]:
    """A page of another site: for a browser localhost and 127.0.0.1 are two."""
    url = f"http://127.0.0.1:{locked.port}"
    page = FOREIGN.format(url=url, socket=url.replace("http", "ws"), token=TOKEN).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_foreign_page_gets_nothing_and_a_link_gets_in(locked: Guarded, foreign: str) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()

        def attack() -> None:
            page.goto(foreign)
            page.wait_for_function("document.title == 'done'")

        attack()
        page.click("#link")
        page.wait_for_selector("text=open the address that pix2live serve printed")
        attack()
        assert locked.entered == []
        page.click("#token")  # a strict cookie is not sent along; the reload brings it
        page.wait_for_selector("text=path")
        assert page.url == f"http://127.0.0.1:{locked.port}/"
        assert page.evaluate("document.cookie") == ""
        assert locked.entered == ["/"]
        attack()  # now in the browser of somebody who may come in
        assert locked.entered == ["/"]
        page.click("#link")
        page.wait_for_selector("text=path")
        posted = page.evaluate(
            "fetch('/api/switch', {method: 'POST', body: '{}', "
            "headers: {'Content-Type': 'application/json'}}).then((answer) => answer.status)"
        )
        opened = page.evaluate(
            "new Promise((resolve) => { "
            "const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws'); "
            "socket.onopen = () => resolve('open'); socket.onerror = () => resolve('error'); })"
        )
        assert (posted, opened) == (200, "open")
        assert locked.entered == ["/", "/", "/api/switch", "/ws"]
        browser.close()
