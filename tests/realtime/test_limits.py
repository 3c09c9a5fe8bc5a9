"""Buckets, memory and addresses of the guard: pure functions, by their properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import SettingsError
from realtime.web.addresses import Access, Origin, addresses_of, parse_host, parse_origin
from realtime.web.limits import GUESSES, Bucket, Guesses, Remembered, client_of

steps = st.lists(st.tuples(st.floats(-1.0, 10.0), st.floats(0.0, 5.0)), min_size=1, max_size=60)


@given(steps=steps, rate=st.floats(0.1, 100.0), burst=st.floats(1.0, 50.0))
def test_a_bucket_never_gives_more_than_it_gets(
    steps: list[tuple[float, float]], rate: float, burst: float
) -> None:
    bucket = Bucket(rate, burst)
    now_s = latest_s = first_s = 1000.0
    given_out = 0.0
    bucket.take(first_s, 0.0)
    for passed_s, cost in steps:
        now_s += passed_s
        latest_s = max(latest_s, now_s)
        if bucket.take(now_s, cost):
            given_out += cost
        assert given_out <= burst + (latest_s - first_s) * rate + 1e-6


@given(st.floats(0.1, 100.0), st.floats(1.0, 50.0), st.floats(0.0, 1.0))
def test_after_the_wait_there_is_enough(rate: float, burst: float, part: float) -> None:
    bucket = Bucket(rate, burst)
    assert bucket.wait_s(5.0) == 0
    assert bucket.take(5.0, burst)
    cost = burst * part
    wait_s = bucket.wait_s(5.0, cost)
    if wait_s > 1e-6:
        assert not bucket.take(5.0 + wait_s * 0.99 - 1e-9, cost)
    assert bucket.take(5.0 + wait_s * 1.001 + 1e-6, cost)


def test_a_bucket_starts_full_and_never_gives_more_than_its_size() -> None:
    bucket = Bucket(2.0, 5.0)
    assert [bucket.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert not bucket.take(0.4)
    assert bucket.take(0.5)
    assert not bucket.take(1e9, 5.1)
    assert bucket.take(1e9, 5.0)
    assert not bucket.take(0.0)  # a clock that went back gives nothing


def test_clients_are_forgotten_in_the_order_in_which_they_asked() -> None:
    made: list[int] = []
    memory = Remembered(lambda: made.append(0) or len(made), most=3)
    assert [memory[key] for key in "abcab"] == [1, 2, 3, 1, 2]
    assert memory["d"] == 4  # c asked longest ago
    assert ["c" in memory, "a" in memory, len(memory)] == [False, True, 3]
    for key in range(1000):
        memory.remember(str(key))
    assert len(memory) == 3


def test_the_same_wrong_token_is_one_guess() -> None:
    guesses = Guesses()
    for _ in range(100):
        guesses.wrong(0.0, b"yesterday")
    assert guesses.wait_s(0.0) == 0
    for guess in range(GUESSES - 1):
        assert guesses.wait_s(0.0) == 0
        guesses.wrong(0.0, str(guess).encode())
        guesses.wrong(0.0, b"yesterday")
    assert guesses.wait_s(0.0) > 0


@pytest.mark.parametrize(
    ("remote", "client"),
    [
        ("192.168.1.7", "192.168.1.7"),
        ("::ffff:192.168.1.7", "192.168.1.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("::1", "::1"),
        (None, "unknown"),
        ("/run/socket", "unknown"),
    ],
)
def test_a_client_is_an_address_or_a_household(remote: str | None, client: str) -> None:
    assert client_of(remote) == client


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("localhost", ("localhost", 80)),
        ("LOCALHOST:8080", ("localhost", 8080)),
        ("[::1]:8080", ("::1", 8080)),
        ("[0:0::1]", ("::1", 80)),
        ("a_b-c.local:1", ("a_b-c.local", 1)),
        *((bad, None) for bad in ("", ":80", "a:", "a:b", "a:65536", "a b", "::1", "[::1", "a\n")),
        *(
            (bad, None)
            for bad in ("a/b", "a@b", "a;b", "-a", ".a", "[1.2.3.4]", "a:\u0661", "\u00e4")
        ),
    ],
)
def test_a_host_is_read_strictly(host: str, wanted: tuple[str, int] | None) -> None:
    assert parse_host(host, 80) == wanted


@given(st.text(max_size=40))
def test_no_text_breaks_the_readers(text: str) -> None:
    for found in (parse_host(text, 80), parse_origin(text), parse_origin(f"http://{text}")):
        if found is not None:
            assert not set(found[-2]) & set(" ;,'\"<>/\\@\r\n")  # type: ignore[arg-type]


def test_an_origin_has_all_three_parts() -> None:
    assert parse_origin("http://localhost:8080") == Origin("http", "localhost", 8080)
    assert parse_origin("https://[::1]") == Origin("https", "::1", 443)
    for bad in (
        "null",
        "",
        "localhost",
        "ftp://a",
        "http://",
        "http://a/",
        "http://u@a",
        "HTTP//a",
    ):
        assert parse_origin(bad) is None
    for origin in (Origin("http", "a", 80), Origin("https", "::1", 9), Origin("http", "a", 443)):
        assert parse_origin(str(origin)) == origin
    assert str(Origin("https", "a", 443)) == "https://a"


def test_hosts_become_origins() -> None:
    hosts = frozenset(
        {"box.local", "::1", "[fe80::1]:9", "tunnel:9000", "https://b\u00fccher.example"}
    )
    assert sorted(map(str, Access(hosts, 8080).origins())) == [
        "http://[::1]:8080",
        "http://[fe80::1]:9",
        "http://box.local:8080",
        "http://tunnel:9000",
        "https://xn--bcher-kva.example",
    ]
    assert set(map(str, Access(frozenset({"a"}), 443, tls=True).origins())) == {"https://a"}
    for bad in ("", "a b", "a/b", "ftp://a", "http://", "a:99999", "[::g]", "*"):
        with pytest.raises(SettingsError, match="is no host: give a name or an address"):
            Access(frozenset({bad}), 80).origins()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "::1", "[::1]", "LOCALHOST", "127.0.0.2"]
)
def test_loopback_goes_by_its_own_names_only(host: str) -> None:
    assert addresses_of(host) - {"127.0.0.2"} == {"localhost", "127.0.0.1", "::1"}


def test_an_open_server_goes_by_all_names_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Box.lan")
    for wildcard in ("0.0.0.0", "::"):
        found = addresses_of(wildcard, ["cam.example.org"])
        assert {"localhost", "127.0.0.1", "box.lan", "box", "box.local", "cam.example.org"} <= found
        assert not {"0.0.0.0", "::", "Box.lan"} & found
        Access(found, 80).origins()
    assert {"192.168.1.7", "box", "box.local"} <= addresses_of("192.168.1.7")
    assert "localhost" not in addresses_of("192.168.1.7")
    assert {"elsewhere.invalid", "box.local"} <= addresses_of("elsewhere.invalid")
