"""Gives a thread its signal stack back after a library took it.

OpenVINO's CPU plug-in (2026.4, with AVX-512 or AMX) registers a signal stack for the thread that
loads it, and unmaps that memory whenever the plug-in goes: the next signal of that thread, a Ctrl-C
for instance, is then delivered onto memory that is gone, and the process dies without a word. It
needs the stack only while it asks the kernel for AMX.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Final

SS_DISABLE: Final = 2


class _Stack(ctypes.Structure):
    """stack_t of Linux."""

    _fields_ = (
        ("ss_sp", ctypes.c_void_p),
        ("ss_flags", ctypes.c_int),
        ("ss_size", ctypes.c_size_t),
    )


@contextlib.contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Leave this thread's signal stack as it is now, whatever the block does to it."""
    if not sys.platform.startswith("linux"):
        yield
        return
    sigaltstack = ctypes.CDLL(None).sigaltstack
    before, after = _Stack(), _Stack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(None, ctypes.byref(after))
        if after.ss_sp != before.ss_sp:
            disabled = _Stack(None, SS_DISABLE, 0)
            # A small one is refused where AMX is in use; signals then come on the thread's own.
            if before.ss_flags & SS_DISABLE or sigaltstack(ctypes.byref(before), None):
                sigaltstack(ctypes.byref(disabled), None)
