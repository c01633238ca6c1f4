"""Steps of an artist's work on a dataset that can be undone and done again, after a restart too.

A step is a set of changed files. It is on the disk, in ``.lora_studio/history/``, before the first of them is changed.
``position.json`` there says how many steps are done, and, while files are being changed, which step is moving: after a
crash ``settle`` puts its files back as they were before the move.

The caller holds the folder's lock.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from lora_studio import files
from lora_studio.dataset import captions, folder_tables, masks, pictures, preparation
from lora_studio.dataset.preparation import FOLDER
from lora_studio.errors import DatasetError
from lora_studio.language import Told, few, ntr, tr

MAX_STEPS = 500
MAX_BYTES = 256 * 1024**2
"""Steps on the disk, in number and size; older ones are deleted. The newest is always kept."""
Contents = Mapping[str, tuple[bytes | None, bytes | None]]
"""Files by name relative to the dataset's folder: their bytes before and after, None where there is no file."""


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class FileEdit(_Stored):
    """A changed file: ``old`` became ``new`` at ``start``. ``before`` and ``after`` are SHA-256 of the whole file, None
    where there is none.
    """

    file: str
    start: int
    old: bytes
    new: bytes
    before: str | None
    after: str | None

    @classmethod
    def between(cls, file: str, before: bytes | None, after: bytes | None) -> FileEdit:
        """The edit that makes ``after`` of ``before``."""
        old, new = before or b"", after or b""
        start = _common(old, new)
        end = _common(old[start:][::-1], new[start:][::-1])
        return cls(
            file=file,
            start=start,
            old=old[start : len(old) - end],
            new=new[start : len(new) - end],
            before=_sha256(before),
            after=_sha256(after),
        )

    def applied(self, data: bytes | None, back: bool) -> bytes | None:
        """The file's other content, from the one it has before (``back``: after) the step."""
        if (self.before if back else self.after) is None:
            return None
        put, taken = (self.old, self.new) if back else (self.new, self.old)
        known = data or b""
        return known[: self.start] + put + known[self.start + len(taken) :]


class StepHead(_Stored):
    """What is told of a step.

    Attributes:
        title: what was done, as it stands within a sentence and without its full stop.
        names: the pictures concerned.
        at: seconds since the epoch.
    """

    title: Told
    names: tuple[str, ...]
    at: float


class EditStep(NamedTuple):
    """One step: a file of its head and its edits, a line each, so that the head can be read alone."""

    head: StepHead
    edits: tuple[FileEdit, ...]

    def lines(self) -> str:
        """The file's content."""
        return "".join(f"{one.model_dump_json()}\n" for one in (self.head, *self.edits))


class _Position(_Stored):
    """``done`` steps are done; those after them were undone. ``moving`` is the step whose files are being changed."""

    done: int = 0
    moving: int | None = None


@dataclass(frozen=True)
class Settled:
    """An interrupted step that was put back. ``foreign`` files were changed by someone else and left as they are."""

    step: EditStep
    foreign: tuple[str, ...]


class History:
    """The steps of the dataset in ``root`` (resolved)."""

    def __init__(self, root: Path):
        self._root, self._folder = root, root / FOLDER / "history"

    def do(self, title: str, names: Collection[str], contents: Contents) -> EditStep:
        """Changes files as one step. What had been undone cannot be done again.

        Raises:
            DatasetError: a file is not as it was before.
            OSError: the disk refuses; the files are as they were before.
        """
        position = self._position()
        edits = tuple(FileEdit.between(file, *pair) for file, pair in contents.items())
        step = EditStep(StepHead(title=title, names=tuple(names), at=time.time()), edits)
        number = position.done + 1
        files.write(self._path(number), step.lines())
        try:
            self._move(step, position, number)
        except (DatasetError, OSError):
            files.unlink(self._path(number))
            raise
        self._prune(number)
        return step

    def undo(self) -> EditStep | None:
        """Undoes the last step that is done; None if there is none. Raises as ``do``."""
        position = self._position()
        if step := self._step(position.done):
            self._move(step, position, position.done - 1)
        return step

    def redo(self) -> EditStep | None:
        """Does the last step again that was undone; None if there is none. Raises as ``do``."""
        position = self._position()
        if step := self._step(position.done + 1):
            self._move(step, position, position.done + 1)
        return step

    def last(self) -> StepHead | None:
        """What ``undo`` would undo."""
        return self._head(self._position().done)

    def following(self) -> StepHead | None:
        """What ``redo`` would do again."""
        return self._head(self._position().done + 1)

    def interrupted(self) -> bool:
        """Whether files are being changed right now, or were when a process ended. False where that cannot be read."""
        try:
            return self._position().moving is not None
        except (DatasetError, OSError):
            return False

    def settle(self) -> Settled | None:
        """Puts an interrupted step's files back as they were, and returns it; None if nothing was interrupted.

        Raises:
            OSError: the disk refuses; a later call tries again.
        """
        position = self._position()
        if position.moving is None:
            return None
        step = self._step(position.moving)
        if step is None:
            raise _damaged(self._path(position.moving))
        back = position.moving > position.done  # it was being done
        files.sweep(self._root, lives=psutil.pid_exists)
        targets, foreign = dict[str, bytes | None](), list[str]()
        for edit in step.edits:
            data = _read(self._place(edit))
            wanted, left = (edit.before, edit.after) if back else (edit.after, edit.before)
            if (found := _sha256(data)) == left:
                targets[edit.file] = edit.applied(data, back)
            elif found != wanted:
                foreign.append(edit.file)
        self._write(targets)
        self._store(_Position(done=position.done))
        return Settled(step, tuple(foreign))

    def _move(self, step: EditStep, position: _Position, to: int) -> None:
        back = to < position.done
        targets, changed = dict[str, bytes | None](), list[str]()
        for edit in step.edits:
            data = _read(self._place(edit))
            if _sha256(data) != (edit.after if back else edit.before):
                changed.append(edit.file)
            else:
                targets[edit.file] = edit.applied(data, back)
        if changed:
            raise _changed_since(changed, back)
        self._store(_Position(done=position.done, moving=max(position.done, to)))
        try:
            self._write(targets)
        except OSError:
            self.settle()
            raise
        self._store(_Position(done=to))

    def _place(self, edit: FileEdit) -> Path:
        """Where an edit's file is. A dataset may come from anyone, and its steps may name anything, also pictures."""
        path, what = Path(os.path.realpath(self._root / edit.file)), ""
        if not path.is_relative_to(self._root):
            what = tr("A step in the dataset's history changes a file outside of it: {file}.", file=edit.file)
        elif not _is_written(edit.file) or (pictures.promises(path.name) and not masks.may_be(str(path))):
            what = tr(
                "A step in the dataset's history changes what is no caption, mask or choice: {file}.", file=edit.file
            )
        if what:
            raise DatasetError(
                what,
                where=self._folder,
                do=tr(
                    "If it is a link, put the file in its place. Else delete the folder history: another "
                    "program made it."
                ),
            )
        return path

    def _write(self, targets: Mapping[str, bytes | None]) -> None:
        places = {Path(os.path.realpath(self._root / file)): content for file, content in targets.items()}
        modes = {path: path.stat().st_mode for path in places if path.exists()}
        files.write_all({path: content for path, content in places.items() if content is not None})
        for path, content in places.items():
            if content is None:
                files.unlink(path)
            elif path in modes and path.stat().st_mode != modes[path]:
                path.chmod(stat.S_IMODE(modes[path]))

    def _position(self) -> _Position:
        path = self._folder / "position.json"
        data = _read(path)
        try:
            return _Position() if data is None else _Position.model_validate_json(data)
        except ValidationError:
            raise _damaged(path) from None

    def _store(self, position: _Position) -> None:
        files.write(self._folder / "position.json", position.model_dump_json())

    def _step(self, number: int) -> EditStep | None:
        path = self._path(number)
        data = _read(path)
        if data is None:
            return None
        try:
            head, *edits = data.splitlines()
            return EditStep(StepHead.model_validate_json(head), tuple(map(FileEdit.model_validate_json, edits)))
        except ValueError:
            raise _damaged(path) from None

    def _head(self, number: int) -> StepHead | None:
        path = self._path(number)
        try:
            with open(path, "rb") as file:
                return StepHead.model_validate_json(file.readline())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise _damaged(path) from None

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06}.jsonl"

    def _numbers(self) -> list[int]:
        return [int(path.stem) for path in self._folder.glob("*.jsonl") if path.stem.isdecimal()]

    def _prune(self, last: int) -> None:
        """Deletes what was undone before the step ``last`` was done, and the oldest steps."""
        size = 0
        for number in sorted(self._numbers(), key=lambda number: -number):
            size += self._path(number).stat().st_size
            if number > last or (number < last and (number <= last - MAX_STEPS or size > MAX_BYTES)):
                files.unlink(self._path(number))


def _is_written(name: str) -> bool:
    """Whether the studio writes files of this name, relative to the dataset."""
    if name == preparation.NAME:
        return True
    if any(part.startswith(".") for part in name.split("/")):
        return False
    return name.lower().endswith(captions.SUFFIXES) or folder_tables.is_table(name) or masks.may_be(name)


def _changed_since(names: list[str], back: bool) -> DatasetError:
    listed = few(names, 5)
    if back:
        what = ntr(
            len(names),
            "The step cannot be undone: {files} was changed by another program since. Nothing was changed.",
            "The step cannot be undone: {files} were changed by another program since. Nothing was changed.",
            files=listed,
        )
    else:
        what = ntr(
            len(names),
            "The step cannot be done: {files} was changed by another program since. Nothing was changed.",
            "The step cannot be done: {files} were changed by another program since. Nothing was changed.",
            files=listed,
        )
    return DatasetError(
        what,
        where=names[0],
        do=tr("Look at what it holds now and edit it on the page."),
        details={"files": names},
    )


def _damaged(path: Path) -> DatasetError:
    return DatasetError(
        tr("The list of steps that can be undone is damaged."),
        where=path,
        do=tr(
            "Delete the folder {name} that it is in. Captions and their originals stay as they are.",
            name=path.parent.name,
        ),
    )


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two beginnings share."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()
