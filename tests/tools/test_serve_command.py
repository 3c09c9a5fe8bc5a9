"""`pix2live serve` as people type it: what it prints, refuses, and leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_cli import ROOT, pix2live

from tools.serve import qr_code


@contextmanager
def serving(cwd: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the command until the block ends; yields the process and its lines up to the address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tools", "serve", "--port", "0", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "HOME": str(cwd)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("open "):
            line = process.stderr.readline()
            assert line, f"it ended: {lines}"
            lines.append(line.rstrip())
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def fetch(address: str, context: ssl.SSLContext | None = None) -> bytes:
    with urllib.request.urlopen(address, timeout=60, context=context) as answer:
        found: bytes = answer.read()
        return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(number: int, tmp_path: Path) -> None:
    with serving(tmp_path) as (process, lines):
        address = lines[-1].removeprefix("open ")
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        assert b"Start camera" in fetch(address)
        state = json.loads(fetch(f"{address}api/state"))
        assert state["default_filter"] == "comic"
        assert state["local"] is None
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 0
        assert rest == ""


def test_a_source_of_this_machine_is_for_all_to_see(tmp_path: Path) -> None:
    with serving(tmp_path, "test-pattern:96x64@30", "--filter", "pencil") as (_, lines):
        address = lines[-1].removeprefix("open ")
        state = json.loads(fetch(f"{address}api/state"))
        assert state["local"]["filter"] == "pencil"
        data = np.frombuffer(fetch(f"{address}frame.jpg"), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (64, 96, 3)


def test_a_source_that_ends_ends_it(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((64, 96, 3), 40 * number, np.uint8))
    with serving(tmp_path, str(tmp_path)) as (process, _):
        _, rest = process.communicate(timeout=60)
        assert (process.returncode, rest.strip()) == (0, "the source has ended")


def test_other_hosts_get_a_token_and_tls(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", "--tls") as (_, lines):
        address = lines[-1].removeprefix("open ")
        assert re.search(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", "\n".join(lines))
        token = address.partition("/?token=")[2]
        assert len(token) >= 20
        assert address.startswith("https://")
        port = int(address.split(":")[2].split("/")[0])
        context = ssl.create_default_context(
            cafile=tmp_path / ".cache/pix2live/tls/certificate.pem"
        )
        page = f"https://127.0.0.1:{port}/api/state"
        assert json.loads(fetch(f"{page}?token={token}", context))["sessions"]
        with pytest.raises(urllib.error.HTTPError) as caught:
            fetch(page, context)
        with caught.value as refusal:
            assert refusal.code == 401


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "no.pem").write_text("no certificate")
        cases = [
            (("--port", port), f"cannot listen at 127.0.0.1 port {port}"),
            (("--host", "no.such.host.invalid", "--port", 0), "cannot listen at no.such.host"),
            (("--port", 0, "--cert", "no.pem"), "--cert and --key belong together"),
            (("--port", 0, "--cert", "no.pem", "--key", "no.pem"), "no.pem"),
            (("--port", 0, "--filter", "no-such"), "no-such"),
            (("--port", 0, "no-such-film.mp4"), "no such file: no-such-film.mp4"),
            (("--port", 0, "--token", ""), "token"),
            (("--port", 0, "--backend", "no-such", "test-pattern"), "no backend 'no-such'"),
        ]
        for words, why in cases:
            done = pix2live("serve", *words, cwd=tmp_path)
            assert done.returncode in (1, 2), (words, done.stderr)
            assert why in done.stderr, (words, done.stderr)
            assert "Traceback" not in done.stderr


def test_the_code_for_a_phone_can_be_read() -> None:
    text = "https://192.168.178.23:8080/?token=Zm9vYmFyYmF6cXV4MTIzNDU2"
    rows = []
    for line in qr_code(text).splitlines():
        rows.append([character in "█▀" for character in line])
        rows.append([character in "█▄" for character in line])
    picture = np.kron(np.array(rows, np.uint8) * 255, np.ones((6, 6), np.uint8))
    assert cv2.QRCodeDetector().detectAndDecode(picture)[0] == text
