"""Sensors of NVIDIA's Jetson boards, which NVML does not know: sysfs, else tegrastats.

Written from NVIDIA's documentation and recorded output; it has not been run on a board.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Final

from tools.bench.sensors import SYSFS, Sensor

WHOLE_BOARD: Final = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "VIN")
"""Names of the rail that everything hangs on, by board; without one, the rails are added up."""
GPU_FOLDERS: Final = ("*gpu*", "*gv11b*", "*gp10b*", "*ga10b*", "*gm20b*", "*gb10b*")
INTERVAL_MS: Final = 500


class Jetson(Sensor):
    """Power of the board, clock of the GPU, temperatures."""

    name = "Jetson"

    def __init__(self, sysfs: Path = SYSFS) -> None:
        self._rails = rails(sysfs)
        self._clock = next(
            (
                path / "cur_freq"
                for pattern in GPU_FOLDERS
                for path in sorted((sysfs / "class" / "devfreq").glob(pattern))
            ),
            None,
        )
        self._zones = {
            _read(zone / "type").lower(): zone / "temp"
            for zone in sorted((sysfs / "class" / "thermal").glob("thermal_zone*"))
        }
        program = shutil.which("tegrastats") if sysfs == SYSFS else None
        self.here = bool(self._rails) or program is not None
        self._tegrastats = TegraStats(program) if program and not self._rails else None

    def read(self) -> dict[str, float]:
        found = self._tegrastats.latest() if self._tegrastats is not None else {}
        power_w = self._power_w()
        if power_w is not None:
            found["board_power_w"] = power_w
        if self._clock is not None and (text := _read(self._clock)).isdigit():
            found["gpu_clock_mhz"] = int(text) / 1e6
        for name in ("gpu", "tj"):
            zones = (path for kind, path in self._zones.items() if kind.startswith(name))
            text = _read(next(zones, Path()))
            if text.lstrip("-").isdigit() and int(text) > 0:  # a part that sleeps says -256000
                found[f"{name}_temperature_c"] = int(text) / 1000
        return found

    def close(self) -> None:
        if self._tegrastats is not None:
            self._tegrastats.close()

    def _power_w(self) -> float | None:
        watts = {name: value for name, read in self._rails.items() if (value := read()) is not None}
        whole = next((watts[name] for name in WHOLE_BOARD if name in watts), None)
        return whole if whole is not None else sum(watts.values()) if watts else None


class TegraStats:
    """NVIDIA's monitor, for boards whose sysfs does not show the power rails."""

    def __init__(self, program: str) -> None:
        self._line = ""
        self._process = subprocess.Popen(
            [program, "--interval", str(INTERVAL_MS)], stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._listen, name="tegrastats", daemon=True).start()

    def latest(self) -> dict[str, float]:
        """Return the newest line's values; empty before the first one."""
        return parse_tegrastats(self._line)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._line = line


class Rail:
    """One channel of a power monitor (INA3221)."""

    def __init__(self, milliwatts: Path | None, millivolts: Path, milliamperes: Path) -> None:
        self._files = [milliwatts] if milliwatts is not None else [millivolts, milliamperes]

    def __call__(self) -> float | None:
        """Return the power in W; None where it cannot be read."""
        values = [_read(path) for path in self._files]
        if not all(text.lstrip("-").isdigit() for text in values):
            return None
        product = 1.0
        for text in values:
            product *= int(text) / 1000
        return product


def rails(sysfs: Path) -> dict[str, Rail]:
    """Return name -> rail, as the kernels of JetPack 5 and later (hwmon) or 4 (iio) show them."""
    found: dict[str, Rail] = {}
    drivers = sysfs / "bus" / "i2c" / "drivers"
    for label in sorted(drivers.glob("ina3221/*/hwmon/hwmon*/in[123]_label")):
        folder, number = label.parent, label.name[2]
        name = _read(label)
        if name and name != "NC":  # not connected
            volts, amperes = folder / f"in{number}_input", folder / f"curr{number}_input"
            found[name] = Rail(None, volts, amperes)
    for label in sorted(drivers.glob("ina3221x/*/iio:device*/rail_name_[012]")):
        folder, number = label.parent, label.name[-1]
        power = folder / f"in_power{number}_input"
        if _read(label):
            found[_read(label)] = Rail(power, power, power)
    return found


def parse_tegrastats(line: str) -> dict[str, float]:
    """Return what a line of tegrastats says: power, load and clock of the GPU, temperatures.

    Boards and versions differ: ``GR3D_FREQ 45%@[611]``, ``99%@921``, ``12%``; ``GPU@43C``,
    ``gpu@51.3C``; ``VDD_IN 5079mW/5000mW``, ``POM_5V_IN 4250/4250`` (now/average, mW).
    """
    found: dict[str, float] = {}
    gpu = re.search(r"\bGR3D_FREQ (\d+)%(?:@\[?(\d+))?", line)
    if gpu is not None:
        found["gpu_load_percent"] = float(gpu[1])
        if gpu[2]:
            found["gpu_clock_mhz"] = float(gpu[2])
    temperatures = {
        name.lower(): float(value) for name, value in re.findall(r"(\w+)@(-?[\d.]+)C\b", line)
    }
    for name, key in (("gpu", "gpu"), ("tj", "tj"), ("cpu", "cpu")):
        if temperatures.get(name, 0) > 0:  # a part that sleeps says -256
            found[f"{key}_temperature_c"] = temperatures[name]
    watts = {
        name: int(now) / 1000
        for name, now in re.findall(r"\b([A-Z]\w+) (\d+)(?:mW)?/\d+(?:mW)?(?:\s|$)", line)
    }
    watts = {name: value for name, value in watts.items() if name not in ("RAM", "SWAP", "IRAM")}
    whole = next((watts[name] for name in WHOLE_BOARD if name in watts), None)
    if whole is not None:
        found["board_power_w"] = whole
    elif watts:
        found["board_power_w"] = sum(watts.values())
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
