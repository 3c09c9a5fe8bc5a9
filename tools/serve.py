"""`pix2live serve`: a page that translates its own camera, or shows one of this machine."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
from rich.console import Console
from rich.text import Text

from engines import (
    FrameModel,
    SettingsError,
    Size,
    filter_names,
    load_filter,
    open_engine,
)
from realtime import Pipeline, Sink, Source
from tools.option_types import SizeType, precision_option
from tools.run import DEFAULT_FILTER, SWITCH_INTERVAL_S, keep_what_is_loaded

if TYPE_CHECKING:
    from realtime.web.sessions import PipelineMaker, Sessions

COLLECT_AFTER_S = 3.0
"""All sessions that end within so long are collected together: no frame moves meanwhile."""
M_ARENA_MAX, HEAPS = -8, max(2, os.cpu_count() or 1)
"""The option of glibc's mallopt (malloc.h), and its value."""


@click.command()
@click.argument("source", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="NAME|FILE.onnx",
    help="The first filter; more of your own may follow. All shipped ones are in the gallery."
    f"  [default: {DEFAULT_FILTER}]",
)
@click.option("--backend", default="auto", show_default=True, metavar="NAME")
@precision_option("As for run.")
@click.option("--size", type=SizeType(), help="Work on SOURCE at this size.  [default: its own]")
@click.option("--effect", "effects", multiple=True, metavar="SPEC", help="As of run; repeatable.")
@click.option(
    "--max-age", "max_age_ms", type=click.FloatRange(0, min_open=True), metavar="MS",
    help="Show nothing older.",
)  # fmt: skip
@click.option(
    "--sessions",
    "most",
    type=click.IntRange(0, 64),
    default=4,
    show_default=True,
    help="How many browsers may have their own camera translated at a time.",
)
@click.option("--quality", type=click.IntRange(30, 95), default=80, show_default=True, help="JPEG.")
@click.option(
    "--token",
    metavar="SECRET",
    help="Who knows it is let in.  [default: a new one where --host is not loopback]",
)
@click.option("--allow-host", "allowed", multiple=True, metavar="NAME", help="Also called this.")
@click.option(
    "--tls",
    is_flag=True,
    help="HTTPS with a certificate of its own: browsers give cameras to secure pages only.",
)
@click.option("--cert", type=click.Path(dir_okay=False, path_type=Path), help="Your certificate.")
@click.option("--key", type=click.Path(dir_okay=False, path_type=Path), help="Its private key.")
def serve(source: str | None, **options: Any) -> None:
    """Show a page that translates the camera of whoever opens it, or SOURCE for all to see.

    \b
    pix2live serve                               this machine's browser, its camera
    pix2live serve --host 0.0.0.0 --tls          a phone in the same network, its camera
    pix2live serve 0 --host 0.0.0.0              the camera of a machine without a screen
    """  # noqa: D301  (click reads \b as a control character)
    console = Console(stderr=True)
    share_heaps()
    try:
        asyncio.run(_serve(source, console, **options))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("aiohttp", "prometheus_client"):
            raise
        raise SettingsError(
            f"the page needs {error.name}, which is not installed: pip install 'pix2live[web]'"
        ) from error


async def _serve(
    source: str | None,
    console: Console,
    *,
    host: str,
    port: int,
    filters: tuple[str, ...],
    most: int,
    quality: int,
    token: str | None,
    allowed: tuple[str, ...],
    tls: bool,
    cert: Path | None,
    key: Path | None,
    **settings: Any,
) -> None:
    from realtime.web.addresses import LOOPBACK, Access, addresses_of
    from realtime.web.server import WebServer
    from realtime.web.sessions import Sessions
    from realtime.web.tokens import new_token

    secure = tls or cert is not None
    if token is None and (host not in LOOPBACK or allowed):  # a tunnel is no loopback
        token = new_token()
    offered = offered_filters(filters)
    sessions = Sessions(_pipeline_maker(**settings), offered, most=most)
    hosts = addresses_of(host, allowed)
    context = certificate_context(hosts, cert, key, console) if secure else None
    server = WebServer(sessions, Access(hosts, port, token, secure), host, tls=context)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        if source is None or await _unless(stop, sessions.start_local(source, quality=quality)):
            await server.start()
            keep_what_is_loaded()
            collect_what_sessions_leave(sessions)
            found = addresses(host, hosts, server.port, token, secure=secure)
            say_where(console, found, code=host not in LOOPBACK)
            local = sessions.local
            await _unless(stop, asyncio.Event().wait() if local is None else local.ended.wait())
    finally:
        await server.close()
    local = sessions.local
    if local is not None and local.failure is not None:
        raise local.failure
    if local is not None and not stop.is_set():
        console.print(Text(local.reason))


def say_where(console: Console, found: list[str], *, code: bool) -> None:
    """Print the addresses, and with ``code`` the first one for the camera of a phone."""
    console.print(Text(f"open {found[0]}"), soft_wrap=True)
    for other in found[1:]:
        console.print(Text(f"  or {other}"), style="dim", soft_wrap=True)
    if code and console.is_terminal:
        console.print(Text(qr_code(found[0]), style="white on black"), soft_wrap=True)


def share_heaps() -> None:
    """Let all threads allocate from `HEAPS` heaps of glibc; to be called before there are threads.

    Left alone it gives each thread its own, up to eight for each core, and each keeps megabytes of
    what the sessions of its threads once had: 30 to 65 MB in all on two cores at 640x360, and two
    are as fast there. Other C libraries have nothing of the kind. A number that the person has set
    stays.
    """
    if os.environ.get("MALLOC_ARENA_MAX") or "arena_max" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        libc.mallopt(M_ARENA_MAX, HEAPS)


def collect_what_sessions_leave(sessions: Sessions, after_s: float = COLLECT_AFTER_S) -> None:
    """Let the garbage collector look for each session that ends, soon after.

    Left alone it comes by when a quarter as many objects wait as there were when the server began,
    after some 270 visits: it counts objects, not the megabytes behind them. A session that holds
    itself, by a plug-in or a library or the error that ended it, is 6 MB at 640x360 and 53 MB at
    1920x1080.

    Thread: the loop's.
    """
    loop = asyncio.get_running_loop()
    due: asyncio.TimerHandle | None = None
    modules = len(sys.modules)

    def collect() -> None:
        nonlocal due, modules
        due = None
        gc.collect()
        # What the first sessions load stays too: to look through it takes 15 to 30 ms, with aiortc,
        # and 2 ms after this. Not beside a page's session, even one that failed: it would be passed
        # over for ever.
        pages = sessions.running or any(session is not sessions.local for session in sessions)
        if len(sys.modules) > modules and not pages:
            modules = len(sys.modules)
            gc.freeze()

    def ended() -> None:
        nonlocal due
        if due is None:
            due = loop.call_later(after_s, collect)

    sessions.on_left = ended


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Wait for ``work``; returns False where it was to stop before that."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
        return False
    working.result()
    return True


def offered_filters(asked: tuple[str, ...]) -> dict[str, FrameModel]:
    """Return the filters of the gallery by name: those that were asked for, then the shipped ones.

    Raises:
        Pix2liveError: one cannot be read, or two have one name.
    """
    offered: dict[str, FrameModel] = {}
    for name in asked or (DEFAULT_FILTER,):
        model = load_filter(name)
        if model.name in offered:
            raise SettingsError(f"two filters are called {model.name}: {name} is one of them")
        offered[model.name] = model
    for name in filter_names():
        model = load_filter(name)
        offered.setdefault(model.name, model)
    return offered


def _pipeline_maker(
    *,
    backend: str,
    precision: str,
    size: Size | None,
    effects: tuple[str, ...],
    max_age_ms: float | None,
) -> PipelineMaker:
    """Return what makes the pipeline of a session."""

    def make(source: Source | str, model: FrameModel, sink: Sink) -> Pipeline:
        engine = open_engine(model, backend=backend, precision=precision)
        return Pipeline(
            source,
            engine,
            [sink],
            mode="freshest",
            size=size if isinstance(source, str) else None,
            effects=effects,
            effect_errors="drop",
            max_age_ms=max_age_ms,
            overlay=False,
        )

    return make


def certificate_context(
    hosts: frozenset[str], cert: Path | None, key: Path | None, console: Console
) -> Any:
    """Return the TLS context: of your certificate, or of one made for the machine's addresses.

    Raises:
        SettingsError: half of a pair, or a certificate that cannot be used.
    """
    from engines.cache import EngineCache
    from realtime.web.certificate import make_certificate, read_certificate, ssl_context

    if (cert is None) != (key is None):
        raise SettingsError("--cert and --key belong together: give both, or --tls alone")
    if cert is not None and key is not None:
        return ssl_context(read_certificate(cert, key))
    certificate = make_certificate(hosts, EngineCache().folder.parent / "tls")
    console.print(
        Text(
            "  the certificate is of this machine's own making, so browsers ask once; its SHA-256"
            f" is\n  {certificate.fingerprint}"
        ),
        style="dim",
    )
    return ssl_context(certificate)


def addresses(
    host: str, hosts: frozenset[str], port: int, token: str | None, *, secure: bool
) -> list[str]:
    """Return what to open, the likeliest first; ``hosts`` are all names of the machine."""
    from realtime.web.addresses import LOOPBACK

    scheme = "https" if secure else "http"
    tail = f"/?token={quote(token, safe='')}" if token is not None else "/"
    names = [host]
    if host in ("0.0.0.0", "::"):  # noqa: S104
        plain = [name for name in hosts - LOOPBACK if "://" not in name]
        names = sorted(plain, key=lambda name: (":" in name, name)) or ["localhost"]
    return [f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}{tail}" for name in names]


def qr_code(text: str) -> str:
    """Return ``text`` as a QR code for a terminal, dark on light, two rows a line."""
    import cv2
    import numpy as np

    modules = cv2.QRCodeEncoder.create().encode(text) > 0
    modules = np.pad(modules, 2, constant_values=True)
    if modules.shape[0] % 2:
        modules = np.pad(modules, ((0, 1), (0, 0)), constant_values=True)
    blocks = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}
    rows = zip(modules[::2], modules[1::2], strict=True)
    return "\n".join("".join(blocks[bool(a), bool(b)] for a, b in zip(*row)) for row in rows)
