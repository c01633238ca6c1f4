"""The catalogues hold every message of the code and nothing else, and their translations have the same parts."""

from string import Formatter

import pytest
from babel.messages.catalog import Message

from tests.language import extraction

MESSAGES = extraction.messages()


def entries(language: str) -> list[Message]:
    return [one for one in extraction.read(language) if one.id]


def template(entry: Message) -> str:
    return entry.id if isinstance(entry.id, str) else entry.id[0]


def strings(entry: Message) -> list[str]:
    return [entry.string] if isinstance(entry.string, str) else list(entry.string)


def fields(text: str) -> set[tuple[str, str]]:
    """The parts of a template, each with its format."""
    return {(name, spec or "") for _, name, spec, _ in Formatter().parse(text) if name is not None}


def is_format(text: str) -> bool:
    """Whether a message has parts. One without is not a format, so that it may hold braces."""
    try:
        return bool(fields(text)) and all(name.isidentifier() for name, _ in fields(text))
    except ValueError:
        return False


def test_texts_are_literals():
    """No catalogue can hold a text that is only known while the studio runs."""
    assert not extraction.in_code()[1]


def test_no_message_has_two_plurals():
    """Two places of the code say the same, and one of them is never translated."""
    plurals = {(one.template, one.plural) for one in extraction.in_code()[0] if one.plural}
    assert len(plurals) == len({one for one, _ in plurals})


@pytest.mark.parametrize("language", extraction.TRANSLATED)
def test_every_message_is_translated(language):
    """A part of the page stays English: run ``python -m tests.language`` and translate what it adds."""
    known = {template(one) for one in entries(language) if all(strings(one))}
    assert sorted(set(MESSAGES) - known) == []


@pytest.mark.parametrize("language", extraction.TRANSLATED)
def test_no_translation_is_left_over(language):
    """Translators tend what nobody reads: run ``python -m tests.language``."""
    assert sorted({template(one) for one in entries(language)} - set(MESSAGES)) == []


@pytest.mark.parametrize("language", extraction.TRANSLATED)
def test_translations_have_the_parts_of_their_messages(language):
    """A number or a name is lost in translation, or a wrong name in braces stops the page."""
    wrong = []
    for entry in entries(language):
        if not is_format(template(entry)):
            continue
        ids = [entry.id] if isinstance(entry.id, str) else list(entry.id)
        wanted = set.union(*map(fields, ids))
        forms = strings(entry)
        for form in forms:
            optional = {one for one in wanted if one[0] == "count"} if len(forms) > 1 and form == forms[0] else set()
            if not (wanted - optional <= fields(form) <= wanted):
                wrong.append((template(entry), form))
    assert wrong == []


@pytest.mark.parametrize("language", extraction.TRANSLATED)
def test_translations_begin_and_end_as_their_messages(language):
    """A space too many or too few glues words together."""
    ends = [
        (template(one), form)
        for one in entries(language)
        for form in strings(one)
        if any(map(str.isalpha, template(one)))
        and (form[:1].isspace(), form[-1:].isspace()) != (template(one)[:1].isspace(), template(one)[-1:].isspace())
    ]
    assert ends == []


@pytest.mark.parametrize("language", extraction.TRANSLATED)
def test_catalogues_have_the_plural_forms_of_their_language(language):
    """A plural lacks a form, so that gettext fails at that number."""
    catalogue = extraction.read(language)
    assert all(len(strings(one)) == catalogue.num_plurals for one in entries(language) if one.pluralizable)
    assert not any(one.fuzzy for one in entries(language))
