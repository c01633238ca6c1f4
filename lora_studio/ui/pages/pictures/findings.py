"""What is wrong with the pictures that train, by kind. The cards say it as it is after every edit; problems that are of
no card come from the scan.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from lora_studio.curation.collection import MARKS, Card, Collection
from lora_studio.dataset.problems import Kind, Problem
from lora_studio.language import tr


class Fix(StrEnum):
    """What one press does about a finding."""

    SHOW = "show"
    LEAVE_OUT = "leave out"
    KEEP_LARGEST = "keep largest"
    TRIM = "trim"
    DESCRIBE = "describe"
    REMOVE_MASKS = "remove masks"
    FORGET = "forget"


LABELS = {
    Fix.SHOW: tr("Show them"),
    Fix.LEAVE_OUT: tr("Leave them out"),
    Fix.KEEP_LARGEST: tr("Keep the largest of each"),
    Fix.TRIM: tr("Shorten them…"),
    Fix.DESCRIBE: tr("Write captions…"),
    Fix.REMOVE_MASKS: tr("Remove their masks"),
    Fix.FORGET: tr("Forget them"),
}
"""What their buttons say."""


@dataclass(frozen=True)
class HealthFinding:
    """One kind of problem.

    Attributes:
        severity: as of ``Problem``; "note" for what is as it should be and only good to know.
        what: what it means, or what happened in each file.
        names: the pictures that it is about, all of which train; empty if it is not about pictures of the list.
        groups: the sets of pictures that are identical or alike.
    """

    kind: Kind
    severity: str
    title: str
    what: tuple[str, ...]
    do: str
    names: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    fixes: tuple[Fix, ...] = ()

    @property
    def key(self) -> str:
        """Tells it from the others."""
        return f"{self.severity}, {self.kind}"

    @property
    def count(self) -> int:
        """How many problems it is: one, or one for each set."""
        return len(self.groups) or 1


_TWINS: dict[Kind, tuple[str, str]] = {
    "identical": (tr("Identical"), tr("They are the same file more than once, so they count more than others.")),
    "alike": (tr("Nearly alike"), tr("They look almost the same, so they count more than others.")),
}
"""Kinds that are about sets of pictures: title, what it means."""

_OF_CARDS: dict[Kind, tuple[str, str, str, tuple[Fix, ...]]] = {
    "no caption": (
        tr("No caption"),
        tr("Nothing says what they show, so all of it becomes part of the style."),
        tr("Write captions, or let a model write a first version."),
        (Fix.DESCRIBE, Fix.SHOW, Fix.LEAVE_OUT),
    ),
    "long caption": (
        tr("Long captions"),
        "",  # which depends on the base model
        tr("Shorten them, or put what matters first."),
        (Fix.TRIM, Fix.SHOW),
    ),
    "small": (
        tr("Small pictures"),
        tr("They are too small for this base model and train at a smaller size."),
        tr("Use larger originals, or leave them out."),
        (Fix.SHOW, Fix.LEAVE_OUT),
    ),
}
"""Kinds that a card has as a mark: title, what it means, what to do, what a press does."""

_TITLES: dict[str, str] = {
    "no pictures": tr("No picture"),
    "all left out": tr("Nothing left to train on"),
    "unreadable": tr("Cannot be read"),
    "unread folder": tr("Folders that were not read"),
    "small crop": tr("Crops that are too small"),
    "missing": tr("No longer there"),
    "frames": tr("Several frames"),
    "exif": tr("Damaged EXIF data"),
    "profile": tr("Colour profiles"),
    "cmyk": tr("CMYK without a profile"),
    "alpha": tr("Partly transparent"),
    "key": tr("Transparent colour"),
    "two captions": tr("Captions in several places"),
    "orphan caption": tr("Captions without a picture"),
    "unread captions": tr("Captions that were not read"),
    "unreadable caption": tr("Captions that cannot be read"),
    "caption encoding": tr("Captions that are not UTF-8"),
    "not a caption": tr("Not a caption"),
    "table": tr("Tables of captions"),
    "protected tag": tr("Protected tags"),
    "sides": tr("Left and right"),
    "black mask": tr("Black masks"),
    "mask shape": tr("Masks of another shape"),
    "orphan mask": tr("Masks without a picture"),
    "unreadable mask": tr("Masks that cannot be read"),
    "conditioning": tr("Pictures for other kinds of model"),
    "folder caption": tr("Captions from the folder's name"),
    "caption lines": tr("Several captions"),
    "wildcards": tr("Wildcards"),
    "braces": tr("Braces"),
    "mask": tr("Masks"),
}
"""Kinds that are as the scan found them; others have the title "Also"."""

_NOTES = frozenset(("mask", "caption lines", "wildcards", "folder caption"))
"""Kinds that are no problem."""
_SKIPPED = frozenset(("cropped", "left out", *_TWINS, *_OF_CARDS))
"""Kinds of a scan that the cards know better."""
_PICTURES_AS_THEY_ARE = frozenset(("frames", "exif", "profile", "cmyk", "alpha", "key"))


def title(kind: str) -> str:
    """What a mark or a kind of problem is called."""
    known = {**{key: named[0] for key, named in (*_TWINS.items(), *_OF_CARDS.items())}, **_TITLES}
    return MARKS.get(kind) or known.get(kind, kind.capitalize())


def find(collection: Collection) -> list[HealthFinding]:
    """All findings: those that prevent training first, notes last."""
    trained = {name: card for name, card in collection.cards.items() if not card.left_out}
    found = [*_twins(collection, trained), *_of_cards(collection, trained), *_scanned(collection, trained)]
    order = ("blocking", "left out", "warning", "note")
    return sorted(found, key=lambda one: order.index(one.severity))


def cropped(collection: Collection) -> list[str]:
    """The pictures that train and lose a part."""
    return [card.name for card in collection.cards.values() if "cropped" in card.marks and not card.left_out]


def largest(cards: Iterable[Card]) -> Card:
    """The one to keep of pictures that are alike: the one with most pixels, then with the longest caption, then with
    the shortest name, since that of a copy is longer.

    >>> from types import SimpleNamespace as S
    >>> picture = S(width=512, height=512, caption="a boat")
    >>> largest([S(name="boat copy.png", picture=picture), S(name="boat.png", picture=picture)]).name
    'boat.png'
    """
    return max(
        cards, key=lambda card: (card.picture.width * card.picture.height, len(card.picture.caption), -len(card.name))
    )


def others(found: Iterable[HealthFinding], key: str, keep: str) -> list[str]:
    """The pictures that still train and are in a set with ``keep``, by the finding ``key``."""
    groups = (group for one in found if one.key == key for group in one.groups if keep in group)
    return [name for name in next(groups, ()) if name != keep]


def beside_largest(found: HealthFinding, collection: Collection) -> list[str]:
    """Of each set the pictures that are not the one to keep."""
    sets = ([collection.cards[name] for name in group] for group in found.groups)
    return [card.name for cards in sets for card in cards if card is not largest(cards)]


def _twins(collection: Collection, trained: dict[str, Card]) -> Iterable[HealthFinding]:
    copies = {name: group for group in collection.dataset.groups("identical") for name in group}
    for kind, (title, what) in _TWINS.items():
        left = (_left(group, trained, copies) for group in collection.dataset.groups(kind))
        groups = tuple(group for group in left if len(group) > 1)
        if groups:
            do = tr("Keep the best of each, and leave the others out.")
            names = tuple(name for group in groups for name in group)
            yield HealthFinding(kind, "warning", title, (what,), do, names, groups, (Fix.KEEP_LARGEST,))


def _left(group: tuple[str, ...], trained: dict[str, Card], copies: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Of a set the pictures that still train; one that does not is stood in for by its copy that does."""
    standing = (next((one for one in (name, *copies.get(name, ())) if one in trained), "") for name in group)
    return tuple(dict.fromkeys(filter(None, standing)))


def _of_cards(collection: Collection, trained: dict[str, Card]) -> Iterable[HealthFinding]:
    for kind, (title, what, do, fixes) in _OF_CARDS.items():
        names = tuple(name for name, card in trained.items() if kind in card.marks)
        if names:
            told = what or _unread(collection.target.most_tokens)
            yield HealthFinding(kind, "warning", title, (told,), do, names, fixes=fixes)


def _unread(most: int) -> str:
    return tr("The base model reads {most:,} tokens; what comes after them is cut off.", most=most)


def _scanned(collection: Collection, trained: dict[str, Card]) -> Iterable[HealthFinding]:
    sets: dict[tuple[str, Kind], list[Problem]] = {}
    for problem in collection.dataset.problems:
        if problem.kind not in _SKIPPED and not _settled(problem, collection, trained):
            severity = "note" if problem.kind in _NOTES else problem.severity
            sets.setdefault((severity, problem.kind), []).append(problem)
    for (severity, kind), problems in sets.items():
        names = tuple(name for problem in problems for name in _files(problem) if name in trained)
        what = tuple(map(_placed, problems))
        yield HealthFinding(
            kind, severity, _TITLES.get(kind, tr("Also")), what, problems[0].do, names, fixes=_fixes(kind, names)
        )


def _settled(problem: Problem, collection: Collection, trained: dict[str, Card]) -> bool:
    """Whether all pictures that it is about were left out since the scan."""
    known = [name for name in _files(problem) if name in collection.cards]
    return bool(known) and not any(name in trained for name in known)


def _files(problem: Problem) -> tuple[str, ...]:
    return problem.files or (problem.file,)


def _placed(problem: Problem) -> str:
    named = not problem.file or problem.file in problem.what
    return problem.what if named else f"{problem.file}: {problem.what}"


def _fixes(kind: Kind, names: tuple[str, ...]) -> tuple[Fix, ...]:
    if kind == "missing":
        return (Fix.FORGET,)
    if not names:
        return ()
    if kind == "black mask":
        return Fix.REMOVE_MASKS, Fix.LEAVE_OUT
    return (Fix.LEAVE_OUT,) if kind in _PICTURES_AS_THEY_ARE else ()
