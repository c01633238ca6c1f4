"""Uploaded pictures and captions, loose or in ZIPs -> a dataset's folder.

Every file gets a name that every system takes, and what belongs together stays together: a picture and its captions
share a name before and after, and all tables of captions become one ``metadata.jsonl``, which names the pictures as
they are called now. kohya's ``N_name`` folders are kept, since they carry the repeats, and folders of masks, whose
files are called like their pictures, before and after; all other folders are flattened. Crops, pictures left out and
options of folders come along (``moved_choices``).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lora_studio import files
from lora_studio.dataset import archive, caption_tables, captions, listing, masks, moved_choices, pictures, preparation
from lora_studio.dataset.problems import Problem, grouped
from lora_studio.errors import DatasetError
from lora_studio.language import english, tr

TYPES = sorted({*pictures.SUFFIXES, *captions.SUFFIXES, ".jsonl", ".csv", ".zip"})
"""Endings of the files that an upload may hold."""
_UNPACKED = ".unpacked"
_SYSTEM = frozenset(("thumbs.db", "desktop.ini"))
"""Files that Windows puts into folders."""


class Item(NamedTuple):
    """A file of an upload: where its bytes are, and its name within the upload. Loose files have no folder there, and
    each ZIP's files have one of their own.
    """

    path: Path
    name: PurePosixPath


def suggest_name(uploaded: Sequence[Path], otherwise: str) -> str:
    """A name for the dataset: the words that the names of all pictures and ZIPs begin with, so that ``ink_01.png`` and
    ``ink_02.png`` become ``ink``; ``otherwise`` if they have no word in common.
    """
    stems = [path.stem for path in uploaded if path.suffix.lower() not in (*captions.SUFFIXES, ".jsonl", ".csv")]
    if len(stems) == 1:
        return stems[0]
    words = [re.findall(r"[^\W\d_]+|\d+", stem) for stem in stems]
    common = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))]
    return "-".join(common) if any(word.isalpha() for word in common) else otherwise


def fill(folder: Path, uploaded: Sequence[Path | Item]) -> list[Problem]:
    """Copies the ``uploaded`` files into the empty ``folder``, unpacks ZIPs into it, and returns what was left out. A
    path's file is loose; an ``Item`` has its own name within the upload.

    Raises:
        DatasetError: there is no picture, a ZIP is refused (``archive.unpack``), or a table of captions is too long.
        MachineError: a ZIP cannot be unpacked.
        OSError: a file cannot be read or written.
    """
    found = list(_items(uploaded, folder / _UNPACKED))
    chosen = [item for item in found if moved_choices.is_choices(item.name)]
    items = [item for item in found if item not in chosen and _is_wanted(item.name.name)]
    if not any(pictures.promises(item.name.name) for item in items):
        first = _item(uploaded[0]).name.name if uploaded else "upload"
        do = tr("Choose PNG, JPEG or WebP files, with captions as .txt.")
        if any(_is_zip(item.name.name) for item in found):
            do = tr("It holds ZIPs. Unpack them first.")
        what = tr("The ZIP holds no pictures.") if _is_zip(first) else tr("The upload holds no pictures.")
        raise DatasetError(what, where=first, do=do)
    tables = [item for item in items if item.name.name in caption_tables.TABLES]
    others = [item for item in items if item.name.name not in caption_tables.TABLES]
    named = dict(zip(others, new_names([item.name for item in others]), strict=True))
    for item, name in named.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if item.path.is_relative_to(folder):
            os.replace(item.path, target)
        else:
            shutil.copyfile(item.path, target)
    if tables:
        files.write(folder / caption_tables.JSONL, "\n".join([*_merged(tables, named), ""]))
    problems = moved_choices.take_along(folder, chosen, _Names(named).find, _folder)
    shutil.rmtree(folder / _UNPACKED, ignore_errors=True)
    used = {*named, *tables, *chosen}
    return problems + _left_out(item.name.name for item in found if item not in used)


def _left_out(names: Iterable[str]) -> list[Problem]:
    left = [name for name in names if not listing.is_non_caption(name) and name.casefold() not in _SYSTEM]
    do = tr("If pictures are among them, export those as PNG.")
    if any(map(_is_zip, left)):
        do = tr("Unpack ZIPs within the upload first. If pictures are among them, export those as PNG.")
    return grouped(
        "left out",
        "not taken",
        left,
        "file is neither a picture nor a caption and was not taken",
        "files are neither pictures nor captions and were not taken",
        do,
    )


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _item(one: Path | Item) -> Item:
    return one if isinstance(one, Item) else Item(one, PurePosixPath(one.name))


def _items(uploaded: Sequence[Path | Item], unpacked: Path) -> Iterator[Item]:
    for number, (path, name) in enumerate(map(_item, uploaded)):
        root = unpacked / str(number)
        if moved_choices.is_choices(name):  # which are read within a folder of their name
            copied = root / preparation.NAME
            copied.parent.mkdir(parents=True)
            shutil.copyfile(path, copied)
            yield Item(copied, name)
        elif not _is_zip(name.name):
            yield Item(path, name)
        else:
            archive.unpack(path, root)
            for found in sorted(root.rglob("*")):
                if found.is_file():
                    yield Item(found, PurePosixPath(str(number), *found.relative_to(root).parts))


def _is_wanted(name: str) -> bool:
    """Whether a file is a picture or may hold captions, in whatever format: the scan names those that are not read."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix != ".zip" and (suffix in TYPES or suffix in captions.UNREAD or pictures.promises(name))


def new_names(names: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """The name in the dataset's folder of each file of an upload; no two are the same, in whatever case.

    Files of one folder that share a stem (``a.png``, ``a.txt``, ``a.png.txt``) share one afterwards, and no others do.
    So do the masks of a picture, beside it or in a folder of masks there.
    Where an upload holds several files of one name, the first picture belongs to the first caption, and so on. Names
    that differ in case or in how accents are composed are one name, unless each has a picture.
    """
    shown = {(name.parent, _plain(name.name)) for name in names if pictures.promises(name.name)}
    of_pictures = masks.find(str(name) for name in names if pictures.promises(name.name))
    owners = {mask: picture for picture, several in of_pictures.items() for mask in several}
    spelled: dict[tuple[PurePosixPath, str], list[str]] = {}
    for name in names:
        if pictures.promises(name.name) and str(name) not in owners:
            spelled.setdefault((name.parent, _plain(name.stem)), []).append(name.stem)
    groups: dict[tuple[PurePosixPath, str, int], _Group] = {}
    seen: Counter[tuple[PurePosixPath, str, str]] = Counter()
    places: list[tuple[_Group, str, str]] = []
    for name in names:
        owner, home, inner = owners.get(str(name), ""), name.parent, ""
        if owner and home.name.casefold() in masks.FOLDERS:
            home, inner = home.parent, f"{home.name.lower()}/"
        stem, ending = _parted(name, os.path.basename(owner), shown)
        known = spelled.get((home, _plain(stem)), [_plain(stem)])
        shared = stem if stem in known else known[0]
        number = seen[home, shared, _plain(inner + ending)]
        seen[home, shared, _plain(inner + ending)] += 1
        group = groups.setdefault((home, shared, number), _Group(_folder(home), files.safe_name(stem), []))
        group.endings.append((inner, ending))
        places.append((group, inner, ending))
    taken: set[tuple[str, str]] = set()
    stems = {id(group): _unused(group, taken) for group in groups.values()}
    return [PurePosixPath(group.folder, inner, stems[id(group)] + ending) for group, inner, ending in places]


class _Group(NamedTuple):
    """Files that share a stem: the folder that they come to, the stem that they would have, and what precedes it (a
    folder of masks) and follows it in each.
    """

    folder: str
    stem: str
    endings: list[tuple[str, str]]

    def names(self, stem: str) -> list[str]:
        """The files' names within the folder under another stem."""
        return [f"{inner}{stem}{ending}" for inner, ending in self.endings]


def _plain(name: str) -> str:
    """A name in the one spelling by which file systems may compare it: accents composed, small letters."""
    return unicodedata.normalize("NFC", name).casefold()


def _parted(name: PurePosixPath, owner: str, shown: Collection[tuple[PurePosixPath, str]]) -> tuple[str, str]:
    """The part of a file's name that picture and captions share, and the rest: ``a`` and ``.png.txt`` where a picture
    ``a.png`` is among those ``shown``, ``-masklabel.png`` of a mask of ``owner`` ``a``; empty for other files.
    """
    if owner:
        return owner, masks.key(name.name).removeprefix(owner) + os.path.splitext(name.name)[1]
    stem, suffix = os.path.splitext(name.name)
    if suffix.lower() in captions.SUFFIXES and (name.parent, _plain(stem)) in shown:
        stem, inner = os.path.splitext(stem)
        return stem, inner + suffix
    return stem, suffix


def _folder(folder: PurePosixPath) -> str:
    """The folder that a path's last one becomes: one of conditions, else the innermost ``N_name`` folder under a safe
    name, else empty. Its spaces stay: the name is the caption of pictures without one.
    """
    if folder.name.casefold() in masks.CONDITIONS:
        return folder.name.lower()
    wanted = next((part for part in reversed(folder.parts) if listing.is_concept(part)), "")
    safe = files.safe_name(wanted, spaces=True) if wanted else ""
    return safe if not wanted or listing.is_concept(safe) else f"{wanted.partition('_')[0]}_style"


def _unused(group: _Group, taken: set[tuple[str, str]]) -> str:
    """The group's stem, or with a number where it or the name of a file is ``taken`` in its folder, or would make a
    mask of another's picture or a picture of its mask. They then are taken.
    """
    folder, number, found = _plain(group.folder), 1, group.stem
    while _clashes(folder, found, group, taken):
        number += 1
        found = f"{group.stem}-{number}"
    taken.update((folder, _plain(name)) for name in (found, *group.names(found)))
    return found


def _clashes(folder: str, stem: str, group: _Group, taken: Collection[tuple[str, str]]) -> bool:
    related = [stem + ending for ending in masks.LOOSE] + [stem.removesuffix(ending) for ending in masks.LOOSE]
    return any((folder, _plain(name)) in taken for name in (stem, *related, *group.names(stem)))


def _merged(tables: Sequence[Item], named: dict[Item, PurePosixPath]) -> Iterator[str]:
    """The lines of all tables of an upload as ``metadata.jsonl`` has them, with the pictures' new names, relative to
    the dataset's folder. Of two tables that name one picture, the one in the deeper folder counts, then the first of
    ``TABLES``, as in a scan; others that differ, lines that name none, and what is wrong with a table stay, so that the
    scan reports them.
    """
    known = _Names(named)
    done: dict[PurePosixPath, object] = {}
    for table in sorted(tables, key=lambda item: (-len(item.name.parts), caption_tables.TABLES.index(item.name.name))):
        own: dict[PurePosixPath, object] = {}
        for line in _lines(table.path, table.name.name):
            key, entry = _entry(line)
            target = known.find(table.name.parent, entry[key]) if key else None
            if target is None:
                yield line
            elif target not in done or done[target] != entry.get("text"):
                own[target] = entry.get("text")
                yield json.dumps(entry | {key: str(target)}, ensure_ascii=False)
        done = own | done


def _lines(path: Path, name: str) -> Iterator[str]:
    """The lines of a table, as ``metadata.jsonl`` has them."""
    if path.stat().st_size > caption_tables.MAX_BYTES:
        raise DatasetError(
            tr("{name} is longer than {most} MB.", name=name, most=caption_tables.MAX_BYTES // 1024**2),
            where=path.name,
            do=tr("Write the captions as .txt files, or split the dataset."),
        )
    data = path.read_bytes()
    if name == caption_tables.JSONL:
        yield from (line for line in captions.decode(data)[0].split("\n") if line.strip())
        return
    table = caption_tables.read(name, data)
    for key, text in table.captions.items():
        yield json.dumps({caption_tables.NAMES[0]: key, "text": text}, ensure_ascii=False)
    for fault in table.faults:
        yield f"{name}: {english(fault)}"


def _entry(line: str) -> tuple[str, dict]:
    """The JSON object of one line, and the key of its file's name; empty if it names none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return "", {}
    if not isinstance(entry, dict):
        return "", {}
    key = next((key for key in caption_tables.NAMES if key in entry), "")
    return (key, entry) if key and isinstance(entry[key], str) else ("", {})


class _Names:
    """Finds the new name of a picture that a table or an artist's choice names."""

    def __init__(self, named: dict[Item, PurePosixPath]):
        self._exact: dict[str, PurePosixPath] = {}
        self._alike: dict[str, set[PurePosixPath]] = {}
        for item, target in named.items():
            if pictures.promises(item.name.name):
                for name in (str(item.name), str(item.name.with_suffix(""))):  # some tables leave out the ending
                    self._exact.setdefault(_plain(name), target)
                    self._alike.setdefault(_letters(name), set()).add(target)

    def find(self, folder: PurePosixPath, name: str) -> PurePosixPath | None:
        """The picture that a table in ``folder`` calls ``name``. Of a whole path the longest end that names one counts.
        A browser's upload loses some signs of a name (``a#1.png`` comes as ``a1.png``), so its letters and digits are
        enough if only one picture has them.
        """
        parts = name.removeprefix("/").split("/")
        ends = ["/".join(parts[start:]) for start in range(len(parts) if name.startswith("/") else 1)]
        return next((found for end in ends if (found := self._called(folder, end))), None)

    def _called(self, folder: PurePosixPath, name: str) -> PurePosixPath | None:
        try:
            wanted = str(folder / captions.relative_name(name))
        except ValueError:
            return None
        alike = self._alike.get(_letters(wanted), set())
        return self._exact.get(_plain(wanted)) or (next(iter(alike)) if len(alike) == 1 else None)


def _letters(name: str) -> str:
    return "".join(sign for sign in _plain(name) if sign.isalnum() or sign == "/")
