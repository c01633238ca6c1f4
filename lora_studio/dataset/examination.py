"""Reads pictures completely, several at once, and remembers their facts for the next scan.

What is remembered of a file counts as long as its stamp is the same: size, time of change, and what the system notes
by itself when a file is replaced. Training asks for more: that its bytes have the same hash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from lora_studio import files
from lora_studio.dataset import masks, pictures
from lora_studio.dataset.pictures import Facts
from lora_studio.dataset.problems import Problem
from lora_studio.errors import DatasetError
from lora_studio.language import tr

Progress = Callable[[int, int], None]
"""Called with (pictures read, pictures in total)."""


class Stamp(NamedTuple):
    """What tells that a file was changed. A copy may take over size and time of change; the inode's own time of change
    and its number it cannot (on Windows they are the time of creation and 0).
    """

    size: int
    changed: int
    inode_changed: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp of a file with this status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


_Memory = dict[str, tuple[Stamp, Facts]]
_MEMORY = TypeAdapter(_Memory)


class Examined(NamedTuple):
    """The facts of all good pictures by name, in the order asked; the names of the bad ones; and the problems."""

    facts: dict[str, Facts]
    bad: set[str]
    problems: list[Problem]


def examine(
    root: Path,
    paths: Mapping[str, Path],
    stamps: Mapping[str, Stamp],
    cache: Path | None = None,
    by_content: bool = False,
    progress: Progress | None = None,
) -> Examined:
    """Reads the pictures at ``paths``, by name, or remembers them.

    Args:
        root: the dataset's folder, which the memory belongs to.
        cache: the folder of memories.
        by_content: trust a memory only if the file's bytes have its hash.
    """
    memory = cache / f"scan-5-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json" if cache else None
    known, bad, problems = _recall(memory), set[str](), list[Problem]()
    facts = {name: known[name][1] for name in paths if name in known and known[name][0] == stamps[name]}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        if by_content:
            same = pool.map(lambda name: _has_content(paths[name], facts[name]), facts)
            facts = {name: fact for (name, fact), equal in zip(facts.items(), same, strict=True) if equal}
        unread = [name for name in paths if name not in facts]
        for name, outcome in zip(unread, pool.map(_outcome, unread, (paths[name] for name in unread)), strict=True):
            if isinstance(outcome, Facts):
                facts[name] = outcome
            elif not isinstance(outcome, pictures.NotAPicture) or pictures.promises(name):
                problems.append(Problem("left out", "unreadable", name, outcome.what, outcome.do))
                bad.add(name)
            if progress:
                progress(len(facts) + len(bad), len(paths))
    learned = {name: (stamps[name], facts[name]) for name in paths if name in facts}
    if memory and learned != known:
        problems += _remember(memory, learned)
    return Examined({name: fact for name, (_, fact) in learned.items()}, bad, problems)


def _outcome(name: str, path: Path) -> Facts | DatasetError:
    try:
        facts = pictures.examine(path)
        return replace(facts, black=masks.black(path)) if masks.may_be(name) else facts
    except DatasetError as error:
        return error


def _has_content(path: Path, facts: Facts) -> bool:
    try:
        return files.sha256(path) == facts.sha256
    except OSError:  # reading it again says why
        return False


def _recall(memory: Path | None) -> _Memory:
    try:
        return _MEMORY.validate_json(memory.read_bytes()) if memory else {}
    except (OSError, ValidationError):  # missing or damaged: the pictures are read again
        return {}


def _remember(memory: Path, known: _Memory) -> list[Problem]:
    try:
        files.write(memory, _MEMORY.dump_json(known))
    except OSError as error:
        what = tr(
            "The result of the scan could not be saved in {folder}: {reason}.",
            folder=memory.parent,
            reason=files.reason(error),
        )
        return [
            Problem(
                "warning",
                "scan",
                "",
                what,
                tr("{advice} Until then every scan takes as long as the first.", advice=files.advice(error)),
            )
        ]
    return []
