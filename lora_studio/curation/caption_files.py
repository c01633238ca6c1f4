"""Writes captions where they came from: the file beside a picture, or its entry in a table, in that file's own
encoding and form.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lora_studio import files
from lora_studio.curation.history import Contents
from lora_studio.curation.table_rows import CaptionTable, object_with_caption
from lora_studio.dataset import caption_tables, captions, pictures, sidecars
from lora_studio.dataset.captions import decode, encode
from lora_studio.dataset.folder_tables import is_table
from lora_studio.dataset.listing import is_non_caption
from lora_studio.errors import DatasetError
from lora_studio.language import both, few, tr


class CaptionFolder:
    """The caption files of a dataset, as far as some of its pictures need them.

    Args:
        root: the dataset's folder.
        wanted: names of pictures; files in their folders and in those above are listed.
    """

    def __init__(self, root: Path, wanted: Collection[str]):
        self.root, self._names = root, _listed(root, wanted)
        self._known = frozenset(self._names)
        tables = [name for name in self._names if is_table(name)]
        stems = {_stem(name) for name in wanted}
        near = [name for name in self._names if _stem(name) in stems]
        shown = self._names if tables else near  # tables name pictures by the ends of their paths
        self.pictures = {name for name in shown if pictures.promises(name)} | set(wanted)
        paths = {
            name: root / name for name in sorted({*near, *tables})
        }  # of a.TXT and a.txt the last counts, as in a scan
        self._alike: dict[str, list[str]] = {}
        for name in sorted(self.pictures):
            self._alike.setdefault(_stem(name), []).append(name)
        self._beside = sidecars.beside(paths, self.pictures)
        self.sources = sidecars.sources(root, paths, self.pictures, wanted, self._beside)

    def read(self, file: str) -> bytes | None:
        """A file's bytes; None if there is none.

        Raises:
            MachineError: it cannot be read.
        """
        try:
            return (self.root / file).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise files.refusal(error, tr("{file} cannot be read", file=file), self.root / file) from None

    def beside(self, name: str) -> list[str]:
        """The caption files beside a picture, in order of precedence."""
        return self._beside.get(name, [])

    def alike(self, name: str) -> list[str]:
        """The pictures that a caption file beside a picture is of: all that are called so but for their ending."""
        return self._alike[_stem(name)]

    def new_file(self, name: str, plain: bool = False) -> str:
        """The caption file to make for a picture that has none: a ``.txt``, or what most of its folder's pictures
        have; ``plain`` for a ``.txt`` in any case.

        Raises:
            DatasetError: there is one already that is not read as its caption.
        """
        usual = ".txt" if plain or self.beside(name) else self._usual(os.path.dirname(name))
        file = os.path.splitext(name)[0] + usual
        if (unread := next((one for one in self.beside(name) if one.lower().endswith(".txt")), None)) is not None:
            raise DatasetError(
                tr("{unread} is not read as a caption, so it is not written either.", unread=unread),
                where=unread,
                do=tr(
                    "Check that it is a text of at most {most} KiB and that you may read it.",
                    most=captions.MAX_BYTES // 1024,
                ),
            )
        if os.path.lexists(self.root / file) and file not in self._known:
            raise DatasetError(
                tr("What is called {file} is not read as a caption, so it is not written either.", file=file),
                where=file,
                do=tr("It is a folder, or a link that leads out of the pictures' folder. Put a file in its place."),
            )
        return file

    def _usual(self, folder: str) -> str:
        """The ending that most caption files in a folder have."""
        kinds = self._kinds.get(folder, Counter[str]())
        return max(captions.SUFFIXES, key=lambda suffix: kinds[suffix])

    @cached_property
    def _kinds(self) -> dict[str, Counter[str]]:
        """How many files with each ending a folder has that may be captions."""
        found: dict[str, Counter[str]] = {}
        for name in self._names:
            if not is_table(name) and not is_non_caption(os.path.basename(name)):
                found.setdefault(os.path.dirname(name), Counter())[os.path.splitext(name)[1].lower()] += 1
        return found

    def folders(self) -> set[str]:
        """The folders that were listed, "" for the dataset's own."""
        return {os.path.dirname(name) for name in self._names}


@dataclass
class CaptionChanges:
    """Files to change for new captions.

    Attributes:
        contents: each file's bytes before (None: there is none) and after.
        notes: what else she should know, one sentence each.
        pictures: all whose captions change, also those that share a file with one that was named.
    """

    contents: dict[str, tuple[bytes | None, bytes | None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)


def planned(place: CaptionFolder, captions_by_name: Mapping[str, str]) -> CaptionChanges:
    """The files that give pictures other captions. Pictures that have theirs already are passed over.

    Raises:
        DatasetError: pictures that share one caption file are given different captions, or a caption file is there that
            cannot be read as one.
        MachineError: a file cannot be read.
    """
    plan = CaptionChanges()
    owned: dict[str, str] = {}
    rows: dict[str, dict[str, str]] = {}
    fresh: dict[str, str] = {}
    for name, text in captions_by_name.items():
        source = place.sources.get(name)
        if text == (source.text if source else ""):
            continue
        plan.pictures.append(name)
        if not source:
            fresh[name] = text
        elif not source.entry:
            _share(plan, source.file, source.pictures, text, captions_by_name)
            owned[source.file] = text
        elif any(captions_by_name.get(other) != text for other in source.pictures):
            fresh[name] = text  # the entry is of other pictures too, and a .txt counts more than it
        else:
            rows.setdefault(source.file, {})[source.entry] = text
    for table, changes in rows.items():
        _table(place, plan, fresh, table, changes)
    for file, text in owned.items():
        _sidecar(place, plan, fresh, file, text)
    for name, text in fresh.items():
        file = place.new_file(name, plain=name in place.sources or not text)
        _share(plan, file, place.alike(name), text, captions_by_name)
        plan.contents[file] = (place.read(file), new_content(file, text))
    plan.notes += _reencoded(plan.contents)
    return plan


def _share(
    plan: CaptionChanges, file: str, pictures: Collection[str], text: str, captions_by_name: Mapping[str, str]
) -> None:
    """Adds the pictures that were not named to those that change with a caption file of several.

    Raises:
        DatasetError: they were given different captions.
    """
    if any(captions_by_name.get(name, text) != text for name in pictures):
        raise DatasetError(
            tr("{pictures} share one caption file, and were given different captions.", pictures=both(pictures)),
            where=file,
            do=tr("Give them the same caption, or rename one of the pictures."),
        )
    others = [name for name in pictures if name not in captions_by_name and name not in plan.pictures]
    if others:
        plan.pictures += others
        listed = few(others, len(others))
        plan.notes.append(tr("{pictures} changed as well: {file} is the caption of both.", pictures=listed, file=file))


def _table(
    place: CaptionFolder, plan: CaptionChanges, fresh: dict[str, str], name: str, changes: Mapping[str, str]
) -> None:
    """Plans changes of entries; those that cannot hold their caption get a ``.txt`` beside the picture."""
    data = place.read(name) or b""
    table = CaptionTable(name, data)
    read = caption_tables.read(os.path.basename(name), table.with_captions(changes)).captions
    kept = {entry: text for entry, text in changes.items() if read.get(entry) == text}
    for one, source in place.sources.items():
        if source.file == name and source.entry in changes.keys() - kept.keys():
            fresh[one] = changes[source.entry]
    if kept:
        plan.contents[name] = (data, table.with_captions(kept))


def _sidecar(place: CaptionFolder, plan: CaptionChanges, fresh: dict[str, str], file: str, text: str) -> None:
    data = place.read(file) or b""
    if not file.lower().endswith(".json"):
        plan.contents[file] = (data, text_content(data, text))
        return
    after = json_content(data, text)
    if after is None:
        fresh |= {name: text for name, source in place.sources.items() if source.file == file}
    else:
        plan.contents[file] = (data, after)


def text_content(before: bytes, text: str) -> bytes:
    """A ``.txt`` with another caption, in the encoding, with the line ends and with or without the final one of the
    file as it is; empty for an empty caption.
    """
    old = decode(before)[0]
    end = next((end for end in ("\r\n", "\n", "\r") if end in old), "\n")
    final = end if old.endswith(("\r", "\n")) else ""
    return encode(text.replace("\n", end) + final, before) if text else b""


def json_content(before: bytes, text: str) -> bytes | None:
    """The ``.json`` of one picture with another caption; None if it cannot hold it, as an empty one."""
    old = decode(before)[0]
    guessed = bool(captions.encoding(before).guessed)
    after = encode(object_with_caption(old, text, guessed or (old.isascii() and "\\u" in old)), before)
    try:
        return after if caption_tables.of_picture(after) == text else None
    except ValueError:
        return None


def new_content(file: str, text: str) -> bytes:
    """A new file beside a picture."""
    if file.endswith(".json"):
        return f"{json.dumps({'caption': text}, ensure_ascii=False)}\n".encode()
    return f"{text}\n".encode() if text else b""


def _reencoded(contents: Contents) -> list[str]:
    """What to say of files that are in UTF-8 now, since a new caption did not fit their encoding."""
    found = []
    for file, (before, after) in contents.items():
        old, new = captions.encoding(before or b""), captions.encoding(after or b"")
        if after and old.codec != new.codec and not (before or b"").isascii() and new.codec == "utf-8":
            encoding = old.guessed or old.codec.upper()
            found.append(
                tr("{file} is in UTF-8 now: its new caption does not fit {encoding}.", file=file, encoding=encoding)
            )
    return found


def _stem(name: str) -> str:
    return captions.composed(os.path.splitext(name)[0])


def _listed(root: Path, wanted: Collection[str]) -> list[str]:
    """The files in the folders of the pictures ``wanted`` and in those above."""
    inside = {"/".join(name.split("/")[:depth]) for name in wanted for depth in range(name.count("/") + 1)}
    found: list[str] = []
    for folder in sorted(inside):
        prefix = f"{folder}/" if folder else ""
        try:
            with os.scandir(root / folder) as entries:
                found += [prefix + one.name for one in entries if _is_listed(one, root)]
        except OSError as error:
            raise files.refusal(error, tr("The folder cannot be read"), root / folder) from None
    return found


def _is_listed(entry: os.DirEntry[str], root: Path) -> bool:
    if entry.name.startswith(".") or not files.is_text(entry.name) or not entry.is_file():
        return False
    return not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(root)
