"""The scripted attacker against the real server; a page in its midst notices nothing."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator

import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra web")
pytest.importorskip("prometheus_client", reason="the page needs the extra web")

from attacks import ATTACKS, NO_ENTRY, WEBSOCKET, Answer, check_refusal, cookie_of, request, send
from guarded import LOGIN, TOKEN
from serving import Serving, moving, opened, serving

PATHS = ("/", "/page/icon.svg", "/api/state", "/api/filters", "/api/stats", "/api/events",
         "/metrics", "/ws", "/stream.mjpg", "/frame.jpg")  # fmt: skip
ADDRESSES = [f"127.0.1.{number}" for number in range(1, 251)]
"""Attackers have addresses of their own, so that none is only refused for coming too often."""
FLOOD = 1000


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving("test-pattern", token=TOKEN) as found:
        yield found


def attack(served: Serving, number: int, text: str, login: str = LOGIN) -> Answer:
    return send(served.port, text, login, ADDRESSES[number % len(ADDRESSES)])


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_on_the_real_server_is_refused(served: Serving, name: str) -> None:
    check_refusal(attack(served, list(ATTACKS).index(name), ATTACKS[name]))


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_shown_without_the_token(served: Serving, path: str) -> None:
    for number, headers in enumerate(NO_ENTRY.values()):
        for more in ((), WEBSOCKET):
            answer = attack(served, number, request(f"GET {path}", *headers, *more), "X-No: token")
            check_refusal(answer)
            assert answer.status == 401


def test_who_has_the_token_gets_in(served: Serving) -> None:
    """Else the tests above would show nothing."""
    for path in ("/api/state", "/api/filters", "/api/stats", "/metrics", "/frame.jpg"):
        answer = attack(served, 0, request(f"GET {path}", "Connection: close"))
        assert answer.status == 200, path
        assert answer.headers["server"] == "pix2live"
        assert "content-security-policy" in answer.headers
    entered = attack(served, 0, request(f"GET /?token={TOKEN}"), "X-No: token")
    cookie = cookie_of(entered)
    own = "Origin: http://{host}"
    assert attack(served, 0, request("GET /ws", own, *WEBSOCKET), cookie).status == 101


def flood(port: int) -> list[int]:
    """Send many requests over one connection as fast as they are taken; return the statuses."""
    one = request("GET /api/state").format(host=f"127.0.0.1:{port}", login=LOGIN).encode()
    found = []
    with socket.create_connection(("127.0.0.1", port), 60.0, ("127.0.0.8", 0)) as connection:
        stream = connection.makefile("rb")
        for _ in range(FLOOD // 50):
            connection.sendall(one * 50)
            for _ in range(50):
                found.append(int(stream.readline().split()[1]))
                length = 0
                while (line := stream.readline()) != b"\r\n":
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                stream.read(length)
    return found


def test_a_page_notices_nothing(served: Serving, caplog: pytest.LogCaptureFixture) -> None:
    def all_attacks() -> list[int]:
        for number, text in enumerate(ATTACKS.values()):
            check_refusal(attack(served, number, text))
        return flood(served.port)

    async def page() -> None:
        async with opened(served, headers={"Authorization": f"Bearer {TOKEN}"}) as mine:
            assert (await mine.start(filter="comic"))["type"] == "started"
            attacks = asyncio.ensure_future(asyncio.to_thread(all_attacks))
            number = 0
            while number < 10 or not attacks.done():  # one picture at a time: all must come back
                await mine.send(number, moving(number))
                assert (await mine.picture())[1] == number
                number += 1
            statuses = await attacks
            assert set(statuses) == {200, 429}
            assert statuses.count(429) > FLOOD // 10
            await mine.send(number, moving(number))
            assert (await mine.picture())[1] == number

    with caplog.at_level(logging.INFO):
        asyncio.run(asyncio.wait_for(page(), 120))
    assert not [record for record in caplog.records if record.exc_info]
