"""What is wrong with one picture, in sentences about it alone, each with the remedy that the editor has for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lora_studio.curation.collection import Card, Collection
from lora_studio.dataset.problems import Kind, Problem
from lora_studio.language import few, in_sequence, tr


class Remark(NamedTuple):
    """A sentence about a picture, and the remedy: what the button does and says; empty if there is none."""

    what: str
    act: str = ""
    title: str = ""


_OUT = "out", tr("Leave out")
_CARD_KINDS = frozenset(("no caption", "long caption", "cropped", "small", "left out", "no weight", "mask"))
"""Kinds of problems that a card itself knows of, after every edit."""


NOTICES: dict[Kind, str] = {
    "frames": tr("This picture has several frames, of which the first is used."),
    "exif": tr("This picture has damaged EXIF data and is not rotated."),
    "profile": tr("This picture has a damaged or wrong colour profile, which is not used."),
    "cmyk": tr("This picture is CMYK without a profile, so its colours are approximate."),
    "key": tr("This picture has 16 bits per channel and a transparent colour, which is compared by its upper 8 bits."),
}
"""What was noticed as a picture was read, about it alone; those of ``dataset.pictures`` are about many."""


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
        yield Remark(tr("It is left out, since the weight of its folder is 0."), "folder", tr("Options of its folder"))
    if "no caption" in card.marks:
        yield Remark(tr("It has no caption."))
    if "long caption" in card.marks:
        what = tr(
            "Only the first {most} of the {tokens} tokens of its caption are read.",
            most=target.most_tokens,
            tokens=card.tokens,
        )
        yield Remark(what, "shorten", tr("Shorten it"))
    if "cropped" in card.marks:
        yield Remark(tr("{share:.0%} of it is cut off.", share=1 - card.seen), "crop", tr("Move the crop"))
    if "small" in card.marks and card.picture.crop is None:
        side = f"{target.resolution} × {target.resolution}"
        yield Remark(tr("It is small for {side} and trains at {bucket}.", side=side, bucket=card.bucket), *_OUT)


def _scanned(problem: Problem, card: Card) -> Remark:
    """A problem that the scan of the folder found, in words about this picture."""
    others = [name for name in problem.files if name != card.name]
    if problem.kind == "identical" and others:
        return Remark(tr("It is the same picture as {others}.", others=few(others, 3)), *_OUT)
    if problem.kind == "alike" and others:
        return Remark(tr("It is almost the same as {others}.", others=few(others, 3)), *_OUT)
    if problem.kind == "alpha":
        return Remark(tr("It is partly transparent and laid on white."), "mask", tr("Mask what is transparent"))
    if problem.kind in NOTICES:
        return Remark(NOTICES[problem.kind])
    if others:
        return Remark(in_sequence([problem.what, problem.do]))
    return Remark(problem.what)
