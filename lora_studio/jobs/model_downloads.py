"""Downloads of models for the page: each in a process of its own, which can be ended and goes on where it was. Imports
no torch.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from lora_studio.errors import StudioError
from lora_studio.jobs import command
from lora_studio.jobs.command import CommandProcess


@dataclass(frozen=True)
class HubOffer:
    """What the hub says of a model: ``size`` in bytes, ``licence`` as its author names it, empty if none is named."""

    name: str
    size: int
    files: int
    licence: str


def look(name: str) -> HubOffer:
    """Asks the hub for the size and licence of a model, by its name there or its key in ``vision.catalogue``. Takes
    seconds.

    Raises:
        StudioError: the hub has no such model, cannot be reached, or the model cannot be used here.
    """
    told = command.run("download", name, "--look", online=True)
    return HubOffer(told["name"], told["bytes"], told["files"], told["licence"])


class ModelDownload:
    """A download that is under way, or has ended.

    Attributes:
        done, total: bytes; ``total`` is 0 until it is known.
        folder: of the model, once it is here.
        error: why it ended without it.
    """

    def __init__(self, name: str):
        """Starts it. Raises MachineError where no process can be started."""
        self.name, self.done, self.total, self.folder = name, 0, 0, ""
        self.error: StudioError | None = None
        self._process = CommandProcess("download", name, online=True)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def ended(self) -> bool:
        return not self._listener.is_alive()

    def cancel(self) -> None:
        """Ends it. What was fetched stays, and the next download of the same model goes on from there."""
        self._process.end()
        self._listener.join()

    def _listen(self) -> None:
        try:
            for told in self._process.objects():
                self.total = told.get("total") or told.get("bytes") or self.total
                self.done = told.get("done", self.done)
                self.folder = told.get("folder", "")
        except StudioError as error:
            self.error = error
        if self.folder:
            self.done = self.total


_started: dict[str, ModelDownload] = {}
_starting = threading.Lock()


def start(name: str) -> ModelDownload:
    """The download of ``name``: the one that is under way, or a new one. Raises as ``ModelDownload``."""
    with _starting:
        if name not in _started or _started[name].ended:
            _started[name] = ModelDownload(name)
        return _started[name]


def latest(name: str) -> ModelDownload | None:
    """The latest download of ``name`` that was started here."""
    return _started.get(name)
