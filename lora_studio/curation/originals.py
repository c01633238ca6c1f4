"""The first version of each file that the studio changed, in ``.lora_studio/originals/`` under the same name. Where
there was no file, an empty one whose name ends in ``.absent`` says so.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from lora_studio import files
from lora_studio.curation.caption_files import CaptionChanges, CaptionFolder
from lora_studio.curation.history import Contents
from lora_studio.curation.table_rows import CaptionTable
from lora_studio.dataset import caption_tables, captions, folder_tables
from lora_studio.dataset.preparation import FOLDER
from lora_studio.language import tr

ORIGINALS = f"{FOLDER}/originals"
_ABSENT = ".absent"


def keep(root: Path, contents: Contents) -> None:
    """Keeps files as they are before their first change.

    Raises:
        OSError: the disk refuses.
    """
    new: dict[Path, bytes] = {}
    for file, (before, _) in contents.items():
        path = root / ORIGINALS / file
        if not path.exists() and not _absent(path).exists():
            new[_absent(path) if before is None else path] = before or b""
    files.write_all(new)


def changed(root: Path, name: str) -> bool:
    """Whether a first version is kept of what may hold the picture's caption; if not, nothing can be restored."""
    beside = [os.path.splitext(name)[0] + suffix for suffix in captions.SUFFIXES]
    tables = [str(folder / table) for folder in PurePosixPath(name).parents for table in caption_tables.TABLES]
    paths = [root / ORIGINALS / file for file in (*beside, *tables)]
    return any(path.exists() or _absent(path).exists() for path in paths)


def restored(place: CaptionFolder, names: Collection[str]) -> CaptionChanges:
    """The files that give pictures their original captions again: their own caption files, and their entries in tables.

    Raises:
        MachineError: a file cannot be read.
    """
    plan, touched = CaptionChanges(), dict[str, None]()
    for name in names:
        for file in {os.path.splitext(name)[0] + suffix for suffix in captions.SUFFIXES} | set(place.beside(name)):
            known, after = _kept(place.root, file)
            if known and (before := place.read(file)) != after:
                plan.contents[file] = (before, after)
                touched[name] = None
    for table in _kept_tables(place):
        before, original = place.read(table), _kept(place.root, table)[1]
        if before is None or original is None:
            plan.notes.append(tr("{table} is gone, so its captions were not put back.", table=table))
            continue
        after, changed = _entries(place, table, before, original, names)
        if changed:
            plan.contents[table] = (before, after)
            touched |= dict.fromkeys(changed)
    plan.pictures = list(touched)
    return plan


def _kept_tables(place: CaptionFolder) -> list[str]:
    wanted = [f"{folder}/{name}".lstrip("/") for folder in sorted(place.folders()) for name in caption_tables.TABLES]
    return [name for name in wanted if (place.root / ORIGINALS / name).is_file()]


def _entries(
    place: CaptionFolder, name: str, before: bytes, original: bytes, wanted: Collection[str]
) -> tuple[bytes, list[str]]:
    """A table with the original entries of the pictures ``wanted``, and those whose entry that changes. Of an entry in
    which someone changed other things since, only the caption is put back.
    """
    paths = {name: place.root / ORIGINALS / name}
    (found,), _ = folder_tables.find(place.root, paths, {captions.composed(one): one for one in place.pictures})
    new, old = CaptionTable(name, before), CaptionTable(name, original)
    changes: dict[str, str] = {}
    changed = []
    for picture in wanted:
        entry = found.entries.get(picture)
        if entry not in new.entries or entry not in old.entries or new.raw(entry) == old.raw(entry):
            continue
        same = new.others(entry) == old.others(entry)
        changes[entry] = old.raw(entry) if same else new.entry_with_caption(entry, found.captions[picture])
        changed.append(picture)
    after = new.with_raw(changes)
    return (original if captions.decode(after)[0] == captions.decode(original)[0] else after), changed


def _kept(root: Path, file: str) -> tuple[bool, bytes | None]:
    """Whether a file's first version is known, and what it held; None if there was no file."""
    path = root / ORIGINALS / file
    if path.is_file():
        return True, path.read_bytes()
    return _absent(path).is_file(), None


def _absent(path: Path) -> Path:
    return path.with_name(path.name + _ABSENT)
