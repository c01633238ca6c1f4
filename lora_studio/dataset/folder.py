"""Scans a folder of pictures and captions: what can be trained on, and everything that is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lora_studio import files
from lora_studio.dataset import captions, listing, near_duplicates, pictures, sidecars
from lora_studio.dataset.items import Dataset, Picture
from lora_studio.dataset.listing import PictureFolder
from lora_studio.dataset.pictures import Facts
from lora_studio.dataset.problems import Problem, grouped
from lora_studio.errors import DatasetError

_NO_PICTURES = frozenset(
    (*captions.SUFFIXES, ".jsonl", ".json", ".md", ".toml", ".csv", ".html", ".htm", ".npz", ".safetensors", ".zip")
)
_REMEMBERED = TypeAdapter(dict[str, tuple[int, int, Facts]])


def scan(folder: Path, cache: Path | None = None, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Reads every picture and caption of ``folder`` and of the ``N_name`` folders in it (N: repeats, as in kohya's
    scripts).

    A picture's caption is the file beside it or what a table says (``sidecars.pair``), else the name of its ``N_name``
    folder. Problems of the folder are not raised: they are in the result.

    Args:
        cache: a folder for the facts of each picture, by path, size and time of change, which make the next scan fast.
        progress: called with (pictures read, pictures in total).
    """
    if not os.path.isdir(folder):  # also of a name that the system does not take
        return Dataset(
            folder,
            [],
            [Problem("blocking", "", f"There is no folder {folder}.", "Choose the folder of your pictures.")],
        )
    root = folder.resolve()
    folders, problems = listing.folders(root)
    candidates = {
        place.prefix + name: place.folder / name for place in folders for name in place.files if _may_be_picture(name)
    }
    if len(candidates) > listing.MAX_PICTURES:
        problems.append(
            Problem(
                "blocking",
                "",
                f"The folder contains {len(candidates):,} pictures; the limit is {listing.MAX_PICTURES:,}.",
                "Choose the best of them: a style needs tens of pictures, not thousands.",
            )
        )
    if any(problem.severity == "blocking" for problem in problems):
        return Dataset(root, [], problems)
    facts, bad = _examined(root, folders, candidates, cache, problems, progress)
    texts, more = sidecars.pair(folders, facts.keys() | bad)
    found = [
        Picture(
            place.folder / name,
            texts.get(place.prefix + name) or place.concept,
            place.repeats,
            known.width,
            known.height,
            known.sha256,
        )
        for place in folders
        for name in place.files
        if (known := facts.get(place.prefix + name))
    ]
    problems += more + _remarks(folders, facts, texts)
    if not found:
        problems.append(
            Problem(
                "blocking",
                "",
                "The folder contains no picture that can be trained on.",
                f"Add pictures in one of these formats: {pictures.READABLE}.",
            )
        )
    gravity = ("blocking", "left out", "warning")
    return Dataset(root, found, sorted(problems, key=lambda problem: gravity.index(problem.severity)))


def _may_be_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() not in _NO_PICTURES


def _examined(
    root: Path,
    folders: Sequence[PictureFolder],
    candidates: dict[str, Path],
    cache: Path | None,
    problems: list[Problem],
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, Facts], set[str]]:
    """The facts of all good pictures by name, and the names of the bad ones, which are added to ``problems``."""
    memory = cache / f"scan-1-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json" if cache else None
    known = _recall(memory)
    stamps = {
        place.prefix + name: (status.st_size, status.st_mtime_ns)
        for place in folders
        for name, status in place.files.items()
    }
    facts = {name: known[name][2] for name in candidates if name in known and known[name][:2] == stamps[name]}
    unread = [name for name in candidates if name not in facts]
    bad: set[str] = set()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for name, outcome in zip(unread, pool.map(_outcome, map(candidates.__getitem__, unread)), strict=True):
            if isinstance(outcome, Facts):
                facts[name] = outcome
            elif not isinstance(outcome, pictures.NotAPicture) or pictures.promises(name):
                problems.append(Problem("left out", name, outcome.what, outcome.do))
                bad.add(name)
            if progress:
                progress(len(facts) + len(bad), len(candidates))
    learned = {name: (*stamps[name], facts[name]) for name in candidates if name in facts}
    if memory and learned != known:
        _remember(memory, learned, problems)
    return {name: fact for name, (*_, fact) in learned.items()}, bad


def _outcome(path: Path) -> Facts | DatasetError:
    try:
        return pictures.examine(path)
    except DatasetError as error:
        return error


def _recall(memory: Path | None) -> dict[str, tuple[int, int, Facts]]:
    try:
        return _REMEMBERED.validate_json(memory.read_bytes()) if memory else {}
    except (OSError, ValidationError):  # missing or damaged: the pictures are read again
        return {}


def _remember(memory: Path, known: dict[str, tuple[int, int, Facts]], problems: list[Problem]) -> None:
    try:
        files.write(memory, _REMEMBERED.dump_json(known))
    except OSError as error:
        problems.append(
            Problem(
                "warning",
                "",
                f"The result of the scan could not be saved in {memory.parent}: {files.reason(error)}.",
                f"{files.advice(error)} Until then every scan takes as long as the first.",
            )
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
        "Write a .txt of the same name beside each. Without, the trigger word is their caption.",
    )
    found += grouped(
        "warning",
        named,
        "picture has no caption and uses its folder's name",
        "pictures have no caption and use their folder's name",
        "Write a .txt of the same name beside each for a better caption.",
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
