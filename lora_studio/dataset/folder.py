"""Scans a folder of pictures and captions: what can be trained on, and everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from lora_studio.dataset import (
    captions,
    examination,
    listing,
    masks,
    near_duplicates,
    pictures,
    preparation,
    sidecars,
)
from lora_studio.dataset.choices import Choices
from lora_studio.dataset.examination import Progress, Stamp
from lora_studio.dataset.items import Dataset, Mask, Picture
from lora_studio.dataset.listing import PictureFolder
from lora_studio.dataset.pictures import Facts
from lora_studio.dataset.problems import Problem, grouped
from lora_studio.language import declared, ntr, tr

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
    kohya's scripts), with the folders of masks there.

    A picture's caption is the file beside it or what a table says (``sidecars.pair``), else the name of its ``N_name``
    folder. Problems of the folder are not raised: they are in the result.

    Args:
        cache: a folder for the facts of each picture, by path and stamp, which make the next scan fast.
        nested: read all folders below ``folder``, at any depth.
        by_content: compare the hash of every file with what is remembered of it: no replaced picture is missed.
    """
    if not os.path.isdir(folder):  # also of a name that the system does not take
        what = tr("There is no folder {folder}.", folder=folder)
        return Dataset(
            folder, [], [Problem("blocking", "no folder", "", what, tr("Choose the folder of your pictures."))]
        )
    root = folder.resolve()
    chosen, problems = preparation.read(root)
    choices = Choices(root, chosen)
    folders, more = listing.folders(root, nested, choices.folders)
    stamps = {place.prefix + name: Stamp.of(status) for place in folders for name, status in place.files.items()}
    candidates = {
        place.prefix + name: place.folder / name for place in folders for name in place.files if _may_be_picture(name)
    }
    of_pictures = masks.find(candidates)
    all_masks = {name for several in of_pictures.values() for name in several}
    more += _too_many(len(candidates) - len(all_masks))
    problems += more
    if any(problem.severity == "blocking" for problem in more):
        return Dataset(root, [], problems)
    examined = examination.examine(root, candidates, stamps, cache, by_content, progress)
    aside = set(filter(choices.is_left_out, examined.facts))
    masked, told = masks.pair(of_pictures, examined.facts, examined.bad, aside)
    folders = [place for place in folders if not place.masks]
    facts = {name: fact for name, fact in examined.facts.items() if name not in all_masks}
    texts, more = sidecars.pair(folders, facts.keys() | (examined.bad - all_masks))
    own = {name: Mask(candidates[mask], examined.facts[mask].sha256) for name, mask in masked.items()}
    found = {
        name: choices.applied(name, _picture(place, place.folder / file, facts[name], texts.get(name), own.get(name)))
        for place in folders
        for file in place.files
        if (name := place.prefix + file) in facts
    }
    weightless = [name for name, picture in found.items() if not picture.weight and name not in aside]
    trained = {name: facts[name] for name in found if name not in {*aside, *weightless}}
    chosen_out = [name for name in found if name in aside]
    problems += [*examined.problems, *told, *masks.conditions(stamps), *more]
    problems += [*_remarks(folders, trained, texts), *_archives(stamps), *choices.problems(stamps, chosen_out)]
    problems += _weightless(weightless)
    if all(found[name].regularisation for name in trained):
        problems.append(_nothing(len(found) - len(trained), len(trained)))
    gravity = ("blocking", "left out", "warning")
    problems.sort(key=lambda problem: gravity.index(problem.severity))
    return Dataset(
        root, [found[name] for name in trained], problems, [found[name] for name in found if name not in trained]
    )


def _picture(place: PictureFolder, path: Path, facts: Facts, text: str | None, mask: Mask | None) -> Picture:
    """A picture of ``place`` with what its folder gives it."""
    options = place.options
    return Picture(
        path,
        text or options.caption or place.concept,
        place.repeats,
        facts.width,
        facts.height,
        facts.sha256,
        mask,
        weight=options.weight,
        timesteps=options.timesteps,
        regularisation=options.regularisation,
        prefix=options.prefix,
    )


def _weightless(names: Sequence[str]) -> list[Problem]:
    return grouped(
        "left out",
        "no weight",
        names,
        "picture is left out, since the weight of its folder is 0",
        "pictures are left out, since the weight of their folder is 0",
        tr("Give the folder another weight on the page, in Pictures, to train on them."),
    )


def _nothing(left_out: int, class_pictures: int) -> Problem:
    """The folder has no picture to train on but ``class_pictures``; ``left_out`` good ones are left out."""
    if class_pictures:
        what = tr("All pictures are class pictures, which do not show the style.")
        return Problem(
            "blocking", "class pictures", "", what, tr("Add pictures of the style in a folder of their own.")
        )
    if left_out:
        what = ntr(left_out, "The only picture is left out.", "All {count:,} pictures are left out.")
        return Problem("blocking", "all left out", "", what, tr("Take some in again on the page, in Pictures."))
    do = tr("Add pictures in one of these formats: {formats}.", formats=pictures.READABLE)
    return Problem("blocking", "no pictures", "", tr("The folder contains no picture that can be trained on."), do)


def _too_many(count: int) -> list[Problem]:
    if count <= listing.MAX_PICTURES:
        return []
    what = tr("The folder contains {count:,} pictures; the limit is {most:,}.", count=count, most=listing.MAX_PICTURES)
    do = tr("Choose the best of them: a style needs tens of pictures, not thousands.")
    return [Problem("blocking", "too many", "", what, do)]


def _may_be_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() not in _NO_PICTURES and not masks.is_condition(name)


def _archives(names: Iterable[str]) -> list[Problem]:
    return grouped(
        "warning",
        "archive",
        [name for name in names if name.lower().endswith((".zip", ".7z", ".rar", ".tar", ".gz", ".cbz"))],
        "archive was not read",
        "archives were not read",
        tr("Unpack it into the folder, or upload a ZIP on the page."),
    )


def _remarks(folders: Sequence[PictureFolder], facts: dict[str, Facts], texts: dict[str, str]) -> list[Problem]:
    """Warnings about the good pictures: missing captions, notices from reading them, near-duplicates."""
    homes = {place.prefix: place for place in folders}
    bare = {name: homes[name[: name.rfind("/") + 1]] for name in facts if not texts.get(name)}
    named = [name for name, place in bare.items() if place.concept and not place.options.caption]
    silent = {
        name: place.options.regularisation
        for name, place in bare.items()
        if not place.concept and not place.options.caption
    }
    found = grouped(
        "warning",
        "no caption",
        [name for name, of_class in silent.items() if of_class],
        "class picture has no caption",
        "class pictures have no caption",
        tr("Give their folder a caption that says what they show."),
    )
    found += grouped(
        "warning",
        "no caption",
        [name for name, of_class in silent.items() if not of_class],
        "picture has no caption",
        "pictures have no caption",
        tr("Write one into a .txt of the same name beside each. Without, their caption is the trigger word alone."),
    )
    found += grouped(
        "warning",
        "folder caption",
        named,
        "picture has no caption and uses its folder's name",
        "pictures have no caption and use their folder's name",
        tr("Write a better caption into a .txt of the same name beside each."),
    )
    for kind, (one, many, do) in pictures.NOTICES.items():
        found += grouped(
            "warning", kind, [name for name, fact in facts.items() if kind in fact.notices], one, many, declared(do)
        )
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
                "identical",
                names,
                "pictures are identical files",
                "pictures are identical files",
                tr("Keep one, unless it should count more than others."),
            )
    first = [names[0] for names in copies.values()]
    for group in near_duplicates.groups([facts[name].likeness for name in first]):
        found += grouped(
            "warning",
            "alike",
            [first[index] for index in group],
            "pictures look almost the same",
            "pictures look almost the same",
            tr("Keep the best, unless they should count more than others."),
        )
    return found
