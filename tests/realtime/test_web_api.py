"""The JSON API, server-sent events and /metrics, against real sessions with real filters."""

from __future__ import annotations

import json
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra web")
pytest.importorskip("prometheus_client", reason="the page needs the extra web")

from prometheus_client.parser import text_string_to_metric_families
from web_serving import PATIENCE_S, Listener, Server, numbered, show, wait_for

from engines import FrameModel, load_filter, open_engine
from realtime.web import api
from realtime.web.session import Session

PATTERN = "test-pattern:96x64@30"
FILTERS = ("comic", "pencil")


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> FrameModel:
    """A filter whose file is gone since it was read."""
    path: Path = tmp_path_factory.mktemp("filters") / "gone.onnx"
    shutil.copy(load_filter("watercolour").path, path)
    model = FrameModel.read(path)
    path.unlink()
    return model


@pytest.fixture(scope="module")
def server(gone: FrameModel) -> Iterator[Server]:
    filters = {name: load_filter(name) for name in FILTERS} | {"gone <&>/#?": gone}
    routes = api.routes(stats_every_s=0.02, heartbeat_s=0.1)
    with Server(routes, filters=filters, engine=lambda model: open_engine(model or "comic")) as one:
        one.run(one.sessions.start_local(PATTERN))
        yield one


@pytest.fixture
def local(server: Server) -> Session:
    session = server.sessions.local
    assert session is not None
    assert not session.ended.is_set()
    return session


def get(server: Server, path: str, status: int = 200) -> Any:
    response, body = server.request(path)
    assert response.status == status, body
    assert response.headers["Content-Type"].startswith("application/json")
    return json.loads(body)


def switch(server: Server, **wish: Any) -> tuple[int, Any]:
    response, body = server.request("/api/switch", json.dumps(wish).encode())
    return response.status, json.loads(body)


def read_event(listener: Listener) -> tuple[str, Any]:
    """Return name and data of the next event; a comment is ("", its text)."""
    lines = listener.until(b"\n\n").decode().strip().splitlines()
    fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
    if not fields:
        return "", lines[0]
    assert set(fields) == {"event", "data"}
    return fields["event"], json.loads(fields["data"])


def open_events(server: Server, path: str = "/api/events") -> Listener:
    listener = server.listen(path)
    head = listener.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200"), head
    assert b"Content-Type: text/event-stream\r\n" in head
    return listener


def test_state_says_what_a_page_needs(server: Server, local: Session) -> None:
    state = get(server, "/api/state")
    assert state["version"] == api.installed_version()
    assert [item["name"] for item in state["filters"]] == [*FILTERS, "gone <&>/#?"]
    assert state["default_filter"] == "comic"
    assert "websocket" in state["transports"]
    assert state["local"]["session"] == "local"
    assert state["local"]["size"] == [96, 64]
    assert state["sessions"] == {"running": 0, "most": 4}
    assert state["max_size"] == [1920, 1080]


def test_filters_are_described(server: Server) -> None:
    comic, pencil, lost = get(server, "/api/filters")
    card = load_filter("comic").card
    assert comic == {
        "name": "comic",
        "title": card.title,
        "domains": card.domains,
        "task": card.task,
        "architecture": card.architecture,
        "licence": card.licence,
        "kilobytes": round(load_filter("comic").path.stat().st_size / 1000),
        "thumbnail": "/api/filters/comic.jpg",
    }
    assert pencil["name"] == "pencil"
    assert lost["kilobytes"] is None
    assert lost["thumbnail"] == "/api/filters/gone%20%3C%26%3E%2F%23%3F.jpg"


def test_thumbnails_are_sent_once(server: Server) -> None:
    response, jpeg = server.request("/api/filters/comic.jpg")
    assert response.status == 200
    assert response.headers["Content-Type"] == "image/jpeg"
    assert jpeg.startswith(b"\xff\xd8")
    etag = response.headers["ETag"]
    again, body = server.request("/api/filters/comic.jpg", **{"If-None-Match": etag})
    assert (again.status, body) == (304, b"")
    other, body = server.request("/api/filters/comic.jpg", **{"If-None-Match": '"older"'})
    assert (other.status, body) == (200, jpeg)


def test_a_placeholder_stands_for_a_filter_that_cannot_run(server: Server) -> None:
    response, jpeg = server.request(get(server, "/api/filters")[-1]["thumbnail"])
    assert response.status == 200
    assert jpeg.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    "name", ["nothing", "..", "..%2f..%2fetc%2fpasswd", "%00", "comic.onnx", "%ff", "a" * 4000]
)
def test_no_path_gets_out_of_the_gallery(server: Server, name: str) -> None:
    response, body = server.request(f"/api/filters/{name}.jpg")
    assert response.status == 404
    assert b"root:" not in body
    assert len(body) < 300


def test_a_switch_is_answered_when_the_filter_runs(server: Server, local: Session) -> None:
    told: list[dict[str, Any]] = []
    local.listeners.add(told.append)
    try:
        for name in ("pencil", "comic", "pencil"):
            assert switch(server, filter=name) == (200, {"filter": name})
            assert local.filter == name
            assert get(server, "/api/stats")["filter"] == name
        assert switch(server, session="local", filter="comic", crossfade_ms=50.5)[0] == 200
    finally:
        local.listeners.discard(told.append)
    assert [item["filter"] for item in told] == ["pencil", "comic", "pencil", "comic"]
    frames = local.pipeline.stats.engine_out.count
    wait_for(lambda: local.pipeline.stats.engine_out.count > frames + 3, "it stopped")


def test_what_cannot_be_switched_to_is_said_and_the_old_one_runs_on(
    server: Server, local: Session
) -> None:
    before = local.filter
    status, answer = switch(server, filter="gone <&>/#?")
    assert status == 409
    assert "cannot read" in answer["error"]
    status, answer = switch(server, filter="nothing")
    assert status == 404
    assert answer["error"].startswith("no filter 'nothing'; there are: comic, pencil")
    status, answer = switch(server, filter="comic", session="AAAA")
    assert status == 404
    assert "no such session" in answer["error"]
    frames = local.pipeline.stats.engine_out.count
    wait_for(lambda: local.pipeline.stats.engine_out.count > frames + 3, "it stopped")
    assert local.filter == before


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body must be JSON"),
        (b"{", "the body must be JSON"),
        (b"\xff\xfe", "the body must be JSON"),
        (b"[" * 60_000, "the body must be JSON"),
        (b"1" * 60_000, "the body must be JSON"),
        (b"[]", "must be a JSON object"),
        (b'"comic"', "must be a JSON object"),
        (b"{}", "filter must be the name"),
        (b'{"filter": 7}', "filter must be the name"),
        (b'{"filter": null}', "filter must be the name"),
        (b'{"filter": "comic", "fade": 1, "x": 2}', "unknown keys: 'fade', 'x'; there are: sess"),
        (b'{"filter": "comic", "\\ud800": 2}', "unknown keys: '\\ud800'"),
        (b'{"filter": "comic", "session": 1}', "session must be the id"),
        (b'{"filter": "comic", "crossfade_ms": true}', "crossfade_ms must be a number"),
        (b'{"filter": "comic", "crossfade_ms": "1"}', "crossfade_ms must be a number"),
        (b'{"filter": "comic", "crossfade_ms": null}', "crossfade_ms must be a number"),
        (b'{"filter": "comic", "crossfade_ms": -1}', "a cross-fade takes 0 to 10000 ms"),
        (b'{"filter": "comic", "crossfade_ms": 10001}', "a cross-fade takes 0 to 10000 ms"),
        (b'{"filter": "comic", "crossfade_ms": NaN}', "a cross-fade takes 0 to 10000 ms"),
        (b'{"filter": "comic", "crossfade_ms": 1e999}', "a cross-fade takes 0 to 10000 ms"),
        (b'{"filter": "comic", "crossfade_ms": 1' + b"0" * 400 + b"}", "crossfade_ms is too large"),
    ],
)
def test_a_wish_that_is_none_is_refused(server: Server, body: bytes, said: str) -> None:
    response, answer = server.request("/api/switch", body)
    assert response.status == 400
    error = json.loads(answer)["error"]
    assert said in error
    assert len(error) < 300
    assert "\n" not in error


def test_a_huge_body_is_not_read(server: Server) -> None:
    response, answer = server.request("/api/switch", b'{"filter": "' + b"a" * 70_000 + b'"}')
    assert response.status == 413
    assert json.loads(answer) == {"error": "a body has 65536 bytes at most"}


def test_a_body_that_never_comes_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "BODY_WITHIN_S", 0.1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        head = b"POST /api/switch HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
        connection.sendall(head)
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_stats_have_everything(server: Server, local: Session) -> None:
    wait_for(lambda: local.pipeline.stats.engine_out.count > 3, "no frames")
    stats = get(server, "/api/stats?session=local")
    assert stats["session"] == "local"
    assert stats["frames"] > 0
    assert stats["age"]["engine_out"]["p95_ms"] > 0
    assert {"dropped", "dropped_total", "device", "precision", "label", "watchers"} <= set(stats)
    assert {"round_trip", "notes", "sinks", "switches"} <= set(stats)
    assert list(get(server, "/api/stats?session=AAAA", 404)) == ["error"]


def test_events_tell_the_short_stats_until_the_session_ends(server: Server) -> None:
    tasks = server.tasks()
    session = server.start_camera((64, 48))
    listener = open_events(server, f"/api/events?session={session.id}")
    frames = 0
    heartbeat = False
    while frames < 2 or not heartbeat:
        name, data = read_event(listener)
        assert name in ("", "stats")
        if name == "stats":
            frames += 1
            assert data["session"] == session.id
            assert set(data) == set(session.short_stats())
        else:
            heartbeat = True
    show(session, numbered(1, (64, 48)))
    server.run(server.sessions.end(session, "enough"))
    while name != "ended":
        name, data = read_event(listener)
    assert data == {"reason": "enough"}
    assert listener.to_the_end() == b""
    listener.close()
    wait_for(lambda: server.tasks() <= tasks, "a task was left")
    get(server, f"/api/events?session={session.id}", 404)


def test_listeners_that_vanish_leave_nothing_and_are_limited(
    server: Server, local: Session
) -> None:
    wait_for(lambda: len(server.tasks()) == server.tasks_before, "a task was left by others")
    listeners = [open_events(server) for _ in range(api.MOST_EVENT_STREAMS)]
    get(server, "/api/events", 503)
    for listener in listeners[::2]:
        assert read_event(listener)[0] == "stats"
    for listener in listeners:
        reset = struct.pack("ii", 1, 0)
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        listener.close()
    wait_for(lambda: len(server.tasks()) == server.tasks_before, "a task was left")
    listener = open_events(server)  # there is room again
    assert read_event(listener)[0] == "stats"
    listener.close()


def test_head_of_events_starts_nothing(server: Server) -> None:
    response, body = server.request("/api/events", method="HEAD")
    assert (response.status, body) == (200, b"")
    assert response.headers["Content-Type"] == "text/event-stream"


def scrape(server: Server) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response, body = server.request("/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_metrics_are_those_of_the_sessions(server: Server, local: Session) -> None:
    session = server.start_camera((64, 48))
    try:
        for number in range(3):
            show(session, numbered(number, (64, 48)))
        session.round_trips.add(40_000_000, 1)
        found = scrape(server)
        _, text = server.request("/metrics")
        assert session.id.encode() not in text, "who has the id may watch"
        own = (("kind", "browser"), ("session", str(session.number)))
        assert found["pix2live_frames_total", own] == 3
        assert found["pix2live_watchers", own] == 0
        assert found["pix2live_filter_switches_total", own] == 0
        assert ("pix2live_frames_per_second", own) in found
        trip = tuple(sorted((*own, ("quantile", "0.95"))))
        assert found["pix2live_round_trip_seconds", trip] == pytest.approx(0.04, rel=0.02)
        assert found["pix2live_round_trip_seconds_count", own] == 1
        age_ms = session.pipeline.stats.engine_out.percentile_ms(50)
        assert age_ms is not None
        stage = ("stage", "engine_out")
        age = tuple(sorted((*own, stage, ("quantile", "0.5"))))
        assert found["pix2live_frame_age_seconds", age] == pytest.approx(age_ms / 1000)
        assert found["pix2live_frame_age_seconds_count", tuple(sorted((*own, stage)))] == 3
        place = tuple(sorted((*own, ("place", "engine queue"))))
        dropped = session.pipeline.stats.dropped()["engine queue"]
        assert found["pix2live_frames_dropped_total", place] == dropped
        info = next(dict(labels) for name, labels in found if name == "pix2live_session_info")
        assert {"session", "kind", "filter", "backend", "device", "precision"} <= set(info)
        assert found["pix2live_sessions", (("kind", "browser"),)] == 1
        assert found["pix2live_sessions", (("kind", "local"),)] == 1
        assert found["pix2live_browser_sessions_limit", ()] == 4
        assert found["pix2live_sessions_started_total", ()] == server.sessions.started
    finally:
        server.run(server.sessions.end(session))
    after = scrape(server)
    assert not any(("session", str(session.number)) in labels for _, labels in after)


def test_metrics_are_named_by_the_conventions(server: Server) -> None:
    _, body = server.request("/metrics")
    units = ("_seconds", "_total", "_info", "_per_second", "_watchers", "_sessions", "_limit")
    for family in text_string_to_metric_families(body.decode()):
        assert family.name.startswith("pix2live_")
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name.endswith(units), name
        assert family.documentation.endswith(".")
        assert "_ms" not in name
    assert all(
        "filter" not in dict(labels) for name, labels in scrape(server) if "info" not in name
    )
