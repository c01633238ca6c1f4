"""German that the tests know, whatever its catalogue has by now, and a language that shows what is not translated."""

from __future__ import annotations

import gettext
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from gradio.context import LocalContext
from starlette.datastructures import Headers

from lora_studio.language import catalogue

GERMAN: dict[str | tuple[str, str], str | tuple[str, str]] = {
    "{name} is not an adapter.": "{name} ist kein Adapter.",
    "{loss:.2f} at step {step:,}": "{loss:.2f} bei Schritt {step:,}",
    ("{count:,} picture is cropped.", "{count:,} pictures are cropped."): (
        "{count:,} Bild wird beschnitten.",
        "{count:,} Bilder werden beschnitten.",
    ),
    "Training": "Läuft",
    "The run is {state}.": "Der Lauf: {state}.",
    "{some} and {last}": "{some} und {last}",
    "{some} or {last}": "{some} oder {last}",
    "Language": "Sprache",
    "Judge": "Beurteilen",
}


class Marking(gettext.NullTranslations):
    """Puts each message between marks, so that what is no message stands outside."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self.gettext(msgid1 if n == 1 else msgid2)


def _instead(monkeypatch: pytest.MonkeyPatch, german: gettext.NullTranslations) -> None:
    kept = catalogue.translations
    monkeypatch.setattr(catalogue, "translations", lambda spoken: german if spoken == "de" else kept(spoken))


@pytest.fixture
def german(monkeypatch: pytest.MonkeyPatch) -> None:
    """``GERMAN`` in place of the German catalogue."""
    made, compiled = Catalog("de"), BytesIO()
    for message, translation in GERMAN.items():
        made.add(message, translation)
    write_mo(compiled, made)
    compiled.seek(0)
    _instead(monkeypatch, gettext.GNUTranslations(compiled))


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Marking`` in place of the German catalogue."""
    _instead(monkeypatch, Marking())


class Request:
    """What gradio keeps of a request while its handler is at work."""

    def __init__(self, **headers: str):
        self.headers = Headers({name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture
def asking() -> Iterator[Callable[..., Any]]:
    """Sets the request that is answered: ``asking(accept_language="de")``."""
    tokens = []

    def ask(**headers: str) -> None:
        tokens.append(LocalContext.request.set(Request(**headers)))

    yield ask
    for token in reversed(tokens):
        LocalContext.request.reset(token)
