"""Hypothesis for all tests: the same examples each time, however busy the machine is."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "pix2live", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("pix2live")
