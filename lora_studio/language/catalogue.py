"""Which language is spoken, and its translations: gettext's catalogues, read by Babel.

https://www.gnu.org/software/gettext/manual/html_node/PO-Files.html
"""

from __future__ import annotations

import gettext
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from io import BytesIO
from pathlib import Path

ENGLISH = "en"
LANGUAGES = {ENGLISH: "English", "de": "Deutsch", "ja": "日本語", "zh": "简体中文"}
"""Each language's code, which is that of its catalogue and of the page, and its own name."""
FOLDER = Path(__file__).with_name("catalogues")
_LOCALES = {"zh": "zh_Hans"}
"""Babel's name of a language, where it is another one."""

_current: ContextVar[str] = ContextVar("language", default=ENGLISH)


def current() -> str:
    """The language of whoever is answered: English in a process that answers nobody."""
    return _current.get()


@contextmanager
def using(language: str) -> Generator[None]:
    """Messages are in ``language`` meanwhile, in this thread or task."""
    token = _current.set(language)
    try:
        yield
    finally:
        _current.reset(token)


def locale(language: str) -> str:
    """Babel's name of the language."""
    return _LOCALES.get(language, language)


def preferred(accepted: str) -> str:
    """The language that a browser asks for first, of those that there are.

    >>> preferred("fr-CH, ja;q=0.8, de;q=0.9"), preferred("zh-CN,zh;q=0.9"), preferred("fr"), preferred("")
    ('de', 'zh', 'en', 'en')

    Args:
        accepted: the header ``Accept-Language`` (RFC 9110, section 12.5.4).
    """
    wanted = []
    for part in accepted.split(","):
        name, _, quality = part.partition(";q=")
        try:
            wanted.append((-float(quality or 1), name.strip().split("-")[0].lower()))
        except ValueError:
            continue
    known = [name for rank, name in sorted(wanted, key=lambda one: one[0]) if name in LANGUAGES and rank < 0]
    return known[0] if known else ENGLISH


@lru_cache
def translations(language: str) -> gettext.NullTranslations:
    """The catalogue of ``language``; English has none, since messages are written in it."""
    if language == ENGLISH:
        return gettext.NullTranslations()
    from babel.messages.mofile import write_mo  # where it is needed: the command line and workers speak English
    from babel.messages.pofile import read_po

    with (FOLDER / f"{language}.po").open("rb") as file:
        catalogue = read_po(file, locale(language))
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


@lru_cache
def separators(language: str) -> dict[int, str]:
    """What stands for the point, the comma and the percent sign of an English number, for ``str.translate``."""
    if language == ENGLISH:
        return {}
    from babel import Locale

    known = Locale.parse(locale(language))
    symbols = known.number_symbols["latn"]
    return str.maketrans({".": symbols["decimal"], ",": symbols["group"], "%": known.percent_formats[None].suffix[0]})
