"""Scans a folder of pictures and captions: what can be trained on, and everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from lora_studio.dataset import captions, examination, listing, masks, near_duplicates, pictures, sidecars
from lora_studio.dataset.examination import Progress, Stamp
from lora_studio.dataset.items import Dataset, Mask, Picture
from lora_studio.dataset.listing import PictureFolder
from lora_studio.dataset.pictures import Facts
from lora_studio.dataset.problems import Problem, grouped

_NO_PICTURES = frozenset(
    (*captions.SUFFIXES, ".jsonl", ".json", ".md", ".toml", ".csv", ".html", ".htm", ".npz", ".safetensors", ".zip")
)


def scan(
    folder: Path,
    cache: Path | None = None,
    progress: Progress | None = None,
    *,
    nested: bool = False,
    by_content: bool = False,
) -> Dataset:
    """Reads every picture, mask and caption of ``folder`` and of the ``N_name`` folders in it (N: repeats, as in
    kohya's scripts).

    A picture's caption is the file beside it or what a table says (``sidecars.pair``), else the name of its ``N_name``
    folder. Problems of the folder are not raised: they are in the result.

    Args:
        cache: a folder for the facts of each picture, by path and stamp, which make the next scan fast.
        nested: read all folders below ``folder``, at any depth.
        by_content: compare the hash of every file with what is remembered of it: no replaced picture is missed.
    """
    if not os.path.isdir(folder):  # also of a name that the system does not take
        what = f"There is no folder {folder}."
        return Dataset(folder, [], [Problem("blocking", "", what, "Choose the folder of your pictures.")])
    root = folder.resolve()
    folders, problems = listing.folders(root, nested)
    stamps = {place.prefix + name: Stamp.of(status) for place in folders for name, status in place.files.items()}
    candidates = {
        place.prefix + name: place.folder / name for place in folders for name in place.files if _may_be_picture(name)
    }
    problems += _too_many(candidates)
    if any(problem.severity == "blocking" for problem in problems):
        return Dataset(root, [], problems)
    examined = examination.examine(root, candidates, stamps, cache, by_content, progress)
    masked, told = masks.pair(examined.facts, stamps, examined.bad)
    facts = {name: fact for name, fact in examined.facts.items() if not masks.label(name)}
    texts, more = sidecars.pair(folders, facts.keys() | {name for name in examined.bad if not masks.label(name)})
    own = {name: Mask(candidates[mask], examined.facts[mask].sha256) for name, mask in masked.items()}
    found = [
        Picture(
            place.folder / name,
            texts.get(full) or place.concept,
            place.repeats,
            fact.width,
            fact.height,
            fact.sha256,
            own.get(full),
        )
        for place in folders
        for name in place.files
        if (fact := facts.get(full := place.prefix + name))
    ]
    problems += [*examined.problems, *told, *more, *_remarks(folders, facts, texts), *_archives(stamps)]
    if not found:
        do = f"Add pictures in one of these formats: {pictures.READABLE}."
        problems.append(Problem("blocking", "", "The folder contains no picture that can be trained on.", do))
    gravity = ("blocking", "left out", "warning")
    return Dataset(root, found, sorted(problems, key=lambda problem: gravity.index(problem.severity)))


def _too_many(candidates: Iterable[str]) -> list[Problem]:
    count = sum(not masks.label(name) for name in candidates)
    if count <= listing.MAX_PICTURES:
        return []
    what = f"The folder contains {count:,} pictures; the limit is {listing.MAX_PICTURES:,}."
    do = "Choose the best of them: a style needs tens of pictures, not thousands."
    return [Problem("blocking", "", what, do)]


def _may_be_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() not in _NO_PICTURES and masks.label(name) != masks.CONDITION


def _archives(names: Iterable[str]) -> list[Problem]:
    return grouped(
        "warning",
        [name for name in names if name.lower().endswith((".zip", ".7z", ".rar", ".tar", ".gz", ".cbz"))],
        "archive was not read",
        "archives were not read",
        "Unpack it into the folder, or upload a ZIP on the page.",
    )


def _remarks(folders: Sequence[PictureFolder], facts: dict[str, Facts], texts: dict[str, str]) -> list[Problem]:
    """Warnings about the good pictures: missing captions, notices from reading them, near-duplicates."""
    bare = [name for name in facts if not texts.get(name)]
    named = [name for name in bare if any(place.concept and name.startswith(place.prefix) for place in folders)]
    found = grouped(
        "warning",
        [name for name in bare if name not in set(named)],
        "picture has no caption",
        "pictures have no caption",
        "Write one into a .txt of the same name beside each. Without, their caption is the trigger word alone.",
    )
    found += grouped(
        "warning",
        named,
        "picture has no caption and uses its folder's name",
        "pictures have no caption and use their folder's name",
        "Write a better caption into a .txt of the same name beside each.",
    )
    for key, (one, many, do) in pictures.NOTICES.items():
        found += grouped("warning", [name for name, fact in facts.items() if key in fact.notices], one, many, do)
    return found + _alike(facts)


def _alike(facts: dict[str, Facts]) -> list[Problem]:
    """One warning for each group of identical files, and for each group of files that look alike, where identical ones
    count once.
    """
    copies: dict[str, list[str]] = {}
    for name, fact in facts.items():
        copies.setdefault(fact.sha256, []).append(name)
    found: list[Problem] = []
    for names in copies.values():
        if len(names) > 1:
            found += grouped(
                "warning",
                names,
                "",
                "pictures are identical files",
                "Keep one, unless it should count more than others.",
            )
    first = [names[0] for names in copies.values()]
    for group in near_duplicates.groups([facts[name].likeness for name in first]):
        found += grouped(
            "warning",
            [first[index] for index in group],
            "",
            "pictures look almost the same",
            "Keep the best, unless they should count more than others.",
        )
    return found
