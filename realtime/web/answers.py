"""How the server says no, and the headers that every answer carries.

Programs get JSON {"error": one line}, people a small page without anything to load. No error has
a traceback, a version or markup of the request in it.
"""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Mapping

from aiohttp import web

from realtime.web.addresses import Origin

MACHINE_PATHS = ("/api", "/ws", "/metrics", "/stream.mjpg", "/frame.jpg")
"""Read by programs: their errors are JSON."""
FAILED = "something failed here; the terminal of pix2live says more"
SAID = {
    400: "this is no request that pix2live understands",
    404: "there is nothing at this address",
    405: "this address does not take that method",
    413: "this request is too large",
}
KEPT = ("Allow", "Retry-After", "WWW-Authenticate")
HEADERS = {
    "Server": "pix2live",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src {sockets}; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'"
)
ORIGIN = web.RequestKey("origin", Origin)
"""The site of a request, once its Host header was found right."""
PAGE = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>pix2live</title>'
    '<meta name="viewport" content="width=device-width">'
    '<meta name="color-scheme" content="light dark">{head}</head>\n'
    "<body><h1>pix2live</h1><p>{why}</p></body></html>\n"
)
RELOAD = '<meta http-equiv="refresh" content="0">'
log = logging.getLogger("pix2live.web")


def answer(
    request: web.BaseRequest, status: int, why: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return an error as JSON or as a small page, by who reads it."""
    if _is_below(request.path, MACHINE_PATHS):
        body = json.dumps({"error": why})
        return web.Response(
            status=status, text=body, content_type="application/json", headers=headers
        )
    return small_page(status, why, headers)


def small_page(
    status: int, why: str, headers: Mapping[str, str] | None = None, head: str = ""
) -> web.Response:
    """Return a page that says `why`; `head` is markup of ours."""
    text = PAGE.format(head=head, why=html.escape(why))
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def of_http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    """Return an error of aiohttp in our form. What is no error, or JSON already, is raised."""
    if error.status < 400 or error.content_type == "application/json":
        raise error
    said = (error.text or "").partition("\n")[0]
    if not said or said == f"{error.status}: {error.reason}" or error.status == 413:
        said = SAID.get(error.status, error.reason)
    headers = {name: error.headers[name] for name in KEPT if name in error.headers}
    return answer(request, error.status, said[:300], headers)


def of_failure(request: web.Request, error: Exception) -> web.Response:
    """Log what nobody expected and return the 500 for it.

    An answer that was begun cannot become another one: there the connection is closed.
    """
    transport = request.transport
    is_gone = transport is None or transport.is_closing()
    # As ASCII: a path may carry escape sequences for the terminal that shows the log.
    where = f"{request.method} {request.path[:200]!a}"
    if is_gone and isinstance(error, ConnectionError):
        log.debug("%s: the client went away", where)
    else:
        log.error("%s failed", where, exc_info=error)
    if transport is not None and request.writer.output_size > 0:
        transport.close()
    return answer(request, 500, FAILED)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put the headers on; for `on_response_prepare`, so that streams have them too."""
    headers = response.headers
    headers.update(HEADERS)
    origin = request.get(ORIGIN)
    sockets = "'self'"
    if origin is not None:  # Safari before 15.4 does not count WebSockets as 'self'
        sockets += f" {str(origin).replace('http', 'ws', 1)}"
    headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY.format(sockets=sockets)
    if response.status >= 300 and response.status != 304:
        headers["Cache-Control"] = "no-store"
    elif "Cache-Control" not in headers:
        # The files of the page may be kept, but are asked for again after an update.
        is_page = request.path == "/" or _is_below(request.path, ("/page",))
        headers["Cache-Control"] = "no-cache" if is_page else "no-store"


def _is_below(path: str, tops: tuple[str, ...]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in tops)
