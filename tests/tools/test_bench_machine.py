"""Sensors and counters, from recorded texts and folders that look like the kernel's."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from tools import environment
from tools.bench import machine
from tools.bench.jetson import Jetson, parse_tegrastats
from tools.bench.sensors import Nvidia, Processor, Rapl, Sensor, Sensors, sensors_here

STAT = """cpu  100 20 30 4000 50 6 7 8 9 0
cpu0 60 10 20 2000 25 3 4 5 9 0
cpu1 40 10 10 2000 25 3 3 3 0 0
cpu2 900 900 900 0 0 0 0 900 0 0
intr 12345 0 9
ctxt 5
"""
"""user nice system idle iowait irq softirq steal guest guest_nice."""


def put(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def test_busy_and_stolen_time_of_the_processors_that_may_be_used() -> None:
    assert machine.parse_stat(STAT, {0, 1}) == (60 + 10 + 20 + 3 + 4 + 40 + 10 + 10 + 3 + 3, 8)
    assert machine.parse_stat(STAT, {2}) == (2700, 900)
    assert machine.parse_stat("cpu0 1 2 3 4 5 6 7\n", {0}) == (19, 0), "an old kernel"


def test_what_others_took_is_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cpu_count", lambda: 4)
    before = machine.Ticks(100.0, 1.0, at_s=50.0)
    after = machine.Ticks(130.0, 3.0, at_s=60.0)  # 40 s of four processors
    assert machine.shares(before, after, own_s=20.0) == pytest.approx((0.25, 0.05))
    assert machine.shares(before, after, own_s=99.0) == pytest.approx((0.0, 0.05))
    assert machine.shares(None, after, 0.0) is None
    soon = machine.Ticks(100.0, 1.0, at_s=50.1)
    assert machine.shares(before, soon, 0.0) is None, "too short to say"


def test_this_machine_can_be_asked() -> None:
    facts = machine.facts()
    assert isinstance(facts["notes"], list)
    found = environment.describe()
    assert found["cpus"] >= 1
    assert {"board", "memory_gb", "virtualisation", "power_mode"} <= found.keys()
    sensors = sensors_here()
    try:
        sensors.tick()
        sensors.tick()
        (sample,) = sensors.samples
        assert sample["t_s"] >= 0
        assert all(isinstance(value, float) for value in sample.values())
        assert all(problem and "\n" not in problem for problem in sensors.problems)
    finally:
        sensors.close()


def rapl(sysfs: Path, *energies_uj: int) -> Rapl:
    domains = sysfs / "class" / "powercap"
    for number, energy_uj in enumerate(energies_uj):
        put(
            domains / f"intel-rapl:{number}",
            name=f"package-{number}",
            energy_uj=energy_uj,
            max_energy_range_uj=1_000_000_000,
        )
    put(domains / "intel-rapl:0:0", name="core", energy_uj=7, max_energy_range_uj=9)
    put(domains / "intel-rapl:9", name="psys", energy_uj=7, max_energy_range_uj=9)
    times = iter((10.0, 12.0, 13.0, 14.0))
    return Rapl(sysfs, clock=lambda: next(times))


def test_rapl_adds_up_the_packages(tmp_path: Path) -> None:
    sensor = rapl(tmp_path, 5_000_000, 999_000_000)
    assert sensor.problem == ""
    domains = tmp_path / "class" / "powercap"
    put(domains / "intel-rapl:0", energy_uj=45_000_000)
    put(domains / "intel-rapl:1", energy_uj=19_000_000)  # it came round
    assert sensor.read() == {"cpu_power_w": pytest.approx((40 + 20) / 2)}
    assert sensor.read() == {"cpu_power_w": 0.0}
    (domains / "intel-rapl:1" / "energy_uj").unlink()
    assert sensor.read() == {}


def test_rapl_says_why_not(tmp_path: Path) -> None:
    assert "no energy counters" in Rapl(tmp_path).problem
    rapl(tmp_path, 1)
    (tmp_path / "class" / "powercap" / "intel-rapl:0" / "energy_uj").unlink()
    assert "only root may read" in Rapl(tmp_path).problem


def test_clock_and_temperature_of_the_processor(tmp_path: Path) -> None:
    assert "no clock" in Processor(tmp_path).problem
    assert Processor(tmp_path).read() == {}
    cpus = tmp_path / "devices" / "system" / "cpu"
    for number, khz in enumerate((1_000_000, 3_000_000)):
        put(cpus / f"cpu{number}" / "cpufreq", scaling_cur_freq=khz)
    thermal = tmp_path / "class" / "thermal"
    put(thermal / "thermal_zone0", type="acpitz", temp=20000)
    assert Processor(tmp_path).read() == {"cpu_clock_mhz": 2000.0, "cpu_temperature_c": 20.0}
    put(tmp_path / "class" / "hwmon" / "hwmon3", name="k10temp", temp1_input=55250)
    assert Processor(tmp_path).read()["cpu_temperature_c"] == 55.25
    put(thermal / "thermal_zone7", type="x86_pkg_temp", temp=61000)
    sensor = Processor(tmp_path)
    assert sensor.problem == ""
    assert sensor.read()["cpu_temperature_c"] == 61.0


TEGRASTATS = {
    "AGX Orin, JetPack 6": (
        (
            "11-22-2026 10:00:00 RAM 3456/30698MB (lfb 20x4MB) SWAP 0/15349MB (cached 0MB)"
            " CPU [12%@1420,8%@1420,off,off] EMC_FREQ 24%@2133 GR3D_FREQ 45%@[611,611] NVDEC off"
            " cpu@52.5C soc2@50C tboard@38C gpu@51.3C tj@53.5C soc1@50C VDD_GPU_SOC 3576mW/3400mW"
            " VDD_CPU_CV 794mW/800mW VIN_SYS_5V0 4900mW/4800mW"
        ),
        {
            "gpu_load_percent": 45.0,
            "gpu_clock_mhz": 611.0,
            "gpu_temperature_c": 51.3,
            "tj_temperature_c": 53.5,
            "cpu_temperature_c": 52.5,
            "board_power_w": 4.9,
        },
    ),
    "Xavier NX, JetPack 5": (
        (
            "RAM 2690/6854MB (lfb 6x1MB) SWAP 479/3427MB (cached 3MB) CPU [3%@1904,7%@1906,off]"
            " EMC_FREQ 0%@1600 GR3D_FREQ 0%@[510] VIC_FREQ 601 APE 150 AUX@39C CPU@39.5C AO@37.5C"
            " GPU@37.5C PMIC@50C VDD_IN 5079mW/5100mW VDD_CPU_GPU_CV 696mW/696mW VDD_SOC"
            " 1104mW/1104mW"
        ),
        {
            "gpu_load_percent": 0.0,
            "gpu_clock_mhz": 510.0,
            "gpu_temperature_c": 37.5,
            "cpu_temperature_c": 39.5,
            "board_power_w": 5.079,
        },
    ),
    "Nano, JetPack 4": (
        (
            "RAM 2145/3964MB (lfb 118x4MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB)"
            " CPU [25%@1479,35%@1479] EMC_FREQ 10%@1600 GR3D_FREQ 99%@921 APE 25 AO@45C GPU@43C"
            " PMIC@100C CPU@46.5C thermal@46.2C POM_5V_IN 4250/4100 POM_5V_GPU 480/480 POM_5V_CPU"
            " 1520/1500"
        ),
        {
            "gpu_load_percent": 99.0,
            "gpu_clock_mhz": 921.0,
            "gpu_temperature_c": 43.0,
            "cpu_temperature_c": 46.5,
            "board_power_w": 4.25,
        },
    ),
    "without root, parts asleep": (
        "RAM 1000/7620MB (lfb 1x4MB) CPU [1%@729] GR3D_FREQ 12% cv0@-256C gpu@-256C cpu@40C",
        {"gpu_load_percent": 12.0, "cpu_temperature_c": 40.0},
    ),
    "nothing yet": ("", {}),
}


@pytest.mark.parametrize("name", TEGRASTATS)
def test_lines_of_tegrastats(name: str) -> None:
    line, expected = TEGRASTATS[name]
    assert parse_tegrastats(line) == pytest.approx(expected)


def test_an_orin_as_its_kernel_shows_it(tmp_path: Path) -> None:
    assert not Jetson(tmp_path).here
    chip = tmp_path / "bus" / "i2c" / "drivers" / "ina3221" / "1-0040" / "hwmon" / "hwmon4"
    put(chip, in1_label="VDD_IN", in1_input=5000, curr1_input=1200)
    put(chip, in2_label="VDD_CPU_GPU_CV", in2_input=5000, curr2_input=400)
    put(chip, in3_label="NC", in3_input=0, curr3_input=0)
    put(chip, in7_label="sum of shunt voltages", in7_input=3)
    put(tmp_path / "class" / "devfreq" / "17000000.ga10b", cur_freq=624750000)
    put(tmp_path / "class" / "thermal" / "thermal_zone0", type="cpu-thermal", temp=48000)
    put(tmp_path / "class" / "thermal" / "thermal_zone1", type="gpu-thermal", temp=46500)
    put(tmp_path / "class" / "thermal" / "thermal_zone2", type="tj-thermal", temp=49000)
    sensor = Jetson(tmp_path)
    assert sensor.here
    assert sensor.read() == pytest.approx(
        {
            "board_power_w": 6.0,
            "gpu_clock_mhz": 624.75,
            "gpu_temperature_c": 46.5,
            "tj_temperature_c": 49.0,
        }
    )
    (chip / "in1_label").unlink()
    assert Jetson(tmp_path).read()["board_power_w"] == pytest.approx(2.0), "the rails added up"
    sensor.close()


def test_a_nano_as_its_kernel_shows_it(tmp_path: Path) -> None:
    chip = tmp_path / "bus" / "i2c" / "drivers" / "ina3221x" / "6-0040" / "iio:device0"
    put(chip, rail_name_0="POM_5V_IN", in_power0_input=4250)
    put(chip, rail_name_1="POM_5V_GPU", in_power1_input=480)
    put(tmp_path / "class" / "devfreq" / "57000000.gpu", cur_freq=921600000)
    found = Jetson(tmp_path).read()
    assert found == pytest.approx({"board_power_w": 4.25, "gpu_clock_mhz": 921.6})


def test_the_mode_of_a_jetson() -> None:
    assert environment.nvpmodel_mode("NV Power Mode: MODE_15W\n2\n") == "MODE_15W 2"
    old = "NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n"
    assert environment.nvpmodel_mode(old) == "MAXN 0"
    assert environment.nvpmodel_mode("not known\n") == "not known"


class NvmlError(Exception):
    pass


def nvml(bits: int = 0, **others: Any) -> Any:
    """What pynvml has, with the answers of a GPU that does not know its memory clock."""

    def refused(*_: Any) -> Any:
        raise NvmlError("Not Supported")

    def clock(_: Any, kind: str) -> int:
        return refused() if kind == "memory" else 1410

    answers = {
        "NVMLError": NvmlError,
        "NVML_CLOCK_SM": "sm",
        "NVML_CLOCK_MEM": "memory",
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlClocksEventReasonSwPowerCap": 4,
        "nvmlClocksEventReasonHwThermalSlowdown": 64,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda _: "A GPU",
        "nvmlDeviceGetPowerUsage": lambda _: 123_456,
        "nvmlDeviceGetClockInfo": clock,
        "nvmlDeviceGetTemperature": lambda *_: 61,
        "nvmlDeviceGetUtilizationRates": lambda _: types.SimpleNamespace(gpu=97),
        "nvmlDeviceGetMemoryInfo": lambda _: types.SimpleNamespace(used=2e9, total=8e9),
        "nvmlDeviceGetCurrentClocksEventReasons": lambda _: bits,
        "nvmlSystemGetDriverVersion": lambda: b"580.1",
        "nvmlDeviceGetEnforcedPowerLimit": lambda _: 350_000,
        "nvmlDeviceGetMaxClockInfo": refused,
        "nvmlDeviceGetPersistenceMode": lambda _: 1,
        "nvmlShutdown": lambda: None,
    }
    return types.SimpleNamespace(**{**answers, **others})


def test_an_nvidia_gpu() -> None:
    gpu = Nvidia(nvml(bits=4 | 64 | 1))
    assert gpu.read() == {
        "gpu_power_w": 123.456,
        "gpu_clock_mhz": 1410.0,
        "gpu_temperature_c": 61.0,
        "gpu_load_percent": 97.0,
        "gpu_memory_mb": 2000.0,
    }
    assert gpu.throttled() == ["power limit", "temperature (hardware)"], "idle is no throttling"
    assert gpu.facts() == {
        "name": "A GPU",
        "driver": "580.1",
        "memory_mb": 8000,
        "power_limit_w": 350.0,
        "persistence": True,
    }


def test_samples_are_taken_in_time_and_reasons_kept_once() -> None:
    now = Nvidia(nvml(bits=4))
    sensors = Sensors([now], [], every_s=0.0)
    for _ in range(3):
        sensors.tick()
    assert [sample["gpu_temperature_c"] for sample in sensors.samples] == [61.0] * 3
    assert list(sensors.throttled) == ["A GPU: power limit"]
    assert sensors.latest("gpu_memory_mb") == 2000.0
    assert sensors.latest("cpu_power_w") is None
    rare = Sensors([now], [], every_s=3600.0)
    rare.tick()
    rare.tick()
    assert len(rare.samples) == 1


def test_a_sensor_must_read() -> None:
    with pytest.raises(TypeError):
        Sensor()  # type: ignore[abstract]
