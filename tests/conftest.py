"""For all tests: hypothesis with the same examples each time, and a Ctrl-C that works."""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "pix2live", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("pix2live")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs deaf to Ctrl-C, and they pass it on to their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
