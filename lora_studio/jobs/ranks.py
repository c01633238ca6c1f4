"""The other processes of a run on several GPUs: the worker that leads them starts, watches and ends them. Imports no
torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import IO, NamedTuple

from lora_studio.errors import MachineError, StudioError
from lora_studio.events import Failed, parse
from lora_studio.jobs import control, environment
from lora_studio.jobs.eventlog import EventLog
from lora_studio.language import tr
from lora_studio.runs import Run

POLL = 0.2
GRACE = 5.0
"""Seconds within which a process that waits for one that is gone notices. A GPU never does."""
PEER_ENDED = 3
"""Exit status of a process that ended because another one did."""
_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> int:
    """How many processes torchrun or accelerate started for this run, including this one; 0 where they started none."""
    return (
        int(os.environ["WORLD_SIZE"])
        if all(os.environ.get(name) for name in _LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1
        else 0
    )


def follows() -> bool:
    """Whether this process is one of those, and another one leads."""
    return launched() > 0 and int(os.environ["RANK"]) > 0


class _RankWorker(NamedTuple):
    process: subprocess.Popen
    output: IO[bytes]
    """Its last line is the reason why it failed."""


class RankWorkers:
    """Processes 2 … ``world`` of ``run``, which find the first at ``port``. They end with the ``with`` statement.

    If one ends before, its reason is the run's error. If the leader cannot notice, since it waits for a GPU, the run
    is ended here.
    """

    def __init__(self, run: Run, world: int, port: int):
        self.run, self.world, self.port = run, world, port
        self._workers: list[_RankWorker] = []
        self._over = threading.Event()
        self._reading = threading.Lock()  # two threads may want to know at once why a process failed
        self._watcher = threading.Thread(target=self._watch, name="rank-workers", daemon=True)

    def __enter__(self) -> RankWorkers:
        try:
            for rank in range(1, self.world):
                self._workers.append(self._start(rank))
        except OSError as error:
            self._end()
            raise MachineError(
                tr(
                    "Process {number} of {world} cannot be started: {reason}.",
                    number=len(self._workers) + 2,
                    world=self.world,
                    reason=error.strerror or error,
                ),
                where="gpus",
                do=tr("Close other programs, then try again."),
            ) from error
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()  # it reads what is closed now
        self._end()

    @contextmanager
    def explaining(self, lost: type[StudioError]) -> Generator[None]:
        """Within it ``lost``, which only says that a process is gone, becomes the error of that process."""
        try:
            yield
        except lost as error:
            raise self._cause() or error from error

    def pids(self) -> list[int]:
        """The process ids of all of them."""
        return [one.process.pid for one in self._workers]

    def _start(self, rank: int) -> _RankWorker:
        place = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": self.world,
            "LOCAL_WORLD_SIZE": self.world,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": self.port,
        }
        variables = environment.environment() | {name: str(value) for name, value in place.items()}
        output = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "lora_studio.jobs.rank_worker", str(self.run.folder.parent), str(os.getpid())]
        with open(self.run.log_file, "ab") as log:
            return _RankWorker(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=log, env=variables), output
            )

    def _fallen(self) -> StudioError | None:
        """The error of a process that failed on its own; None if there is none, or they ended because another did."""
        for number, (process, output) in enumerate(self._workers, 2):
            if process.poll() not in (None, 0, PEER_ENDED):
                return self._error(number, process.returncode, output)
        return None

    def _error(self, number: int, status: int, output: IO[bytes]) -> StudioError:
        with self._reading:
            output.seek(0)
            failed = _failure(output.read().rstrip().rpartition(b"\n")[2])
        if failed:
            details = {"changes": failed.changes} if failed.changes else {}
            return StudioError(failed.what, where=failed.where, do=failed.do, details=details)
        how = tr("killed by signal {signal}", signal=-status) if status < 0 else tr("status {status}", status=status)
        return MachineError(
            tr("Process {number} of {world} ended unexpectedly ({how}).", number=number, world=self.world, how=how),
            where=self.run.log_file,
            do=tr(
                "Resume the run from its last saved state. If it happens again, the computer may have "
                "too little memory for so many processes."
            ),
        )

    def _cause(self) -> StudioError | None:
        end = time.monotonic() + GRACE
        while (error := self._fallen()) is None and time.monotonic() < end:
            time.sleep(POLL)
        return error

    def _watch(self) -> None:
        while not self._over.wait(POLL):
            if error := self._fallen():
                if not self._over.wait(GRACE):
                    self._end()
                    EventLog(self.run.events_file).append(Failed.of(error))
                    with suppress(OSError):  # the next worker clears them too
                        control.clear(self.run)
                    os._exit(1)
                return

    def _end(self) -> None:
        for process, output in self._workers:
            if process.poll() is None:
                process.kill()
            process.wait()
            output.close()


def _failure(line: bytes) -> Failed | None:
    try:
        event = parse(line)
    except ValueError:
        return None
    return event if isinstance(event, Failed) else None
