"""Dates and times in the current language."""

from __future__ import annotations

from datetime import datetime

from lora_studio.language import catalogue


def date(when: datetime, year: bool = True) -> str:
    """The day, with its year or without.

    >>> date(datetime(2026, 11, 3)), date(datetime(2026, 11, 3), year=False)
    ('3 Nov 2026', '3 Nov')
    >>> with catalogue.using("de"):
    ...     date(datetime(2026, 11, 3))
    '3. Nov. 2026'
    >>> with catalogue.using("ja"):
    ...     date(datetime(2026, 11, 3), year=False)
    '11月3日'
    """
    language = catalogue.current()
    if language == catalogue.ENGLISH:
        return f"{when.day} {when:%b %Y}" if year else f"{when.day} {when:%b}"
    from babel.dates import format_skeleton  # as in the catalogue

    return format_skeleton("yMMMd" if year else "MMMd", when, locale=catalogue.locale(language))


def clock(when: datetime) -> str:
    """The time of day. All of the page's languages write it by 24 hours.

    >>> clock(datetime(2026, 11, 3, 9, 7))
    '09:07'
    """
    return f"{when:%H:%M}"
