"""Opening the studio: at which port, and what keeps it from opening."""

import socket

import pytest

from lora_studio.errors import MachineError, SettingsError
from lora_studio.ui import studio


@pytest.mark.fault(54)
def test_a_busy_port_gives_the_next_one():
    """A second studio, or another program, keeps this one from opening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < studio.free_port("127.0.0.1", port) < port + 100


def test_no_free_port_is_said(monkeypatch):
    """The search for a port ends in a traceback."""
    monkeypatch.setattr(studio, "_PORTS", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(MachineError, match="all taken"):
            studio.free_port("127.0.0.1", taken.getsockname()[1])


def test_an_address_for_others_without_a_login_is_refused(tmp_path):
    """The studio stands open in the network, or starts before it says so."""
    with pytest.raises(SettingsError, match="password"):
        studio.launch(outputs=tmp_path, browser=False, address="0.0.0.0")


@pytest.mark.fault(56)
def test_outputs_that_cannot_be_written_are_named(tmp_path):
    """A folder that is read-only or gone shows a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written"):
        studio.launch(outputs=tmp_path / "file", browser=False)
