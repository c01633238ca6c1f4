"""What all tests share: no test reaches the network, and none writes into the studio's own outputs."""

import gc
import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine the first text that Hypothesis draws takes seconds, and no test has to be quick.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

gc.disable()  # until all is imported and collected: what that makes stays to the end

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("LORA_STUDIO_NO_VENV", "1")
os.environ.setdefault("LORA_STUDIO_WARM", "0")


def _not_awaited(handle: int) -> None:
    """No power fails during the tests but the one that ``tests/faults/disk.py`` plays, so none waits for the disk."""
    os.fstat(handle)  # what is not open is an error still


os.fsync = _not_awaited


LONG = (
    *("ui/test_browser", "training/test_loop", "ui/test_picture_editor", "test_cli"),
    *("ui/test_library_page", "training/test_resume", "ui/test_export_page", "training/test_distributed"),
    *("ui/test_draw_page", "test_bootstrap", "ui/test_pictures_page", "training/test_text"),
    *("ui/test_whole_way", "evaluation/test_judging", "ui/test_mix_page", "test_cli_compare"),
    *("ui/test_journey", "training/test_sliders", "ui/test_axe", "training/test_measured_start"),
    *("ui/test_scripting", "faults/test_soak", "ui/test_languages", "test_hub"),
    *("ui/test_pictures_panels", "jobs/test_renderer", "ui/test_judged", "models/test_quantize"),
    *("jobs/test_judging", "jobs/test_sweeping"),
)
"""The files of tests that take longest, which begin first, so that in the end no core waits for another. Those with a
browser take turns with those without: two browsers at once on two cores make each other wait.
"""


def pytest_collection_modifyitems(items):
    """A file of tests runs in one process, and the files are given out in this order (``--no-loadscope-reorder``)."""
    tests = Path(__file__).parent
    place = {tests / f"{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


def pytest_collection_finish():
    """The garbage collector leaves alone what was imported. Every few dozen tests it looked through all of that again,
    which took an eighth of the time of ``training/test_text`` and a fifth of that of ``ui/test_mix``.
    """
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    gc.enable()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that asks for an address outside this machine fails, as the studio must never do it unasked (fault 64)."""
    connect = socket.socket.connect

    def guarded(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("127.0.0.1", "::1", "localhost", "0.0.0.0"):
            pytest.fail(f"the network was asked for {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
