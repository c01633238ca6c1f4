"""Opening the studio: at which port, and what keeps it from opening."""

import re
import socket
from types import SimpleNamespace

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


@pytest.mark.fault(54)
def test_the_port_that_was_taken_instead_is_printed(tmp_path, monkeypatch, capsys):
    """The user is sent to whatever else listens at the usual port."""
    page = SimpleNamespace(is_running=False)
    monkeypatch.setattr(studio, "build", lambda outputs: page)
    monkeypatch.setattr(
        studio,
        "serve",
        lambda page, outputs, address, port, login: setattr(page, "local_url", f"http://{address}:{port}/") or page,
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        studio.launch(taken.getsockname()[1], browser=False, outputs=tmp_path)
        assert (
            str(taken.getsockname()[1]) not in page.local_url
            and f"LoRA Studio is at {page.local_url.rstrip('/')}\n" in capsys.readouterr().out
        )


def test_no_free_port_is_said(monkeypatch):
    """The search for a port ends in a traceback."""
    monkeypatch.setattr(studio, "_PORTS", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(MachineError, match="all in use"):
            studio.free_port("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("address", ["192.0.2.1", "no.such.name.invalid", "a..b"])
def test_an_address_of_another_machine_is_no_lack_of_ports(address):
    with pytest.raises(SettingsError, match=f"cannot listen on {address}"):
        studio.free_port(address, 7860)


def test_an_address_for_others_without_a_login_is_refused(tmp_path):
    """The studio stands open in the network, or starts before it says so."""
    with pytest.raises(SettingsError, match="password"):
        studio.launch(outputs=tmp_path, browser=False, address="0.0.0.0")


@pytest.mark.fault(53)
def test_a_second_studio_on_one_folder_is_refused_with_the_address_of_the_first(request, tmp_path):
    """The user types into one and wonders why the other does not know of it."""
    served = request.getfixturevalue("studio")
    with pytest.raises(MachineError, match="Another studio uses this folder, at ") as caught:
        studio.launch(outputs=served.outputs, browser=False)
    assert served.url.rstrip("/") in caught.value.what and "--outputs" in caught.value.do
    first = studio.claim(tmp_path)
    with pytest.raises(MachineError, match="and is starting"):
        studio.claim(tmp_path)
    first.release()
    assert studio.claim(tmp_path), "a studio that has ended leaves no lock behind"


@pytest.mark.fault(56)
def test_outputs_that_cannot_be_written_are_named(tmp_path):
    """A folder that is read-only or gone shows a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written"):
        studio.launch(outputs=tmp_path / "file", browser=False)


def test_an_event_makes_the_page_look_up_few_components(tmp_path):
    """Gradio looks each one up among all, twice at each event that follows: the page takes seconds to load."""
    handlers = [one for one in studio.build(tmp_path).get_config_file()["dependencies"] if one["backend_fn"]]
    assert max(len(one["inputs"]) for one in handlers) < 40


def test_text_has_four_sizes():
    """Every part of the page picks a size of its own; signs of one letter, with a line of their height, may."""
    rules = [rule for part in studio.STYLES for rule in part.read_text().splitlines()]
    odd = [rule for rule in rules if re.search(r"font-size: [\d.]+r", rule) and "line-height: 1;" not in rule]
    assert odd == []


def test_no_selector_is_changed_by_what_the_framework_puts_into_it():
    """It puts its own ancestors after each comma, and nothing within an element has those: the rule then says the
    opposite, and messages without a button are never shown.
    """
    css = "".join(part.read_text() for part in studio.STYLES)
    assert not re.findall(r":has\([^(){}]*,[^{}]*\{", css)
    assert sorted(studio.STYLES) == sorted(studio.STYLES[0].parent.glob("*.css"))
