"""Pairs of prompts or pictures: what a slider is trained on, a file that says in which direction a concept lies.

A concept is either moved, for a slider (Gandikota et al. 2023, *Concept Sliders*), by what two prompts or two pictures
differ in, or erased (Gandikota et al. 2023, *Erasing Concepts from Diffusion Models*):

    [[pair]]
    prompt = "a house"
    towards = "a large house"
    away = "a small house"

    [[pair]]
    prompt = "a house"
    towards_picture = "day.png"
    away_picture = "night.png"

    [[pair]]
    erase = "snow"
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from lora_studio.config import presets
from lora_studio.config.specs import did_you_mean
from lora_studio.dataset import picture_pairs
from lora_studio.dataset.items import Dataset, PromptPair
from lora_studio.errors import DatasetError
from lora_studio.language import tr

PICTURES = ("towards_picture", "away_picture")
FIELDS = ("prompt", "towards", "away", *PICTURES, "erase", "weight")
"""What a pair may say."""
MOST, MOST_WEIGHT = 1000, 100.0
_SHOWN = 60
"""Characters of a wrong value that an error repeats."""


def scan(path: Path, cache: Path | None = None, *, by_content: bool = False) -> Dataset:
    """The pairs of a file as what is trained on: a dataset without pictures, or with two of each pair.

    Args:
        cache, by_content: as of ``folder.scan``, for pictures.

    Raises:
        SettingsError, DatasetError: as ``read``; or a picture is missing or damaged, or two of a pair have other sizes.
    """
    pairs = read(path)
    if not pairs[0].pictures:
        return Dataset(path.absolute(), [], [], pairs=pairs)
    return picture_pairs.scan(path, pairs, cache, by_content=by_content)


def read(path: Path) -> list[PromptPair]:
    """The pairs in a TOML file, in its order.

    Raises:
        SettingsError: it cannot be read, or is not valid TOML.
        DatasetError: a pair says too little, too much, or something else than it may; names file, pair and field.
    """
    table, name = presets.table(path), path.name
    for key in table:
        if key != "pair":
            raise DatasetError(
                tr("There is no table named {key!r}.", key=key), where=name, do=tr("Write [[pair]] before each pair.")
            )
    entries = table.get("pair", [])
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        do = tr("Write [[pair]] before each pair, in two brackets on either side.")
        raise DatasetError(tr("pair is not a list of tables."), where=f"{name}: pair", do=do)
    if not entries:
        do = tr("Write [[pair]], and below it prompt, towards and away; or two pictures; or erase alone.")
        raise DatasetError(tr("The file has no pair."), where=name, do=do)
    if len(entries) > MOST:
        do = tr("Keep the best of them: a slider needs a few.")
        raise DatasetError(
            tr("The file has {count:,} pairs; the limit is {most:,}.", count=len(entries), most=MOST), where=name, do=do
        )
    pairs = [
        _pair(entry, tr("{file}: pair {number}", file=name, number=number)) for number, entry in enumerate(entries, 1)
    ]
    if len({pair.erases for pair in pairs}) > 1:
        do = tr("Put them into two files, and train two adapters.")
        raise DatasetError(tr("Some pairs move a concept and others erase one."), where=name, do=do)
    if len({pair.pictures is None for pair in pairs}) > 1:
        do = tr("Put them into two files, and train two adapters.")
        raise DatasetError(tr("Some pairs are of prompts and others of pictures."), where=name, do=do)
    return pairs


def written(pairs: Sequence[PromptPair]) -> str:
    """The TOML of a file that ``read`` reads as ``pairs``."""
    return tomli_w.dumps({"pair": [_entry(pair) for pair in pairs]})


def _entry(pair: PromptPair) -> dict[str, Any]:
    of = {"prompt": pair.neutral}
    if pair.pictures:
        of |= dict(zip(PICTURES, pair.pictures, strict=True))
    else:
        of |= {"erase": pair.away} if pair.erases else {"towards": pair.towards, "away": pair.away}
    return of | ({} if pair.weight == 1 else {"weight": pair.weight})


def _pair(entry: dict[str, Any], where: str) -> PromptPair:
    for key in entry:
        if key not in FIELDS:
            raise DatasetError(tr("A pair has no {key!r}.", key=key), where=where, do=did_you_mean(key, FIELDS))
    texts = {key: _text(entry, key, where) for key in FIELDS[:-1] if key in entry}
    weight, plain = _weight(entry.get("weight", 1.0), where), texts.get("prompt", "")
    if "erase" in texts:
        return PromptPair(_erased(texts, plain, where), plain, plain, texts["erase"], weight)
    if any(key in texts for key in PICTURES):
        return PromptPair(*[plain] * 4, weight, _pictures(texts, where))
    for key in ("prompt", "towards", "away"):
        if key not in texts:
            do = tr("A pair needs prompt, towards and away; or towards_picture and away_picture; or erase alone.")
            raise DatasetError(tr("{key} is missing.", key=key), where=where, do=do)
    if texts["towards"] == texts["away"]:
        do = tr("Write in which way they differ: that is what the slider moves.")
        raise DatasetError(tr("towards and away are the same prompt."), where=where, do=do)
    return PromptPair(plain, plain, texts["towards"], texts["away"], weight)


def _pictures(texts: dict[str, str], where: str) -> tuple[str, str]:
    """The names of the two pictures of a pair."""
    for key in PICTURES:
        if not texts.get(key):
            do = tr('Write beside the other one: {key} = "night.png"', key=key)
            raise DatasetError(tr("{key} is missing.", key=key), where=where, do=do)
    for key in ("towards", "away"):
        if key in texts:
            do = tr("Leave one of the two out: a pair differs in its prompts or in its pictures.")
            raise DatasetError(tr("{key} stands beside pictures.", key=key), where=f"{where}, {key}", do=do)
    found = texts[PICTURES[0]], texts[PICTURES[1]]
    if found[0] == found[1]:
        do = tr("Name the picture that shows the opposite: what they differ in is what the slider moves.")
        raise DatasetError(tr("Both pictures are the same file."), where=where, do=do)
    return found


def _erased(texts: dict[str, str], plain: str, where: str) -> str:
    """The prompt of the concept that a pair erases."""
    for key in ("towards", "away", *PICTURES):
        if key in texts:
            do = tr("Leave one of the two out: a pair either moves a concept or erases one.")
            raise DatasetError(tr("erase stands beside {key}.", key=key), where=f"{where}, {key}", do=do)
    if texts["erase"] == plain:
        what = tr("erase is empty.") if not plain else tr("erase and prompt are the same.")
        do = tr("Write in erase what is to be erased, and in prompt what is drawn in its place.")
        raise DatasetError(what, where=f"{where}, erase", do=do)
    return texts["erase"]


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry[key]
    if isinstance(value, str):
        return value.strip()
    do = tr('Write it in quotes: {key} = "a house"', key=key)
    raise DatasetError(
        tr("{key} must be text; it is {given}.", key=key, given=_shown(value)), where=f"{where}, {key}", do=do
    )


def _weight(value: Any, where: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and math.isfinite(value) and 0 < value <= MOST_WEIGHT:
        return float(value)
    what = tr(
        "weight must be a number above 0 and at most {most:g}; it is {given}.", most=MOST_WEIGHT, given=_shown(value)
    )
    raise DatasetError(what, where=f"{where}, weight", do=tr("1 is usual; 2 counts twice as much."))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
