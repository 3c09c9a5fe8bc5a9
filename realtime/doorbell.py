"""Doorbell: wakes one sleeping thread; the only kernel call between two stages."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys

HAS_EVENTFD = sys.platform == "linux" and hasattr(os, "eventfd")


class Doorbell:
    """One sleeper, any number of ringers. A ring before the sleep is not lost.

    Linux uses an eventfd; other systems a pair of sockets (a pipe would do, but the ``select`` of
    Windows takes sockets only).
    """

    def __init__(self) -> None:
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        if HAS_EVENTFD:
            self._handle = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._sockets = socket.socketpair()
            for end in self._sockets:
                end.setblocking(False)
            self._handle = self._sockets[0].fileno()
        self._open = True
        self._poll = None
        if hasattr(select, "poll"):  # unlike select, it takes handles above 1023
            self._poll = select.poll()
            self._poll.register(self._handle, select.POLLIN)

    def ring(self) -> None:
        """Wake the sleeper, now or when it goes to sleep next. Any thread, or a signal handler."""
        if not self._open:
            return
        with contextlib.suppress(BlockingIOError):  # full of rings already: the sleeper will wake
            if self._sockets is not None:
                self._sockets[1].send(b"\0")
            else:
                os.eventfd_write(self._handle, 1)

    def wait(self, timeout_s: float) -> bool:
        """Sleep until rung, ``timeout_s`` at the most. Returns whether it rang."""
        if not self._open:
            return False
        timeout_s = max(0.0, timeout_s)
        if self._poll is not None:
            rang = bool(self._poll.poll(timeout_s * 1000))
        else:
            rang = bool(select.select([self._handle], [], [], timeout_s)[0])
        if rang:
            with contextlib.suppress(BlockingIOError):
                if self._sockets is not None:
                    while self._sockets[0].recv(4096):  # all rings are one
                        pass
                else:
                    os.eventfd_read(self._handle)
        return rang

    def close(self) -> None:
        """Free the handles; nobody may be asleep, and nobody ring any more."""
        if not self._open:
            return
        self._open = False
        if self._sockets is not None:
            for end in self._sockets:
                end.close()
        else:
            os.close(self._handle)
