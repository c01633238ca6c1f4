"""A language whose every message stands in brackets: what stands outside is in English for all."""

from __future__ import annotations

import gettext
import re

import pytest

from lora_studio import language
from lora_studio.language import catalogue


class Brackets(gettext.NullTranslations):
    """All of a message but its fields is in brackets."""

    def gettext(self, message):
        return "".join(part if part[0] == "{" else f"⟦{part}⟧" for part in re.split(r"(\{[^{}]+\})", message) if part)

    def ngettext(self, msgid1, msgid2, n):
        return self.gettext(msgid1 if n == 1 else msgid2)


@pytest.fixture(autouse=True)
def brackets(monkeypatch):
    """All messages are in brackets, in the tests of a file that imports this."""
    monkeypatch.setattr(catalogue, "translations", lambda _: Brackets())
    with language.using("de"):
        yield
