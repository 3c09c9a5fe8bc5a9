"""What programs ask: the JSON API, server-sent events and `/metrics` for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import math
from collections.abc import Callable, Hashable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from engines import FrameModel, Pix2liveError, SettingsError
from realtime.stats import Ages
from realtime.web.fade import read_crossfade
from realtime.web.guard import MOST_BODY_BYTES
from realtime.web.keys import SESSIONS
from realtime.web.session import Session
from realtime.web.sessions import FilterError, Sessions
from realtime.web.streams import STALLED_S, Places, Reader, find_session, refusal
from realtime.web.thumbnails import Thumbnails

BODY_WITHIN_S: Final = 10.0
SWITCH_KEYS: Final = ("session", "filter", "crossfade_ms")
STATS_EVERY_S: Final = 1.0
HEARTBEAT_S: Final = 15.0
MOST_EVENT_STREAMS: Final = 32
EVENT_STREAMS_OF_CLIENT: Final = 8
KEPT_S: Final = 0.5
"""Statistics are told again for so long: to make them takes the time of all, the loop's."""
QUANTILES: Final = {"0.5": 50, "0.95": 95, "0.99": 99}


def routes(
    *,
    stats_every_s: float = STATS_EVERY_S,
    heartbeat_s: float = HEARTBEAT_S,
    stalled_s: float = STALLED_S,
) -> list[web.RouteDef]:
    """Return the routes of `/api/...` and `/metrics`, for one application.

    Args:
        stats_every_s: how often `/api/events` tells the statistics.
        heartbeat_s: how often it sends a comment, so that nobody between closes the connection.
        stalled_s: after so long a reader of events that takes nothing is disconnected.
    """
    api = _Api(stats_every_s, heartbeat_s, stalled_s)
    return [
        web.get("/api/state", api.state),
        web.get("/api/filters", api.filters),
        web.get("/api/filters/{name}.jpg", api.thumbnail),
        web.post("/api/switch", api.switch),
        web.get("/api/stats", api.stats),
        web.get("/api/events", api.events),
        web.get("/metrics", api.metrics),
    ]


class _Api:
    """The handlers of one application."""

    def __init__(self, stats_every_s: float, heartbeat_s: float, stalled_s: float) -> None:
        self._stats_every_s = stats_every_s
        self._heartbeat_s = heartbeat_s
        self._stalled_s = stalled_s
        self._listening = Places()
        self._kept = _Kept()
        self._thumbnails: Thumbnails | None = None
        self._registry: CollectorRegistry | None = None

    async def state(self, request: web.Request) -> web.Response:
        sessions = request.app[SESSIONS]
        local = sessions.local
        shown = local is not None and not local.ended.is_set()
        return web.json_response(
            {
                "version": installed_version(),
                "filters": describe_filters(sessions),
                "default_filter": sessions.default_filter,
                "transports": ["websocket", *(["webrtc"] if find_spec("aiortc") else [])],
                "local": local.describe() if local is not None and shown else None,
                "sessions": {"running": sessions.running, "most": sessions.most},
                "max_size": list(sessions.max_size),
            }
        )

    async def filters(self, request: web.Request) -> web.Response:
        return web.json_response(describe_filters(request.app[SESSIONS]))

    async def thumbnail(self, request: web.Request) -> web.Response:
        if self._thumbnails is None:
            self._thumbnails = Thumbnails(request.app[SESSIONS].filters)
        try:
            jpeg = await self._thumbnails.jpeg(request.match_info["name"])
        except KeyError as error:
            raise refusal(
                404, f"no filter {error.args[0][:80]!r}; /api/filters lists them"
            ) from error
        etag = hashlib.sha256(jpeg).hexdigest()[:24]
        response = web.Response(headers={"Cache-Control": "no-cache"})
        response.etag = etag
        if any(known.value == etag for known in request.if_none_match or ()):
            response.set_status(304)
            return response
        response.content_type, response.body = "image/jpeg", jpeg
        return response

    async def switch(self, request: web.Request) -> web.Response:
        wish = read_switch(await _body(request))
        session = find_session(request, wish["session"])
        if session.kind != "local":  # whoever may watch knows the id
            raise refusal(403, "only the page whose camera it is may change anything")
        try:
            model = request.app[SESSIONS].model(wish["filter"])
        except FilterError as error:
            raise refusal(404, str(error)) from error
        try:
            await session.switch(model, wish["crossfade_ms"])
        except Pix2liveError as error:
            raise refusal(409, str(error)) from error
        return web.json_response({"filter": wish["filter"]})

    async def stats(self, request: web.Request) -> web.Response:
        session = find_session(request)
        about = session.number, session.filter
        body = self._kept.get(session.id, about, lambda: json.dumps(session.stats()).encode())
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    async def events(self, request: web.Request) -> web.StreamResponse:
        session = find_session(request)
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        if request.method == "HEAD":
            return response
        with self._listening.take(
            request.remote, MOST_EVENT_STREAMS, EVENT_STREAMS_OF_CLIENT, "streams of events"
        ):
            await self._tell(session, Reader(request, response, self._stalled_s))
        return response

    async def _tell(self, session: Session, reader: Reader) -> None:
        """Tell events until the session ends or the reader goes."""
        ended = asyncio.ensure_future(session.ended.wait())
        beating = asyncio.ensure_future(asyncio.sleep(self._heartbeat_s))
        try:
            await reader.open()
            while await reader.send(_event("stats", session.short_stats())):
                await asyncio.wait([ended], timeout=self._stats_every_s)
                if ended.done():
                    await reader.send(_event("ended", {"reason": session.reason}))
                    break
                if beating.done():
                    beating = asyncio.ensure_future(asyncio.sleep(self._heartbeat_s))
                    await reader.send(b": still here\n\n")
            await reader.close()
        except ConnectionError:
            pass  # it left while it was greeted
        finally:
            ended.cancel()
            beating.cancel()

    async def metrics(self, request: web.Request) -> web.Response:
        sessions = request.app[SESSIONS]
        if self._registry is None:
            self._registry = CollectorRegistry()
            self._registry.register(SessionCollector(sessions))
        make = functools.partial(generate_latest, self._registry)
        running = [one for one in sessions if not one.ended.is_set()]
        body = self._kept.get(None, tuple((one.number, one.filter) for one in running), make)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Kept:
    """Answers that are told again for `KEPT_S`, while what they are about is the same."""

    def __init__(self) -> None:
        self._answers: dict[str | None, tuple[float, Hashable, bytes]] = {}

    def get(self, name: str | None, about: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the answer ``name``, made anew where it is old, or was about something else."""
        now_s = asyncio.get_running_loop().time()
        made_s, was_about, answer = self._answers.get(name, (-math.inf, None, b""))
        if now_s - made_s < KEPT_S and was_about == about:
            return answer
        answer = make()
        fresh = {key: kept for key, kept in self._answers.items() if now_s - kept[0] < KEPT_S}
        self._answers = {**fresh, name: (now_s, about, answer)}
        return answer


class SessionCollector(Collector):
    """Prometheus' view of all sessions, made from their own counters when it is asked for.

    Sessions are told apart by their numbers; an id would let its reader watch. Filter, backend
    and device are labels of `pix2live_session_info` alone, so that no counter begins anew when
    the filter is switched; join them by ``session``. Sinks that were removed are left out: their
    names would pile up. Thread: the loop's.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def describe(self) -> list[Metric]:
        """Return nothing: what there is depends on the sessions."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield InfoMetricFamily(
            "pix2live", "The program that runs.", value={"version": installed_version()}
        )
        running = GaugeMetricFamily("pix2live_sessions", "Sessions that run now.", labels=["kind"])
        kinds = [session.kind for session in self._sessions if not session.ended.is_set()]
        for kind in ("browser", "local"):
            running.add_metric([kind], kinds.count(kind))
        yield running
        yield GaugeMetricFamily(
            "pix2live_browser_sessions_limit",
            "Browser sessions that may run at a time.",
            value=self._sessions.most,
        )
        yield CounterMetricFamily(
            "pix2live_sessions_started", "Sessions started so far.", value=self._sessions.started
        )
        yield from self._of_sessions()

    def _of_sessions(self) -> Iterator[Metric]:
        own = ["session", "kind"]
        info = InfoMetricFamily("pix2live_session", "What computes a session.", labels=own)
        frames = CounterMetricFamily("pix2live_frames", "Frames translated.", labels=own)
        dropped = CounterMetricFamily(
            "pix2live_frames_dropped", "Frames dropped, by place.", labels=[*own, "place"]
        )
        switches = CounterMetricFamily("pix2live_filter_switches", "Switches.", labels=own)
        fps = GaugeMetricFamily(
            "pix2live_frames_per_second", "Frames shown a second, of the latest.", labels=own
        )
        watchers = GaugeMetricFamily("pix2live_watchers", "Pages and streams.", labels=own)
        gap = GaugeMetricFamily(
            "pix2live_longest_gap_seconds", "Longest time between two frames.", labels=own
        )
        ages = SummaryMetricFamily(
            "pix2live_frame_age_seconds",
            "Age of a frame at a stage of its way, or when a sink had shown it.",
            labels=[*own, "stage"],
        )
        effects = SummaryMetricFamily(
            "pix2live_effect_seconds", "Time an effect takes.", labels=[*own, "effect"]
        )
        trips = SummaryMetricFamily(
            "pix2live_round_trip_seconds",
            "From the camera's frame on a page to the translated one on it.",
            labels=own,
        )
        for session in self._sessions:
            if session.ended.is_set():
                continue
            labels = [str(session.number), session.kind]
            stats, short = session.pipeline.stats, session.short_stats()
            names = ("filter", "backend", "device", "precision", "transport")
            info.add_metric(labels, {name: str(short[name]) for name in names})
            frames.add_metric(labels, stats.engine_out.count)
            for place, count in stats.dropped(left=False).items():
                dropped.add_metric([*labels, place], count)
            switches.add_metric(labels, stats.switches)
            fps.add_metric(labels, short["fps"])
            watchers.add_metric(labels, session.watchers)
            gap.add_metric(labels, stats.longest_gap_ms / 1e3)
            stages = [
                (name, getattr(stats, name)) for name in ("captured", "engine_in", "engine_out")
            ]
            sinks = [(sink.name, sink.ages) for sink in tuple(stats.sinks) if not sink.left]
            for stage, seen in (*stages, *sinks):
                _add_quantiles(ages, session, seen, stage=stage)
            for effect in stats.effects:
                _add_quantiles(effects, session, effect.times, effect=effect.name)
            _add_quantiles(trips, session, session.round_trips)
        yield from (info, frames, dropped, switches, fps, watchers, gap, ages, effects, trips)


def describe_filters(sessions: Sessions) -> list[dict[str, Any]]:
    """Return what a gallery should know of every filter, as JSON types."""
    return [_describe_filter(name, model) for name, model in sessions.filters.items()]


def read_switch(body: bytes) -> dict[str, Any]:
    """Read what `/api/switch` was asked: ``session`` (None: the local one), ``filter``,
    ``crossfade_ms``.

    Raises:
        web.HTTPBadRequest: the body is anything else; the error says what.
    """
    try:
        wish = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise refusal(400, 'the body must be JSON such as {"filter": "comic"}') from error
    if not isinstance(wish, dict):
        raise refusal(400, 'the body must be a JSON object such as {"filter": "comic"}')
    unknown = sorted(set(wish) - set(SWITCH_KEYS))
    if unknown:
        named = ", ".join(repr(key[:40]) for key in unknown[:5])
        raise refusal(400, f"unknown keys: {named}; there are: {', '.join(SWITCH_KEYS)}")
    if not isinstance(wish.get("filter"), str):
        raise refusal(400, "filter must be the name of a filter; /api/filters lists them")
    if not isinstance(wish.get("session"), (str, type(None))):
        raise refusal(400, "session must be the id of a session; without it: the local one")
    try:
        crossfade_ms = read_crossfade(wish)
    except SettingsError as error:
        raise refusal(400, str(error)) from error
    return {
        "session": wish.get("session"),
        "filter": wish["filter"],
        "crossfade_ms": crossfade_ms,
    }


def installed_version() -> str:
    """Return the version of the installed distribution, or ``0+checkout``."""
    try:
        return version("pix2live")
    except PackageNotFoundError:
        return "0+checkout"


def _describe_filter(name: str, model: FrameModel) -> dict[str, Any]:
    card = model.card
    kilobytes = None
    with contextlib.suppress(OSError):  # it was deleted, and runs on
        kilobytes = round(model.path.stat().st_size / 1000)
    return {
        "name": name,
        "title": card.title or name,
        "domains": card.domains,
        "task": card.task,
        "architecture": card.architecture,
        "licence": card.licence,
        "kilobytes": kilobytes,
        "thumbnail": f"/api/filters/{quote(name, safe='')}.jpg",
    }


async def _body(request: web.Request) -> bytes:
    body = bytearray()

    async def read() -> None:
        async for chunk in request.content.iter_any():
            body.extend(chunk)
            if len(body) > MOST_BODY_BYTES:
                raise refusal(413, f"a body has {MOST_BODY_BYTES} bytes at most")

    try:
        await asyncio.wait_for(read(), BODY_WITHIN_S)
    except asyncio.TimeoutError as error:
        raise refusal(408, f"the body did not come within {BODY_WITHIN_S:g} s") from error
    return bytes(body)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _add_quantiles(
    family: SummaryMetricFamily, session: Session, ages: Ages, **labels: str
) -> None:
    """Add percentiles since the session began, in seconds, and how many there were."""
    named = {"session": str(session.number), "kind": session.kind, **labels}
    values_ms = ages.percentiles_ms(*QUANTILES.values())
    for quantile, value_ms in zip(QUANTILES, values_ms, strict=True):
        if value_ms is not None:
            family.add_sample(family.name, {**named, "quantile": quantile}, value_ms / 1e3)
    family.add_sample(f"{family.name}_count", named, ages.count)
