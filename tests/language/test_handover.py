"""Messages from one process of the studio to another."""

import json

import pytest

from lora_studio.errors import AdapterError, report
from lora_studio.language import Message, tr
from lora_studio.language.handover import ASKED, handed, taken
from lora_studio.language.message import to_data

MESSAGE = tr("{name} is no adapter.", name="ink")


def test_a_message_arrives_with_its_parts(monkeypatch):
    """Without them the page could only show what another process said in English."""
    monkeypatch.setenv(ASKED, "1")
    data = {"words": [MESSAGE, "plain"], "proof": ({"note": MESSAGE, "passed": False, "worst": None},)}
    found = taken(json.loads(json.dumps(handed(data))))
    assert found == {"words": [MESSAGE, "plain"], "proof": [{"note": MESSAGE, "passed": False, "worst": None}]}
    assert isinstance(found["words"][0], Message) and found["words"][0].parts == {"name": "ink"}


@pytest.mark.parametrize("message", [MESSAGE, to_data(MESSAGE)], ids=["itself", "as pydantic writes it"])
def test_other_programs_get_english_text(monkeypatch, message):
    """Scripts that read ``--json`` would get an object where a text stood."""
    monkeypatch.delenv(ASKED, raising=False)
    assert json.loads(json.dumps(handed({"words": [message]}))) == {"words": ["ink is no adapter."]}


def test_an_error_is_handed_over_too(monkeypatch, capsys):
    """The page shows what went wrong in a command more often than what it found."""
    error = AdapterError(MESSAGE, where="FILE", do=tr("Choose another."), details={"proof": [{"note": MESSAGE}]})
    monkeypatch.setenv(ASKED, "1")
    report(error, as_json=True)
    told = taken(json.loads(capsys.readouterr().out))["error"]
    assert told == {
        "what": MESSAGE,
        "where": "FILE",
        "do": "Choose another.",
        "details": {"proof": [{"note": MESSAGE}]},
    }
    assert isinstance(told["what"], Message) and isinstance(told["do"], Message)
