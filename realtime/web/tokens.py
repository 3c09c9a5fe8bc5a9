"""The token of `pix2live serve`: shown once in an address, then a cookie; guesses are few."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Iterator

from aiohttp import web

from realtime.web.answers import ORIGIN, RELOAD, small_page
from realtime.web.limits import Guesses, Remembered

COOKIE_DAYS = 30


class Refused(Exception):  # noqa: N818
    """A request that is answered with a status and one line."""

    def __init__(self, status: int, why: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.headers = headers or {}


def too_many(what: str, wait_s: float) -> Refused:
    """Return the refusal of somebody who must wait."""
    seconds = max(1, math.ceil(wait_s))
    return Refused(429, f"{what}: try again in {seconds} s", {"Retry-After": str(seconds)})


def new_token() -> str:
    """Return a token that nobody guesses: 192 bits as letters, digits, - and _."""
    return secrets.token_urlsafe(24)


class TokenLock:
    """Lets in who shows the token, and then who shows the cookie. One event loop.

    The cookie is not the token: a browser sends a host's cookies to all its ports, to other
    people's servers too. It is a random name with its HMAC under a key that is made from the token
    alone. So after a restart with the same `--token` nobody has to come again, and with a new
    token everybody has to. Cookies that were right once here stay welcome while somebody at the
    same address guesses; others must wait like the guesser, or their waiting would tell him.
    """

    def __init__(self, token: str, port: int) -> None:
        self._token = _digest(token)
        self._key = hmac.digest(_bytes(token), b"pix2live cookie", "sha256")
        self._port = port
        self._guesses = Remembered(Guesses)
        self._known = Remembered(str)  # by digest: the order of a look-up tells nothing

    def known(self, request: web.Request) -> str | None:
        """Return a name for whose cookie was right before, here; None for all others."""
        digest = _digest(self._cookie(request)).hex()
        return digest if digest in self._known else None

    def check(self, request: web.Request, client: str, now_s: float) -> web.Response | None:
        """Return None for who may come in, an answer for a token in the page's address.

        Refused for a missing or wrong token (401), and after too many wrong ones (429).
        """
        known = self.known(request)
        if known is None and not self._is_right(request, client, now_s):
            if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
                # A strict cookie stays at home when a link of another site is followed; when our
                # own page reloads, it comes.
                return small_page(401, "One moment.", head=RELOAD)
            raise Refused(
                401,
                "the token is missing or wrong: open the address that pix2live serve printed",
                {"WWW-Authenticate": 'Bearer realm="pix2live"'},
            )
        if request.path != "/" or "token" not in request.query:
            return None
        response = web.Response(status=303, headers={"Location": "/"})
        if known is None:
            self._give_cookie(request, response)
        return response

    def _is_right(self, request: web.Request, client: str, now_s: float) -> bool:
        guesses = self._guesses[client]
        for text, is_cookie in self._shown(request):
            wait_s = guesses.wait_s(now_s)
            if wait_s > 0:
                raise too_many("too many wrong tokens from this address", wait_s)
            digest = _digest(text)
            if is_cookie and self._is_signed(text):
                self._known.remember(digest.hex())
                return True
            if not is_cookie and hmac.compare_digest(digest, self._token):
                return True
            guesses.wrong(now_s, digest)
        return False

    def _shown(self, request: web.Request) -> Iterator[tuple[str, bool]]:
        """Yield everything that may be the token, and whether it is the cookie."""
        if cookie := self._cookie(request):
            yield cookie, True
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            yield token.strip(), False
        if "token" in request.query:
            yield request.query["token"], False

    def _is_signed(self, cookie: str) -> bool:
        name, _, given = cookie.partition(".")
        return hmac.compare_digest(_bytes(given), _bytes(self._signature(name)))

    def _signature(self, name: str) -> str:
        return hmac.digest(self._key, _bytes(name), "sha256").hex()

    def _cookie(self, request: web.Request) -> str:
        return request.cookies.get(self._cookie_name(request), "")

    def _cookie_name(self, request: web.Request) -> str:
        """Name the port, because cookies do not know it; the prefix keeps other hosts' out."""
        prefix = "__Host-" if request[ORIGIN].scheme == "https" else ""
        return f"{prefix}pix2live-{self._port}"

    def _give_cookie(self, request: web.Request, response: web.Response) -> None:
        name = secrets.token_urlsafe(16)
        value = f"{name}.{self._signature(name)}"
        self._known.remember(_digest(value).hex())
        response.set_cookie(
            self._cookie_name(request),
            value,
            max_age=COOKIE_DAYS * 86_400,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=request[ORIGIN].scheme == "https",
        )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _digest(text: str) -> bytes:
    return hashlib.sha256(_bytes(text)).digest()
