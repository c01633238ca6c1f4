"""Messages: said in the current language, whenever and wherever they are put into a text or kept."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from lora_studio.dataset.items import Bucket
from lora_studio.language import Message, Told, both, either, english, ntr, number, tr, using
from lora_studio.language.message import from_data, to_data

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


class Warned(BaseModel):
    what: Told


def test_a_part_that_says_itself_how_it_is_written_is_said_so():
    """A picture's size, which is a tuple, is listed as "512, 768"."""
    assert tr("It trains at {size}.", size=Bucket(512, 768)) == "It trains at 512 × 768."


@pytest.mark.usefixtures("german")
class TestInGerman:
    """With a catalogue that the tests know."""

    def test_a_message_is_in_the_language_of_whoever_is_answered(self):
        """A constant that was made while a module was imported stays English for good."""
        made = tr("{name} is not an adapter.", name="ink.png")
        with using("de"):
            assert str(made) == f"{made}" == made + "" == "ink.png ist kein Adapter."
        assert str(made) == made == "ink.png is not an adapter."

    @pytest.mark.parametrize(("count", "said"), [
        (0, "0 Bilder werden beschnitten."),
        (1, "1 Bild wird beschnitten."),
        (1200, "1.200 Bilder werden beschnitten."),
    ])  # fmt: skip
    def test_a_plural_is_that_of_the_language(self, count, said):
        """One picture is told of as several, or a number has English commas in German."""
        with using("de"):
            assert ntr(count, "{count:,} picture is cropped.", "{count:,} pictures are cropped.") == said

    def test_numbers_follow_the_language_and_names_do_not(self):
        """0.25 is read as a quarter of a thousand in German; or a file's name loses its point."""
        with using("de"):
            assert tr("{loss:.2f} at step {step:,}", loss=0.25, step=12_000) == "0,25 bei Schritt 12.000"
            assert tr("{name} is not an adapter.", name="ink-1.5.png") == "ink-1.5.png ist kein Adapter."
            assert [number(1234.5, ",.1f"), number(Decimal("0.00005"), "f")] == ["1.234,5", "0,00005"]
            assert number(0.08, ".0%") == "8\xa0%"

    def test_a_message_within_a_message_is_said_anew_too(self):
        """Half of a sentence stays in the language in which its part was made."""
        made = tr("The run is {state}.", state=tr("Training"))
        with using("de"):
            assert str(made) == "Der Lauf: Läuft."

    def test_lists_are_listed_as_the_language_does(self):
        """A German sentence lists with an English "and"."""
        with using("de"):
            assert both(["Rang", "Alpha", "Dropout"]) == "Rang, Alpha und Dropout"
            assert either(["LoRA", "DoRA"]) == "LoRA oder DoRA"
            assert both(["Rang"]) == "Rang"

    def test_programs_get_english_whoever_asks(self):
        with using("de"):
            assert english(tr("Training")) == "Training" and english("plain") == "plain"

    def test_a_message_crosses_to_another_process_with_its_parts(self):
        """The error of a worker is shown in English on a German page."""
        sent = pickle.dumps(tr("The run is {state}.", state=tr("Training")))
        with using("de"):
            assert str(pickle.loads(sent)) == "Der Lauf: Läuft."

    def test_a_message_survives_json_with_its_parts(self):
        """The warning of a run is said in the language that was spoken when it was logged."""
        with using("de"):
            written = Warned(what=tr("The run is {state}.", state=tr("Training"))).model_dump_json()
        read = Warned.model_validate_json(written).what
        assert json.loads(written)["what"]["text"] == str(read) == "The run is Training."
        with using("de"):
            assert str(read) == "Der Lauf: Läuft."

    def test_a_part_that_a_translation_does_not_know_is_left_out(self):
        """A catalogue of another version stops the page."""
        with using("de"):
            assert tr("Training", seconds=3) == "Läuft"


def test_without_a_translation_a_message_is_english():
    """A message that is new in this version is shown as nothing at all."""
    with using("de"):
        assert tr("No catalogue has this sentence.") == "No catalogue has this sentence."
        assert tr("") == ""


def test_text_without_parts_is_no_format():
    """A preset's title with a brace in it stops the page."""
    assert tr("Read {red|blue} as one of {its} options") == "Read {red|blue} as one of {its} options"


def test_text_of_earlier_versions_is_read_as_it_is():
    """A log that was written before there were languages can no longer be read."""
    assert Warned.model_validate_json('{"what": "Plain."}').what == "Plain."
    assert json.loads(Warned(what="Plain.").model_dump_json()) == {"what": "Plain."}


@given(st.text(), st.text())
def test_names_may_hold_anything(name, other):
    """A folder called {0} or {name.__class__} stops the page, or is taken for a part of the sentence."""
    made = tr("{name} is like {other}.", name=name, other=other)
    assert made == str(made) == f"{name} is like {other}."
    assert str(from_data(json.loads(json.dumps(to_data(made))))) == made


@given(JSON)
def test_what_is_no_message_is_refused_with_a_valueerror_alone(data):
    """A log of unknown origin stops the page with an error that nobody expects."""
    try:
        read = from_data(data)
    except ValueError:
        return
    assert read == data or isinstance(str(read), str)


PART = st.sampled_from(["{name", "{}", "{0}", "{name.x}", "{name[0]}", "{name:d}", "{count:,}", "{name!z}", "plain"])


@given(PART, PART, st.dictionaries(st.sampled_from(["name", "count"]), JSON))
def test_a_template_that_its_parts_do_not_fit_is_refused(template, plural, parts):
    """The same, for what has a message's shape."""
    try:
        read = from_data({"template": template, "plural": plural, "parts": parts})
    except ValueError:
        return
    assert isinstance(read, Message) and isinstance(str(read), str)
