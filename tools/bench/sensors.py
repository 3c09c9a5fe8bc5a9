"""Power, clocks and temperatures over time, from whatever this machine lets one read.

A sensor's `read` returns names with units (``gpu_power_w``, ``cpu_temperature_c``); what fails is
left out of that sample. `sensors_here` names those that were found, and why others were not.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

SYSFS: Final = Path("/sys")
CPU_ZONES: Final = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "CPU-therm")
"""Types of thermal zones that are about the processor, best first."""
LAST_ZONE: Final = "acpitz"
"""About the mainboard; better than nothing."""
NO_NVML: Final = "the package nvidia-ml-py is not installed (pip install 'pix2live[bench]')"
CPU_CHIPS: Final = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


class Sensor(ABC):
    """Something that can be read a few times a second without disturbing a measurement."""

    name: str = "sensor"

    @abstractmethod
    def read(self) -> dict[str, float]:
        """Return what can be read now; empty where nothing can."""

    def throttled(self) -> list[str]:
        """Return why the device has lowered its clocks right now."""
        return []

    def close(self) -> None:
        """Free everything."""


class Rapl(Sensor):
    """Energy counters of Intel and AMD processors (Linux powercap): power since the last `read`."""

    name = "RAPL"

    def __init__(self, sysfs: Path = SYSFS, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._domains: list[tuple[Path, float]] = []
        """Folder of each package, and where its counter starts again, in uJ."""
        for folder in sorted((sysfs / "class" / "powercap").glob("intel-rapl:*")):
            if folder.name.count(":") == 1 and _text(folder / "name").startswith("package"):
                self._domains.append((folder, _number(folder / "max_energy_range_uj") or 0.0))
        self._last = self._counters()

    @property
    def problem(self) -> str:
        """Return why nothing can be read; empty where it can."""
        if not self._domains:
            return "RAPL: no energy counters here (/sys/class/powercap)"
        if None in self._last[1]:
            return (
                "RAPL: only root may read the energy counters; sudo chmod a+r"
                " /sys/class/powercap/intel-rapl:*/energy_uj"
            )
        return ""

    def read(self) -> dict[str, float]:
        (before_s, before), (now_s, now) = self._last, self._counters()
        self._last = now_s, now
        joules = 0.0
        for (_, limit_uj), one, other in zip(self._domains, before, now, strict=True):
            if one is None or other is None:
                return {}
            # The counter has come round once.
            joules += (other - one + (limit_uj if other < one else 0.0)) / 1e6
        return {"cpu_power_w": joules / (now_s - before_s)} if now_s > before_s else {}

    def _counters(self) -> tuple[float, list[float | None]]:
        values = [_number(folder / "energy_uj") for folder, _ in self._domains]
        return self._clock(), values


class Processor(Sensor):
    """Clock and temperature of the processor, from cpufreq, thermal zones and hwmon."""

    name = "processor"

    def __init__(self, sysfs: Path = SYSFS) -> None:
        cpus = sysfs / "devices" / "system" / "cpu"
        self._clocks = sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._temperature = _cpu_temperature(sysfs)

    @property
    def problem(self) -> str:
        """Return what cannot be read; empty where all can."""
        missing = [
            words
            for words, found in (
                ("no clock (cpufreq)", self._clocks),
                ("no temperature (thermal zones, hwmon)", self._temperature),
            )
            if not found
        ]
        return f"processor: {' and '.join(missing)} to read here" if missing else ""

    def read(self) -> dict[str, float]:
        found = {}
        clocks_khz = [value for path in self._clocks if (value := _number(path)) is not None]
        if clocks_khz:
            found["cpu_clock_mhz"] = sum(clocks_khz) / len(clocks_khz) / 1000
        if self._temperature is not None:
            millidegrees = _number(self._temperature)
            if millidegrees is not None:
                found["cpu_temperature_c"] = millidegrees / 1000
        return found


class Nvidia(Sensor):
    """One NVIDIA GPU, by NVML (the package nvidia-ml-py). Jetsons have `tools.bench.jetson`."""

    REASONS: Final = {
        "SwPowerCap": "power limit",
        "HwSlowdown": "hardware slowdown",
        "SwThermalSlowdown": "temperature (driver)",
        "HwThermalSlowdown": "temperature (hardware)",
        "HwPowerBrakeSlowdown": "power supply",
        "SyncBoost": "clocks bound to another GPU",
    }
    """NVML's words -> ours; an idle GPU and clocks that somebody set are no throttling."""

    def __init__(self, nvml: Any, index: int = 0) -> None:
        self._nvml = nvml
        self._gpu = nvml.nvmlDeviceGetHandleByIndex(index)
        self._asked_reasons = getattr(
            nvml,
            "nvmlDeviceGetCurrentClocksEventReasons",
            getattr(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", None),
        )
        name = nvml.nvmlDeviceGetName(self._gpu)
        self.name = name.decode() if isinstance(name, bytes) else str(name)

    def read(self) -> dict[str, float]:
        nvml, gpu = self._nvml, self._gpu
        asked: dict[str, Callable[[], float]] = {
            "gpu_power_w": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
            "gpu_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
            "gpu_memory_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
            "gpu_temperature_c": lambda: nvml.nvmlDeviceGetTemperature(
                gpu, nvml.NVML_TEMPERATURE_GPU
            ),
            "gpu_load_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
            "gpu_memory_mb": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used / 1e6,
        }
        found = {}
        for name, ask in asked.items():
            try:
                found[name] = float(ask())
            except nvml.NVMLError:  # this GPU does not have it
                continue
        return found

    def throttled(self) -> list[str]:
        try:
            bits = self._asked_reasons(self._gpu) if self._asked_reasons is not None else 0
        except self._nvml.NVMLError:
            return []
        return [
            words
            for name, words in self.REASONS.items()
            if bits
            & getattr(
                self._nvml,
                f"nvmlClocksEventReason{name}",
                getattr(self._nvml, f"nvmlClocksThrottleReason{name}", 0),
            )
        ]

    def facts(self) -> dict[str, Any]:
        """Return name, driver, memory, power limits and highest clock, as far as it says them."""
        nvml, gpu = self._nvml, self._gpu
        asked: dict[str, Callable[[], Any]] = {
            "driver": nvml.nvmlSystemGetDriverVersion,
            "memory_mb": lambda: round(nvml.nvmlDeviceGetMemoryInfo(gpu).total / 1e6),
            "power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
            "most_clock_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
            "persistence": lambda: bool(nvml.nvmlDeviceGetPersistenceMode(gpu)),
        }
        found: dict[str, Any] = {"name": self.name}
        for name, ask in asked.items():
            try:
                value = ask()
            except nvml.NVMLError:
                continue
            found[name] = value.decode() if isinstance(value, bytes) else value
        return found

    def close(self) -> None:
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:  # the driver went away
            pass


@dataclass(slots=True)
class Sensors:
    """All sensors of a machine; samples are taken no more often than every ``every_s``."""

    found: list[Sensor]
    problems: list[str]
    """Why others are not here, a line each."""
    every_s: float = 0.5
    gpus: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)
    throttled: dict[str, None] = field(default_factory=dict)
    """Every reason that was ever seen, in the order in which it was."""
    started_s: float = field(default_factory=time.monotonic)

    def now_s(self) -> float:
        """Return the time since the start of the bench."""
        return time.monotonic() - self.started_s

    def tick(self) -> None:
        """Take a sample when it is time for one."""
        now_s = self.now_s()
        if self.samples and now_s - self.samples[-1]["t_s"] < self.every_s:
            return
        sample = {"t_s": round(now_s, 2)}
        for sensor in self.found:
            sample |= {name: round(value, 3) for name, value in sensor.read().items()}
            self.throttled |= dict.fromkeys(f"{sensor.name}: {why}" for why in sensor.throttled())
        self.samples.append(sample)

    def latest(self, name: str) -> float | None:
        """Read one value now."""
        for sensor in self.found:
            value = sensor.read().get(name)
            if value is not None:
                return value
        return None

    def close(self) -> None:
        for sensor in self.found:
            sensor.close()


def sensors_here() -> Sensors:
    """Return every sensor that this machine has; nothing here raises."""
    from tools.bench.jetson import Jetson

    found: list[Sensor] = []
    rapl, processor, jetson = Rapl(), Processor(), Jetson()
    problems = [problem for problem in (rapl.problem, processor.problem) if problem]
    if not rapl.problem:
        found.append(rapl)
    if processor.read():
        found.append(processor)
    if jetson.here:
        found.append(jetson)
    gpus, reason = _nvidia_gpus()
    if gpus or not jetson.here:
        problems += [reason] if reason else []
    return Sensors([*found, *gpus], problems, gpus=[gpu.facts() for gpu in gpus])


def _nvidia_gpus() -> tuple[list[Nvidia], str]:
    """Return the first GPU, which is the one that backends take; or why there is none."""
    try:
        import pynvml
    except ImportError:
        return [], f"NVIDIA: {NO_NVML}"
    try:
        pynvml.nvmlInit()
        if not pynvml.nvmlDeviceGetCount():
            return [], "NVIDIA: a driver, but no GPU"
        return [Nvidia(pynvml)], ""
    except pynvml.NVMLError as error:
        return [], f"NVIDIA: no GPU to read here ({error})"


def _cpu_temperature(sysfs: Path) -> Path | None:
    """Return the file with the processor's temperature in thousandths of a degree."""
    zones = {
        _text(folder / "type"): folder / "temp"
        for folder in sorted((sysfs / "class" / "thermal").glob("thermal_zone*"), reverse=True)
    }
    chips = sorted((sysfs / "class" / "hwmon").glob("hwmon*"))
    candidates = [
        *(zones[kind] for kind in CPU_ZONES if kind in zones),
        *(chip / "temp1_input" for chip in chips if _text(chip / "name") in CPU_CHIPS),
        *([zones[LAST_ZONE]] if LAST_ZONE in zones else []),
    ]
    return next((path for path in candidates if _number(path) is not None), None)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
