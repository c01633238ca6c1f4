"""Messages: text for people that can be said in another language later.

    tr("{name} is not an adapter.", name=path.name)
    ntr(len(cropped), "{count:,} picture is cropped.", "{count:,} pictures are cropped.")

A message is text in the language of whoever is answered (``using``), and keeps its template and its parts. So it is
said anew in another language wherever it is put into a text or an answer: a constant that was made while a module was
imported, or the warning of a run that another process wrote to its log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from math import isfinite
from string import Formatter
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from lora_studio.language import catalogue


class Message(str):
    """Text in the current language, made of a template and parts.

    Attributes:
        template: the English text, with a field in braces for each part. Without parts it is not a format.
        plural: the same for other numbers than one; empty where the text is the same for all.
        parts: what the fields stand for. The part ``count`` chooses between the template and its plural.
    """

    template: str
    plural: str
    parts: dict[str, Any]

    def __new__(cls, template: str, plural: str = "", parts: Mapping[str, Any] | None = None) -> Message:
        kept = {name: _part(value) for name, value in (parts or {}).items()}
        message = super().__new__(cls, _said(template, plural, kept))
        message.template, message.plural, message.parts = template, plural, kept
        return message

    def __str__(self) -> str:
        """The text in the current language."""
        return _said(self.template, self.plural, self.parts)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __add__(self, other: str) -> str:
        return str(self) + str(other)

    def __radd__(self, other: str) -> str:
        return other + str(self)

    def __reduce__(self) -> tuple[type[Message], tuple[str, str, dict[str, Any]]]:
        return Message, (self.template, self.plural, self.parts)


def tr(template: str, /, **parts: Any) -> str:
    """The message ``template`` with its ``parts``.

    The template is a literal: catalogues are made from the code. Numbers follow the language's conventions where their
    field has a format (``{share:.1f}``) or where they are not whole.
    """
    return Message(template, "", parts)


def ntr(count: float, one: str, many: str, /, **parts: Any) -> str:
    """The message for ``count``, which is one of its parts: ``one`` in the singular, ``many`` in the plural."""
    return Message(one, many, {"count": count, **parts})


def declared(text: str) -> str:
    """The message of a text that is declared as data, such as a setting's label. It has no parts."""
    return Message(text)


def number(value: float | Decimal, spec: str = ",") -> str:
    """A number by itself, in the language's conventions. ``spec`` is Python's format of it.

    >>> number(1234.5, ",.1f"), number(12_000)
    ('1,234.5', '12,000')
    """
    return Message(f"{{value:{spec}}}", "", {"value": value})


def both(texts: Iterable[str]) -> str:
    """All of them, as a sentence lists them.

    >>> both(["rank", "alpha", "dropout"])
    'rank, alpha and dropout'
    """
    return _listed(texts, "{some} and {last}")


def either(texts: Iterable[str]) -> str:
    """One of them, as a sentence lists them.

    >>> either(["LoRA", "DoRA"])
    'LoRA or DoRA'
    """
    return _listed(texts, "{some} or {last}")


def few(texts: Iterable[str], most: int) -> str:
    """The first ``most`` of them, and how many others there are.

    >>> few(["a.png", "b.png"], 2), few(["a.png", "b.png", "c.png", "d.png"], 2)
    ('a.png, b.png', 'a.png, b.png and 2 more')
    """
    listed = list(texts)
    some, more = listed[:most], len(listed) - most
    return tr("{some} and {more:,} more", some=some, more=more) if more > 0 else Message("{some}", "", {"some": some})


def in_sequence(sentences: Iterable[str]) -> str:
    """Sentences one after the other.

    >>> in_sequence(["Close other programs.", "The run continues."])
    'Close other programs. The run continues.'
    """
    told = ""
    for one in filter(None, sentences):
        told = tr("{first} {then}", first=told, then=one) if told else one
    return told


def in_row(clauses: Iterable[str]) -> str:
    """Half sentences one after the other.

    >>> in_row(["subjects hold", "no copies"])
    'subjects hold; no copies'
    """
    row, *others = clauses
    for one in others:
        row = tr("{some}; {last}", some=row, last=one)
    return row


def _listed(texts: Iterable[str], ending: str) -> str:
    *some, last = texts
    return Message(ending, "", {"some": some, "last": last}) if some else last


def english(text: str) -> str:
    """``text`` as it is in English: what programs and files get."""
    with catalogue.using(catalogue.ENGLISH):
        return str(text)


class _Words(Formatter):
    """Puts parts into a template: messages and numbers in ``language``."""

    def __init__(self, language: str):
        self._language = language

    def format_field(self, value: Any, format_spec: str) -> Any:
        if isinstance(value, str):  # also NaN out of JSON, which no format fits
            return str(value)
        if isinstance(value, list):
            return _said(", ", "", {}).join(map(str, value))
        shown = format(value, format_spec)
        counts = isinstance(value, float | Decimal) or (isinstance(value, int) and format_spec)
        return shown.translate(catalogue.separators(self._language)) if counts else shown


def _said(template: str, plural: str, parts: Mapping[str, Any]) -> str:
    """A message in the current language."""
    if not template:  # gettext would answer with the catalogue's header
        return ""
    language = catalogue.current()
    words = catalogue.translations(language)
    found = words.ngettext(template, plural, parts["count"]) if plural else words.gettext(template)
    return _Words(language).vformat(found, (), parts) if parts else found


def _part(value: Any) -> Any:
    """What is kept of a part: what JSON can hold, and messages. A list is said with commas between its texts."""
    if isinstance(value, list) or type(value) is tuple:  # others, such as a picture's size, say what they are
        return [_part(one) for one in value]
    return value if isinstance(value, str | int | float | Decimal | None) else str(value)


def to_data(text: Any) -> Any:
    """``text`` as data that JSON can represent: a message with its parts, any other text as it is."""
    if isinstance(text, Decimal):
        return float(text)
    if isinstance(text, list):
        return [to_data(one) for one in text]
    if not isinstance(text, Message):
        return text
    parts = {name: to_data(value) for name, value in text.parts.items()}
    return {"text": english(text), "template": text.template, "plural": text.plural, "parts": parts}


def from_data(data: Any) -> Any:
    """The text that ``to_data`` made ``data`` of.

    Raises:
        ValueError: it made it of none.
    """
    if isinstance(data, list):
        return [from_data(one) for one in data]
    if isinstance(data, str | int | float | None):
        return data
    try:
        template, plural, parts = data["template"], data.get("plural", ""), data.get("parts", {})
        kept = {name: from_data(value) for name, value in parts.items()}
        if not (isinstance(template, str) and isinstance(plural, str) and (not plural or isfinite(kept["count"]))):
            raise TypeError("a template is text, and a plural needs a number")
        return Message(template, plural, kept)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError("this is neither text nor a message") from error


def _told(data: Any) -> str:
    text = from_data(data)
    if not isinstance(text, str):
        raise ValueError("this is neither text nor a message")
    return text


Told = Annotated[str, PlainValidator(_told), PlainSerializer(to_data)]
"""The type of a field for text that is told to people. A message keeps its parts in JSON; any text can be read."""
