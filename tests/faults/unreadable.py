"""Files and folders that cannot be read, as far as they can be had by root: whatever opens, lists or looks at them gets
the error.
"""

from __future__ import annotations

import builtins
import io
import os
from pathlib import Path

import pytest

_CALLS = ((os, "stat"), (os, "lstat"), (os, "scandir"), (os, "listdir"), (os, "open"), (io, "open"), (builtins, "open"))


def make_unreadable(monkeypatch: pytest.MonkeyPatch, path: Path, number: int) -> None:
    """From now on ``path`` and all below it gives the error ``number``. A folder itself can still be looked at, as the
    system allows with mode 000, but nothing within it.
    """
    path, is_folder = path.absolute(), path.is_dir()

    def refused(module: object, name: str):
        call = getattr(module, name)

        def watched(*arguments, **options):
            where = arguments[0] if arguments else "."
            if isinstance(where, str | os.PathLike):
                where = Path(where).absolute()
                looks = name in ("stat", "lstat") and is_folder and where == path
                if where.is_relative_to(path) and not looks:
                    raise OSError(number, os.strerror(number), str(where))
            return call(*arguments, **options)

        return watched

    for module, name in _CALLS:
        monkeypatch.setattr(module, name, refused(module, name))
