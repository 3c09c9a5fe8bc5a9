"""Streams, events and statistics: one client takes neither all places nor all the loop's time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra web")
pytest.importorskip("prometheus_client", reason="the page needs the extra web")

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from web_serving import Server, wait_for

from engines import load_filter, open_engine
from realtime.stats import SinkStats
from realtime.web import api, streams
from realtime.web.session import Session


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    filters = {name: load_filter(name) for name in ("comic", "pencil")}
    routes = [*api.routes(stats_every_s=0.02), *streams.routes()]
    with Server(routes, filters=filters, engine=lambda model: open_engine(model or "comic")) as one:
        one.run(one.sessions.start_local("test-pattern:96x64@30"))
        yield one


@pytest.fixture
def local(server: Server) -> Session:
    session = server.sessions.local
    assert session is not None
    return session


def get(server: Server, path: str) -> Any:
    response, body = server.request(path)
    assert response.status == 200, body
    return json.loads(body)


def scrape(server: Server) -> list[dict[str, str]]:
    """Return the labels of all metrics."""
    text = server.request("/metrics")[1].decode()
    families = text_string_to_metric_families(text)
    return [dict(sample.labels) for family in families for sample in family.samples]


def first_words(server: Server, path: str) -> bytes:
    listener = server.listen(path)
    try:
        return listener.exactly(12)
    finally:
        listener.close()


@pytest.mark.parametrize("path", ["/stream.mjpg", "/api/events"])
def test_one_client_cannot_take_all_places(
    server: Server, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    wait_for(lambda: len(server.tasks()) == server.tasks_before, "a task was left by others")
    monkeypatch.setattr(streams, "may_have_all", lambda client: client != "127.0.0.1")
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            listener = server.listen(path)
            stack.callback(listener.close)
            assert listener.until(b"\r\n\r\n").startswith(b"HTTP/1.0 200")
        response, body = server.request(path)
        assert response.status == 429
        assert json.loads(body)["error"].startswith("8 streams")
        monkeypatch.setattr(streams, "may_have_all", lambda client: client == "127.0.0.1")
        assert first_words(server, path) == b"HTTP/1.0 200", "a proxy speaks for many"
        monkeypatch.setattr(streams, "may_have_all", lambda client: client != "127.0.0.1")
    wait_for(lambda: len(server.tasks()) == server.tasks_before, "a task was left")
    assert first_words(server, path) == b"HTTP/1.0 200", "there is room again"


def test_places_are_counted_by_client() -> None:
    places = streams.Places()

    def take(stack: contextlib.ExitStack, remote: str | None) -> int:
        try:
            stack.enter_context(places.take(remote, 10, 2, "streams"))
        except web.HTTPException as error:
            return error.status
        return 200

    with contextlib.ExitStack() as stack:
        home = ["2001:db8:1:2::1", "2001:db8:1:2::ffff", "2001:db8:1:2:3::"]
        assert [take(stack, one) for one in home] == [200, 200, 429], "one household"
        assert [take(stack, "192.0.2.1") for _ in range(3)] == [200, 200, 429]
        assert [take(stack, None) for _ in range(3)] == [200, 200, 429]
        proxies = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.1"]
        assert [take(stack, one) for one in proxies] == [200] * 4, "for many clients"
        assert [take(stack, one) for one in ("127.0.0.1", "192.0.2.9")] == [503, 503]
    with contextlib.ExitStack() as stack:
        assert [take(stack, "192.0.2.1") for _ in range(2)] == [200, 200], "they are free again"


def test_statistics_are_made_once_for_all_who_ask_at_a_time(
    server: Server, local: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "KEPT_S", 0.0)
    scrape(server)
    monkeypatch.setattr(api, "KEPT_S", 3600.0)
    made: list[str] = []

    def noted(name: str, made_of: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def make(one: Any) -> Any:
            made.append(name)
            return made_of(one)

        return make

    collect = api.SessionCollector.collect
    monkeypatch.setattr(api.SessionCollector, "collect", noted("metrics", collect))
    monkeypatch.setattr(Session, "stats", noted("stats", Session.stats))
    other = server.start_camera((64, 48))
    try:
        for _ in range(3):
            scrape(server)
            assert get(server, "/api/stats")["session"] == "local"
            assert get(server, f"/api/stats?session={other.id}")["session"] == other.id
        assert sorted(made) == ["metrics", "stats", "stats"]
        wanted = "comic" if local.filter == "pencil" else "pencil"
        wish = json.dumps({"filter": wanted}).encode()
        # While a filter is still being compiled, a switch is refused.
        wait_for(lambda: server.request("/api/switch", wish)[0].status == 200, "no switch")
        assert get(server, "/api/stats")["filter"] == wanted, "what was switched is told at once"
        scrape(server)
        assert sorted(made) == ["metrics"] * 2 + ["stats"] * 3
        monkeypatch.setattr(api, "KEPT_S", 0.0)
        scrape(server)
        get(server, "/api/stats")
        assert sorted(made) == ["metrics"] * 3 + ["stats"] * 4
    finally:
        server.run(server.sessions.end(other))


def test_sinks_that_have_left_are_no_metrics(
    server: Server, local: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "KEPT_S", 0.0)
    gone, here = SinkStats("recording", left=True), SinkStats("window")
    local.pipeline.stats.sinks += [gone, here]
    try:
        labels = scrape(server)
        places = {item["place"] for item in labels if "place" in item}
        stages = {item["stage"] for item in labels if "stage" in item}
        assert {"window queue", "window too old"} <= places
        assert "window" in stages
        assert not any("recording" in name for name in places | stages)
    finally:
        for item in (gone, here):
            local.pipeline.stats.sinks.remove(item)
