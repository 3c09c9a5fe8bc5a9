"""Who gets in: Host, Origin, fetch metadata, methods, rates and the token.

Everything here assumes that the asker is hostile: another site's page in the browser of somebody
who may come in, or a program in the same network. A refusal says in one line which rule it was.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from engines import SettingsError
from realtime.web.addresses import Access, Origin, addresses_of, parse_host, parse_origin
from realtime.web.answers import ORIGIN, add_headers, answer, of_failure, of_http_error
from realtime.web.limits import Bucket, Remembered, client_of
from realtime.web.tokens import Refused, TokenLock, new_token, too_many

__all__ = [
    "Access",
    "Bucket",
    "add_headers",
    "addresses_of",
    "make_guard",
    "new_token",
    "protect",
]

REQUESTS_PER_S, REQUESTS_AT_ONCE = 60.0, 300.0
MOST_BODY_BYTES = 65_536
"""What a page has to say at length (an SDP, pictures) goes by the WebSocket."""
METHODS = ("GET", "HEAD", "POST")
FOREIGN = "this request comes from a page of another site"


def protect(
    app: web.Application, access: Access, *, clock: Callable[[], float] = time.monotonic
) -> None:
    """Put the guard before everything that `app` answers, and its headers on every answer."""
    app.middlewares.insert(0, make_guard(access, clock=clock))
    app.on_response_prepare.append(add_headers)


def make_guard(access: Access, *, clock: Callable[[], float] = time.monotonic) -> Middleware:
    """Return the middleware that lets in only who may, and turns errors into one line.

    It must be the outermost one, and `add_headers` belongs to it; `protect` adds both. `clock`
    counts seconds. Raises SettingsError if a host of `access` is none, or its token is empty.
    """
    guard = Guard(access, clock)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            instead = guard.check(request)
            return await handler(request) if instead is None else instead
        except Refused as refused:
            return answer(request, refused.status, refused.why, refused.headers)
        except web.HTTPException as error:
            return of_http_error(request, error)
        except Exception as error:  # noqa: BLE001  a client never sees a traceback
            return of_failure(request, error)

    return middleware


class Guard:
    """The rules, and what is remembered of clients, in bounded memory. One event loop."""

    def __init__(self, access: Access, clock: Callable[[], float]) -> None:
        if access.token is not None and not access.token.strip():
            raise SettingsError("the token is empty: leave it out and one is made")
        self._access = access
        self._clock = clock
        self._origins = access.origins()
        self._lock = None if access.token is None else TokenLock(access.token, access.port)
        self._buckets = Remembered(lambda: Bucket(REQUESTS_PER_S, REQUESTS_AT_ONCE))

    def check(self, request: web.Request) -> web.StreamResponse | None:
        """Return None to let a request in, or an answer that takes its place; else Refused.

        What is refused for where it comes from costs its client nothing: a foreign page in
        somebody's browser must not use up what the person has.
        """
        request[ORIGIN] = origin = self._check_host(request)
        _check_origin(request, origin)
        _check_fetch_metadata(request)
        _check_method_and_body(request)
        now_s = self._clock()
        client = client_of(request.remote)
        known = self._lock.known(request) if self._lock else None
        # Who has shown the token has a bucket of his own: a neighbour behind the same address
        # (a router, a proxy, this machine) cannot empty it.
        bucket = self._buckets[client if known is None else known]
        if not bucket.take(now_s):
            raise too_many("too many requests", bucket.wait_s(now_s))
        return self._lock.check(request, client, now_s) if self._lock else None

    def _check_host(self, request: web.Request) -> Origin:
        if not request.raw_path.startswith("/"):  # a full address would override the Host header
            raise Refused(400, "the address in the request line must begin with /")
        given = request.headers.getall("Host", [])
        if len(given) != 1:
            raise Refused(400, "a request needs one Host header")
        for scheme, port in (("http", 80), ("https", 443)):
            place = parse_host(given[0], port)
            if place is None:
                raise Refused(400, "the Host header is no host")
            origin = Origin(scheme, *place)
            if origin in self._origins or origin == self._arrived_at(request):
                return origin
        raise Refused(
            403, "pix2live does not go by this name and port; if it should: --allow-host NAME:PORT"
        )

    def _arrived_at(self, request: web.Request) -> Origin | None:
        """Return the address that the connection came to: it may be newer than this server.

        It is this machine's, so no foreign name is let in with it.
        """
        name = request.get_extra_info("sockname")
        if not isinstance(name, tuple):
            return None
        address = ipaddress.ip_address(str(name[0]).partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return Origin(self._access.scheme, address.compressed, self._access.port)


def _check_origin(request: web.Request, origin: Origin) -> None:
    """Browsers send Origin with WebSockets, POST and what crosses sites; programs send none."""
    for given in request.headers.getall("Origin", []):
        if parse_origin(given) != origin:
            raise Refused(403, FOREIGN)


def _check_fetch_metadata(request: web.Request) -> None:
    """Refuse what a foreign page loads (Sec-Fetch-Site); a link to the page may be followed."""
    headers = request.headers
    if headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
        return
    is_navigation = (
        request.method == "GET"
        and request.path == "/"
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest") == "document"
    )
    if not is_navigation:
        raise Refused(403, FOREIGN)


def _check_method_and_body(request: web.Request) -> None:
    if request.method not in METHODS:
        raise Refused(405, "only GET, HEAD and POST are taken", {"Allow": ", ".join(METHODS)})
    # A form may be sent from any page without asking; JSON may not.
    if request.method == "POST" and request.content_type != "application/json":
        raise Refused(415, "a POST must carry JSON (Content-Type: application/json)")
    if (request.content_length or 0) > MOST_BODY_BYTES:
        raise Refused(413, f"a request has at most {MOST_BODY_BYTES} bytes here")
