"""A folder in which a process works: a run's, or a job's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WorkFolder:
    """The files that all of them have: what happened, which process works, and what its libraries said."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def events_file(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def worker_file(self) -> Path:
        return self.folder / "worker.json"

    @property
    def log_file(self) -> Path:
        return self.folder / "worker.log"

    @property
    def start_lock(self) -> Path:
        return self.folder / "start.lock"
