"""Memory, load and temperature of the card: read beside a run, and never waited for."""

import subprocess
import threading
import time

from lora_studio import events as e
from lora_studio.events import State
from lora_studio.jobs.health import DeviceHealth, HealthMonitor, parsed
from lora_studio.ui.pages.runs import health_line
from tests.ui.played import until

TWO = "NVIDIA H200, 12288, 143771, 97, 66\nNVIDIA H200, 4, 143771, [N/A], [Not Supported]\n"


def test_what_the_driver_says_is_read():
    """MiB pass for MB, or a card that lacks a sensor empties the line."""
    assert parsed(TWO) == [
        DeviceHealth("NVIDIA H200", 12_884_901_888, 150_754_820_096, 97.0, 66.0),
        DeviceHealth("NVIDIA H200", 4_194_304, 150_754_820_096, None, None),
    ]
    assert parsed("") == parsed("Failed to initialize NVML: Driver/library version mismatch") == []


def test_a_driver_that_hangs_is_not_waited_for():
    """The page stands still while the driver wakes."""
    answer, asked = threading.Event(), []

    def ask():
        asked.append(time.monotonic())
        answer.wait(30)
        return TWO

    monitor = HealthMonitor(ask)
    assert monitor.cards() == [] and monitor.cards() == []
    until(lambda: asked)
    answer.set()
    until(monitor.cards)
    assert [one.load for one in monitor.cards()] == [97.0, None]
    assert len(asked) == 1, "within five seconds the driver is asked once"


def test_no_driver_is_no_error():
    """A machine without an NVIDIA card shows a message every five seconds, or starts a program that is not there."""
    asked = []

    def ask():
        asked.append(1)
        raise FileNotFoundError("nvidia-smi") if len(asked) == 1 else subprocess.TimeoutExpired("nvidia-smi", 4)

    monitor = HealthMonitor(ask)
    assert monitor.cards() == []
    until(lambda: asked and not monitor._reading.is_alive())
    assert [monitor.cards() for _ in range(3)] == [[], [], []] and len(asked) == 1
    assert 0 < monitor.computer().used < monitor.computer().total and 0 <= monitor.computer().load <= 100


def test_the_line_is_there_while_the_run_works(tmp_path, part):
    """A run that waits shows what another one uses, or one on the processor shows a card that is idle."""
    works, waits = part("works"), part("waits")
    works.begins()
    waits.says(e.StateChanged(state=State.QUEUED))
    waits.run.ticket_file.write_text('{"queued": 9e18}')
    monitor = HealthMonitor(lambda: TWO)
    until(monitor.cards)
    line = health_line.html(works.run, "NVIDIA H200", monitor, tmp_path)
    assert "<span>0: NVIDIA H200: 12.9 of 150.8 GB, 97 % busy, 66 °C</span>" in line
    assert "<span>1: NVIDIA H200: 0.0 of 150.8 GB</span>" in line
    assert "This computer: " in health_line.html(works.run, "CPU, 4 threads", monitor, tmp_path)
    assert health_line.html(waits.run, "", monitor, tmp_path) == health_line.html(None, "", monitor, tmp_path) == ""
    works.finishes(5)
    assert health_line.html(works.run, "NVIDIA H200", monitor, tmp_path) == ""
