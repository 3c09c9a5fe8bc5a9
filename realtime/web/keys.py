"""What the handlers of the server share, by typed keys."""

from __future__ import annotations

from aiohttp import web

from realtime.web.sessions import Sessions

SESSIONS = web.AppKey("sessions", Sessions)
SOCKETS = web.AppKey("sockets", set[web.WebSocketResponse])
"""Those that are open, to be closed when the server stops."""
