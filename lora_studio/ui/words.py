"""Figures and states in plain words, as the page shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from html import escape

from lora_studio import files
from lora_studio.events import State
from lora_studio.language import ENGLISH, clock, current, date, ntr, number, tr

STATES = {
    State.QUEUED: tr("Waiting"),
    State.PREPARING: tr("Preparing"),
    State.RUNNING: tr("Training"),
    State.PAUSED: tr("Paused"),
    State.STOPPING: tr("Stopping"),
    State.FINISHED: tr("Finished"),
    State.FAILED: tr("Failed"),
    State.INTERRUPTED: tr("Interrupted"),
}

_FILE = re.compile(r"[/\\]|\.[A-Za-z]\w{1,11}$")
"""What a path or the name of a file has, and a field's name has not."""


def text(value: object) -> str:
    """``value`` escaped for HTML, so that no name, caption or message can contain markup, or what is not Unicode."""
    return escape(files.printable(value), quote=True)


def facts(entries: Iterable[str]) -> str:
    """Short facts side by side, as HTML."""
    return f'<p class="facts">{"".join(f"<span>{text(entry)}</span>" for entry in entries)}</p>'


def table(entries: Iterable[tuple[str, str]]) -> str:
    """Names and values below each other, as HTML; those without a value are left out."""
    rows = (f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in entries if value)
    return f"<dl>{''.join(rows)}</dl>"


def notice(kind: str, what: str, where: str = "", do: str = "") -> str:
    """A message as HTML: what happened, where, what to do. ``kind`` is "wrong" or "warned"."""
    told = f"<b>{text(what)}</b>"
    if where and where not in what:
        place = str(where)
        if _FILE.search(place):
            told = f"{told} <code>{text(place)}</code>"
        else:
            told = tr("{place}: {message}", place=text(_begun(place)), message=told)
    advice = f"<p>{text(do)}</p>" if do else ""
    role = "alert" if kind == "wrong" else "note"
    return f'<div class="notice {kind}" role="{role}">{told}{advice}</div>'


def _begun(place: str) -> str:
    """A place as a message begins with it. A single word may be a name, and stays as it is."""
    return begun(place) if " " in place else place


def begun(clause: str) -> str:
    """``clause`` as the beginning of a sentence."""
    shown = str(clause)
    return shown[:1].upper() + shown[1:]


def within(title: str) -> str:
    """``title`` as it stands within a sentence, where English alone writes it small."""
    shown = str(title)
    return shown[:1].lower() + shown[1:] if current() == ENGLISH else shown


def script(texts: Mapping[str, str]) -> str:
    """``texts`` for a script, in the current language, as an object of its language."""
    return json.dumps({name: str(one) for name, one in texts.items()}, ensure_ascii=False)


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun, in the plural if need be. The nouns are literals, for the catalogues.

    >>> counted(1, "picture"), counted(1200, "picture")
    ('1 picture', '1,200 pictures')
    """
    return ntr(number, f"{{count:,}} {one}", f"{{count:,}} {many or one + 's'}")


def in_sentence(label: str) -> str:
    """A label as it stands within a sentence. Other languages than English keep its capitals.

    >>> in_sentence("Batch size")
    'batch size'
    """
    return str(label).lower() if current() == ENGLISH else str(label)


def divided(train: int, held_out: int) -> str:
    """How pictures are divided between training and validation.

    >>> divided(34, 4), divided(1, 0)
    ('34 pictures train, 4 held out for validation', '1 picture trains')
    """
    shown = ntr(train, "{count:,} picture trains", "{count:,} pictures train")
    return tr("{shown}, {held_out:,} held out for validation", shown=shown, held_out=held_out) if held_out else shown


def duration(seconds: float) -> str:
    """A time in words, at least one second.

    >>> [duration(s) for s in (0.4, 50, 200, 4000)]
    ['1 second', '50 seconds', '3 minutes', '1 hour 7 minutes']
    """
    seconds = max(1, round(seconds))
    if seconds < 90:
        return counted(seconds, "second")
    minutes = round(seconds / 60)
    if minutes < 60:
        return counted(minutes, "minute")
    hours, minutes = divmod(minutes, 60)
    if not minutes:
        return counted(hours, "hour")
    return tr("{hours} {minutes}", hours=counted(hours, "hour"), minutes=counted(minutes, "minute"))


def moment(timestamp: float, now: datetime | None = None) -> str:
    """When something was, as briefly as is clear.

    >>> now = datetime(2026, 3, 5, 15, 0)
    >>> moment(datetime(2026, 3, 5, 14, 7).timestamp(), now), moment(datetime(2025, 3, 5, 14, 7).timestamp(), now)
    ('today, 14:07', '5 Mar 2025, 14:07')

    Args:
        timestamp: in seconds since the epoch.
    """
    when, now = datetime.fromtimestamp(timestamp), now or datetime.now()
    if when.date() == now.date():
        return tr("today, {time}", time=clock(when))
    return day_and_time(timestamp, year=when.year != now.year)


def day_and_time(timestamp: float, year: bool = False) -> str:
    """The day and the time of day, with the year or without.

    >>> day_and_time(datetime(2026, 3, 5, 14, 7).timestamp())
    '5 Mar, 14:07'
    """
    when = datetime.fromtimestamp(timestamp)
    return tr("{day}, {time}", day=date(when, year), time=clock(when))


def day(timestamp: float) -> str:
    """The day with its year.

    >>> day(datetime(2026, 11, 3).timestamp())
    '3 Nov 2026'
    """
    return date(datetime.fromtimestamp(timestamp))


def size(count: int) -> str:
    """A number of bytes in KB, MB or GB.

    >>> [size(n) for n in (900, 3_400_000, 1_500_000_000)]
    ['1 KB', '3.4 MB', '1.5 GB']
    """
    for unit, divisor in (("GB", 1e9), ("MB", 1e6)):
        if count >= divisor:
            return number(count / divisor, ".1f") + f" {unit}"
    return f"{max(1, round(count / 1e3))} KB"


def figure(value: float) -> str:
    """A measured number, short.

    >>> [figure(v) for v in (0.123456, 0.00003, 12.34)]
    ['0.1235', '3.00e-05', '12.34']
    """
    if value and abs(value) < 0.001:
        return number(value, ".2e")
    return number(value, ".4f" if abs(value) < 1 else ".2f")


def value(setting: object) -> str:
    """A setting's value as text.

    >>> value(True), value(["a cat", "a dog"]), value(""), value(1000), value(0.0003)
    ('on', 'a cat · a dog', 'none', '1,000', '0.0003')
    >>> value(5e-05)
    '0.00005'
    """
    match setting:
        case bool():
            return tr("on") if setting else tr("off")
        case int():
            return number(setting)
        case float():
            short = f"{setting:g}"
            if "e-0" in short:  # learning rates are read more easily in full
                return number(Decimal(short), "f")
            return number(setting, "g")
        case list() | tuple():
            return " · ".join(map(str, setting)) or tr("none")
        case None:
            return tr("empty")
    return str(setting) or tr("none")
