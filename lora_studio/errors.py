"""Everything that can go wrong, in words that an artist can act on.

    StudioError
    ├── SettingsError     a setting, preset or command-line flag
    ├── DatasetError      the folder of images and captions
    ├── ModelError        the base model
    ├── AdapterError      an adapter file or a blend of them
    ├── RunError          a run's folder, its worker, its checkpoints
    └── MachineError      memory, disk, devices, missing programs

Each error says three things: *what* happened, *where* (file or field) and what to *do*.
Any other exception that reaches a surface is a bug of the studio, and is reported as one.
"""

from __future__ import annotations

import json
import sys
from typing import Any


class StudioError(Exception):
    """A problem that the user can fix.

    Args:
        what: one sentence, what happened.
        where: the file, folder or setting concerned; may be empty.
        do: one sentence, what to do about it.
        details: more about it as data that JSON can represent, for programs and the page.
    """

    def __init__(self, what: str, *, where: object = "", do: str = "", details: dict[str, Any] | None = None):
        self.what, self.do, self.details = what, do, details or {}
        self.where = where if isinstance(where, str) else str(where)  # a message stays one
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where and self.where not in self.what else ""
        return f"{self.what}{place}" + (f" {self.do}" if self.do else "")

    def __reduce__(self):
        return _rebuild, (type(self), self.what, self.where, self.do, self.details)


def _rebuild(kind: type[StudioError], what: str, where: str, do: str, details: dict[str, Any]) -> StudioError:
    return kind(what, where=where, do=do, details=details)


class SettingsError(StudioError):
    """A setting, preset or flag has a wrong name or value."""


class DatasetError(StudioError):
    """The dataset cannot be trained on."""


class ModelError(StudioError):
    """The base model cannot be loaded, or cannot do what is asked for."""


class AdapterError(StudioError):
    """An adapter file is damaged, unsafe, or does not fit the model or the other adapters."""


class RunError(StudioError):
    """A run cannot be found, started, controlled or resumed."""


class MachineError(StudioError):
    """The machine lacks memory, disk space, a device or a program."""


def report(error: StudioError, as_json: bool = False) -> int:
    """Prints ``error`` on standard error, and for programs also on standard output as JSON; the exit status, 2."""
    print(f"{error}", file=sys.stderr, flush=True)
    if as_json:
        from lora_studio.language.handover import handed  # pydantic, which the bootstrap does without

        details = {"details": error.details} if error.details else {}
        told = {"what": error.what, "where": error.where, "do": error.do, **details}
        print(json.dumps({"error": handed(told)}), flush=True)
    return 2
