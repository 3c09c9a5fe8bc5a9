"""Servers for tests: an event loop in a thread of its own, and an application at loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aiohttp import web

from realtime.web.connection import FIRST_REQUEST_S, accept

T = TypeVar("T")
L = TypeVar("L", bound="LoopThread")
PATIENCE_S = 60.0
"""How long anything may take here before it counts as broken."""


class LoopThread:
    """An event loop in a thread of its own; ends with the block."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="serving", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def tasks(self) -> set[str]:
        """Return the names of the tasks of the loop, but for the one that looks."""

        async def look() -> set[str]:
            return {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}

        return self.call(look())

    async def _end(self) -> None:
        """Close what was opened on the loop."""

    def close(self) -> None:
        try:
            self.call(self._end())
        finally:
            self._stop()

    def _stop(self) -> None:
        self.call(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self.loop.close()

    async def _cancel_all(self) -> None:
        """Cancel what lingers: connections that had not sent everything."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_default_executor()

    def __enter__(self: L) -> L:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AppServer(LoopThread):
    """An application with a test's own routes, on a port of loopback.

    The real server, in serving.py, has all routes with the times of every day, and a guard. This
    one is for a part alone: with shorter times, with handlers that fail when a test wants it.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        wait_s: float = FIRST_REQUEST_S,
        **runner_options: Any,
    ) -> None:
        super().__init__()
        self.port, self.tls = port, tls
        try:
            self.call(self._begin(wait_s, runner_options))
        except BaseException:
            self._stop()
            raise

    def _application(self) -> web.Application:
        """Return what answers, before anybody may ask; the port is known."""
        raise NotImplementedError

    async def _begin(self, wait_s: float, runner_options: dict[str, Any]) -> None:
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = int(listening.getsockname()[1])
        self._runner = web.AppRunner(self._application(), **runner_options)
        await self._runner.setup()
        self._accepting = await accept(self._runner, listening, tls=self.tls, wait_s=wait_s)

    async def _end(self) -> None:
        self._accepting.close()
        await self._runner.cleanup()


def wait_for(condition: Callable[[], object], what: str = "") -> None:
    """Wait until ``condition`` gives something true."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s, what
        time.sleep(0.01)
