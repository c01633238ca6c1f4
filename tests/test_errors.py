"""Errors tell three things, survive a pickle, and reach people and programs alike."""

import json
import pickle

import pytest

from lora_studio import errors
from lora_studio.errors import (
    AdapterError,
    DatasetError,
    MachineError,
    ModelError,
    RunError,
    SettingsError,
    StudioError,
)


def test_it_says_what_where_and_what_to_do():
    error = DatasetError("The picture is damaged.", where="cat.png", do="Export it anew.")
    assert str(error) == "The picture is damaged. [cat.png] Export it anew."


def test_a_place_that_is_named_already_is_not_repeated():
    assert str(DatasetError("cat.png is damaged.", where="cat.png")) == "cat.png is damaged."


@pytest.mark.parametrize("kind", [SettingsError, DatasetError, ModelError, AdapterError, RunError, MachineError])
def test_every_kind_is_one_of_ours_and_survives_a_pickle(kind):
    """Errors travel between processes; keyword arguments would be lost by the default."""
    error = kind("It broke.", where="here", do="Mend it.", details={"parts": 2})
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, StudioError) and type(copy) is kind
    assert (copy.what, copy.where, copy.do, copy.details) == ("It broke.", "here", "Mend it.", {"parts": 2})


def test_a_report_is_one_line_for_people_and_one_object_for_programs(capsys):
    assert errors.report(RunError("It broke.", where="here", do="Mend it."), as_json=True) == 2
    said = capsys.readouterr()
    assert said.err == "It broke. [here] Mend it.\n"
    assert json.loads(said.out) == {"error": {"what": "It broke.", "where": "here", "do": "Mend it."}}


def test_details_are_for_programs_alone(capsys):
    """A page that shows why an export failed has only the command's last line to go by."""
    errors.report(AdapterError("It broke.", details={"proof": [{"target": "peft", "passed": False}]}), as_json=True)
    said = capsys.readouterr()
    assert said.err == "It broke.\n"
    assert json.loads(said.out)["error"]["details"] == {"proof": [{"target": "peft", "passed": False}]}
