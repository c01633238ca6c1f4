"""Errors tell three things, survive a pickle, and reach people and programs alike."""

import gettext
import json
import pickle
from pathlib import Path

import pytest

from lora_studio import errors, language
from lora_studio.errors import (
    AdapterError,
    DatasetError,
    MachineError,
    ModelError,
    RunError,
    SettingsError,
    StudioError,
)
from lora_studio.language import catalogue, tr


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


class _German(gettext.NullTranslations):
    """A catalogue with the messages of these tests."""

    def gettext(self, message: str) -> str:
        known = {"{name} is damaged.": "{name} ist beschädigt.", "Get it again.": "Hole die Datei noch einmal."}
        return known.get(message, message)


@pytest.fixture
def german(monkeypatch):
    english = catalogue.translations(language.ENGLISH)
    monkeypatch.setattr(catalogue, "translations", lambda code: english if code == language.ENGLISH else _German())


def test_an_error_of_another_process_or_a_cache_is_said_in_the_readers_language(german):
    """Workers and caches make errors in English, or in the language of whoever asked first."""
    error = AdapterError(tr("{name} is damaged.", name="cat.safetensors"), where="header", do=tr("Get it again."))
    copy = pickle.loads(pickle.dumps(error))
    with language.using("de"):
        said = (str(copy), str(copy.what), str(copy.do), str(error))
    sentence = "cat.safetensors ist beschädigt. [header] Hole die Datei noch einmal."
    assert said == (sentence, "cat.safetensors ist beschädigt.", "Hole die Datei noch einmal.", sentence)
    assert str(copy) == "cat.safetensors is damaged. [header] Get it again."


def test_the_place_of_an_error_can_be_a_message(german):
    """A field is named in the reader's language, as the form names it; a path is kept as text."""
    error = AdapterError("It broke.", where=tr("{name} is damaged.", name="a"))
    with language.using("de"):
        assert str(error) == "It broke. [a ist beschädigt.]"
    assert type(AdapterError("It broke.", where=Path("a")).where) is str
