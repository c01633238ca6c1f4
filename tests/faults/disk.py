"""A power cut, as far as it can be had without a plug: what a folder may look like afterwards, at every moment of a
program's run.

While a ``Disk`` watches, each call that the system is asked to change names or to sync is a moment. What was synced
stays. Of what was not, a file's bytes may be there, missing or torn, and a folder may have its new names or, in the
order of their coming, only the earlier ones: a folder's names are themselves only safe once the folder was synced
(POSIX, ``fsync``; the journals of ext4, XFS and NTFS keep that order). A name that is safe while the bytes behind it
are not gives an empty file: the fault that this exists to find.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

Names = dict[str, int]
"""A folder's entries: names to inodes."""
Tree = dict[str, bytes | None]
"""Relative paths to contents; None for a folder."""
_CALLS = ("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir", "link")
_DRAWS = 6


class Image(NamedTuple):
    """What a power cut at one moment may leave, and how many of the test's steps had been done by then."""

    done: int
    tree: Tree

    def restore(self, folder: Path) -> Path:
        """Writes it into the new folder ``folder``."""
        folder.mkdir()
        for name, content in self.tree.items():
            if content is None:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(content)
        return folder


class Disk:
    """Watches ``root`` until ``close``; ``beside`` is a folder of the same disk for its own use. What lies in ``root``
    at the start is safe.
    """

    def __init__(self, root: Path, beside: Path, seed: int = 0):
        self.root, self.beside, self.done = root, beside, 0
        self.images: list[Image] = []
        self._random = random.Random(seed)
        self._calls = {name: getattr(os, name) for name in _CALLS}
        self._names: dict[int, list[Names]] = {}
        self._bytes: dict[int, list[bytes]] = {}
        """By inode: what is safe, then all that came after it."""
        self._held: dict[int, int] = {}
        self._top = root.stat().st_ino
        beside.mkdir(exist_ok=True)
        self._look()
        for inode in [*self._names]:
            self._names[inode] = self._names[inode][-1:]
        for inode in [*self._bytes]:
            self._bytes[inode] = self._bytes[inode][-1:]
        for name, call in self._calls.items():
            setattr(os, name, self._watched(call, name))

    def _watched(self, call: Callable, name: str) -> Callable:
        def watched(*arguments, **options):
            self.cut()
            result = call(*arguments, **options)
            self._look()
            if name == "fsync":
                self._synced(os.fstat(arguments[0]).st_ino)
            self.cut()
            return result

        return watched

    def _synced(self, inode: int) -> None:
        for kept in (self._names, self._bytes):
            if inode in kept:
                kept[inode] = kept[inode][-1:]

    def step(self) -> None:
        """Says that something is finished which no power cut may undo from here on."""
        self.done += 1
        self.cut()

    def cut(self) -> None:
        """Notes what a power cut now may leave."""
        self._look()
        newest, oldest = (lambda states: states[-1]), (lambda states: states[0])

        def torn(states: list[bytes]) -> bytes:
            new = states[-1]
            return (
                new
                if len(states) == 1
                else self._random.choice(
                    [
                        new[: len(new) // 2],
                        bytes(len(new)),
                        new[: len(new) // 2] + bytes(len(new) - len(new) // 2),
                        states[0],
                    ]
                )
            )

        policies = [
            (oldest, oldest),
            (newest, oldest),
            (newest, torn),
            (newest, newest),
            *((self._random.choice, torn) for _ in range(_DRAWS)),
        ]
        for names, contents in policies:
            image = Image(self.done, dict(self._walk(self._top, "", names, contents)))
            if image not in self.images[-40:]:
                self.images.append(image)

    def _walk(
        self, folder: int, prefix: str, names: Callable, contents: Callable
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, inode in sorted(names(self._names[folder]).items()):
            if inode in self._bytes:
                yield prefix + name, contents(self._bytes[inode])
            else:
                yield prefix + name, None
                yield from self._walk(inode, f"{prefix}{name}/", names, contents)

    def _look(self, folder: Path | None = None) -> None:
        """Notes all names and contents as they are now."""
        folder = folder or self.root
        names: Names = {}
        for entry in os.scandir(folder):
            inode = names[entry.name] = entry.inode()
            self._hold(Path(entry.path), inode, entry.is_dir())
            if entry.is_dir():
                self._look(Path(entry.path))
            else:
                _note(self._bytes.setdefault(inode, [b""]), Path(entry.path).read_bytes())
        _note(self._names.setdefault(folder.stat().st_ino, [{}]), names)

    def _hold(self, path: Path, inode: int, is_folder: bool) -> None:
        """Keeps the system from giving a removed file's inode to another."""
        if inode in self._held:
            return
        if is_folder:
            self._held[inode] = os.open(path, os.O_RDONLY)
        else:
            self._held[inode] = -1
            self._calls["link"](path, self.beside / str(inode))

    def close(self) -> None:
        for name, call in self._calls.items():
            setattr(os, name, call)
        for inode, handle in self._held.items():
            if handle >= 0:
                os.close(handle)
            self._held[inode] = -1


def _note(states: list, now: object) -> None:
    if states[-1] != now:
        states.append(now)
