"""The other end of `tools.bench.child`: starts the process of a case and talks to it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any, Final

from engines import Pix2liveError

CHILD: Final = "import sys; sys.path[:] = {}; from tools.bench.child import main; main()"
"""Modules are found as here: a folder ``tools`` in the working folder may be somebody else's."""
LOOK_S: Final = 0.2
"""How often a waiting bench looks after its sensors and the screen."""
OPEN_TIMEOUT_S: Final = 3600.0
"""TensorRT may compile for many minutes on a small board."""
SPARE_S: Final = 120.0
END_S: Final = 5.0
LONGEST_REASON: Final = 300


class CaseError(Pix2liveError, RuntimeError):
    """A case cannot go on; the message is its reason."""


class CrashError(CaseError):
    """The process of the case is gone, or does not answer."""


class Worker:
    """One process; every method waits for the answer.

    ``tick`` is called while it waits, a few times a second, in the caller's thread.
    """

    def __init__(self, tick: Callable[[], None] = lambda: None) -> None:
        self._tick = tick
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        self._answers = b""
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C is for the bench: it decides what is still finished
        )

    @property
    def pid(self) -> int:
        """Return the process's number."""
        return self._process.pid

    def ask(self, do: str, timeout_s: float, **words: Any) -> dict[str, Any]:
        """Send one request and return the answer.

        Raises:
            CaseError: what the process said is wrong.
            CrashError: it crashed, or did not answer in time.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **words}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise CrashError(self._why_gone()) from error
        found = json.loads(self._line(do, timeout_s))
        if "error" in found:
            raise CaseError(found["error"])
        done: dict[str, Any] = found["done"]
        return done

    def close(self) -> None:
        """End the process; it is killed where it does not end by itself. Safe to call twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # it is gone, with a request unread
                    pass
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._said.close()

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.wait()

    def _line(self, do: str, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        file = self._process.stdout.fileno()
        deadline_s = time.monotonic() + timeout_s
        while b"\n" not in self._answers:
            self._tick()
            if time.monotonic() > deadline_s:
                self.kill()
                raise CrashError(f"no answer to {do!r} within {timeout_s:.0f} s; it was ended")
            if select.select([file], [], [], LOOK_S)[0]:
                part = os.read(file, 1 << 16)
                if not part:
                    raise CrashError(self._why_gone())
                self._answers += part
        line, _, self._answers = self._answers.partition(b"\n")
        return line

    def _why_gone(self) -> str:
        """Return in one line how the process ended and what it said last."""
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "its process closed the pipe and did not end; it was ended"
        how = f"with exit code {code}"
        if code < 0:
            how = f"by {signal.Signals(-code).name}"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        said = " ".join(lines[-1].split()) if lines else "it said nothing"
        out_of_memory = "; out of memory?" if code == -signal.SIGKILL else ""
        return f"its process ended {how}{out_of_memory} ({said[:LONGEST_REASON]})"
