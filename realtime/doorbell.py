"""Doorbell: wakes one sleeping thread; the only kernel call between two stages."""

from __future__ import annotations

import os
import select
import sys

HAS_EVENTFD = sys.platform == "linux" and hasattr(os, "eventfd")


class Doorbell:
    """One sleeper, any number of ringers. A ring before the sleep is not lost.

    Linux uses an eventfd; other systems a pipe (Windows: a socket pair, because its ``select``
    takes sockets only).
    """

    def __init__(self) -> None:
        self._sockets: tuple[object, object] | None = None
        if HAS_EVENTFD:
            self._reader = self._writer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        elif sys.platform == "win32":
            import socket

            first, second = socket.socketpair()
            self._sockets = first, second
            self._reader, self._writer = first.fileno(), second.fileno()
        else:
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._reader, False)
            os.set_blocking(self._writer, False)
        self._open = True
        self._poll = None
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(self._reader, select.POLLIN)

    def ring(self) -> None:
        """Wake the sleeper, now or when it goes to sleep next."""
        if not self._open:
            return
        try:
            if HAS_EVENTFD:
                os.eventfd_write(self._writer, 1)
            elif self._sockets is not None:
                self._sockets[1].send(b"\0")  # type: ignore[attr-defined]
            else:
                os.write(self._writer, b"\0")
        except BlockingIOError:
            return  # full of rings already: the sleeper will wake

    def wait(self, timeout_s: float) -> bool:
        """Sleep until rung, ``timeout_s`` at the most. Returns whether it rang."""
        if self._poll is not None:
            rang = bool(self._poll.poll(max(0.0, timeout_s) * 1000))
        else:
            rang = bool(select.select([self._reader], [], [], max(0.0, timeout_s))[0])
        if rang:
            try:
                if HAS_EVENTFD:
                    os.eventfd_read(self._reader)
                elif self._sockets is not None:
                    self._sockets[0].recv(4096)  # type: ignore[attr-defined]
                else:
                    os.read(self._reader, 4096)
            except BlockingIOError:
                return False
        return rang

    def close(self) -> None:
        """Free the handles; nobody may be asleep."""
        if not self._open:
            return
        self._open = False
        if self._sockets is not None:
            for item in self._sockets:
                item.close()  # type: ignore[attr-defined]
            return
        os.close(self._reader)
        if self._writer != self._reader:
            os.close(self._writer)
