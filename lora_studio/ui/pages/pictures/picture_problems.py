"""What is wrong with one picture, in sentences about it alone, each with the remedy that the editor has for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lora_studio.curation.collection import Card, Collection
from lora_studio.dataset.pictures import NOTICES
from lora_studio.dataset.problems import Problem


class Remark(NamedTuple):
    """A sentence about a picture, and the remedy: what the button does and says; empty if there is none."""

    what: str
    act: str = ""
    title: str = ""


_OUT = "out", "Leave out"
_CARD_KINDS = frozenset(("no caption", "long caption", "cropped", "small", "left out", "no weight", "mask"))
"""Kinds of problems that a card itself knows of, after every edit."""


def of(card: Card, collection: Collection) -> list[Remark]:
    """What is wrong with the picture of ``card``."""
    found = [*_own(card, collection)]
    for problem in collection.dataset.problems:
        settled = problem.kind in _CARD_KINDS or (problem.kind == "alpha" and card.picture.mask)
        if not settled and card.name in (problem.files or (problem.file,)):
            found.append(_scanned(problem, card))
    return found


def _own(card: Card, collection: Collection) -> Iterator[Remark]:
    target = collection.target
    if not card.picture.weight:
        yield Remark("It is left out, since the weight of its folder is 0.", "folder", "Options of its folder")
    if "no caption" in card.marks:
        yield Remark("It has no caption.")
    if "long caption" in card.marks:
        what = f"Only the first {target.most_tokens} of the {card.tokens} tokens of its caption are read."
        yield Remark(what, "shorten", "Shorten it")
    if "cropped" in card.marks:
        yield Remark(f"{1 - card.seen:.0%} of it is cut off.", "crop", "Move the crop")
    if "small" in card.marks and card.picture.crop is None:
        side = f"{target.resolution} × {target.resolution}"
        yield Remark(f"It is small for {side} and trains at {card.bucket}.", *_OUT)


def _scanned(problem: Problem, card: Card) -> Remark:
    """A problem that the scan of the folder found, in words about this picture."""
    others = [name for name in problem.files if name != card.name]
    shown = ", ".join(others[:3]) + (f" and {len(others) - 3:,} more" if len(others) > 3 else "")
    if problem.kind in ("identical", "alike") and others:
        how = "the same picture as" if problem.kind == "identical" else "almost the same as"
        return Remark(f"It is {how} {shown}.", *_OUT)
    if problem.kind == "alpha":
        return Remark("It is partly transparent and laid on white.", "mask", "Mask what is transparent")
    if problem.kind in NOTICES:
        return Remark(f"This {NOTICES[problem.kind][0]}.")
    if others:
        return Remark(f"{problem.what} {problem.do}")
    return Remark(problem.what)
