"""A run and whoever draws beside it take turns, so that neither computes while the other does. Imports no torch.

Who wants to draw takes ``.drawing.lock``. The run looks at that between two steps. It then waits, and says so in its
``turns.lock``, which it holds as long as it trains; only then is drawn. The system releases both locks when their
holders die: neither waits for one that is gone. Between two drawings the run takes a step at least.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from lora_studio import files, locks, runs
from lora_studio.errors import RunError
from lora_studio.jobs import job, runner
from lora_studio.language import tr
from lora_studio.locks import Lock
from lora_studio.runs import Run

POLL = 0.02
"""Seconds between two looks whether it is one's turn."""
LONGEST = 900.0
"""Seconds after which a run no longer waits for a drawing: the process that draws may be suspended."""
GRACE = 2.0
"""Seconds within which a lock is free that somebody only looks at, and within which a run that lives goes on."""
_WAITS = "waits"


class RunTurns:
    """The run's side."""

    def __init__(self, run: Run):
        self._lock, self._wanted = Lock(run.turns_lock), runs.drawing_lock(run.folder.parent)
        self._gave_up = False

    @contextmanager
    def offered(self) -> Generator[None]:
        """Within it others may draw, whenever ``wait`` is called."""
        with suppress(OSError):  # nobody draws then
            _until(self._lock.acquire, patience=GRACE)  # whoever looks whether it is taken holds it for a moment
            self._lock.note("")  # a worker that was killed in its wait left another
        try:
            yield
        finally:
            self._lock.release()

    def wait(self, stopping: Callable[[], bool]) -> None:
        """Waits while somebody draws, or until ``stopping``. Takes some microseconds if nobody does."""
        if not locks.taken(self._wanted):
            self._gave_up = False
        elif not self._gave_up and self._told(_WAITS):
            end = time.monotonic() + LONGEST
            while locks.taken(self._wanted) and not self._gave_up and not stopping():
                time.sleep(POLL)
                self._gave_up = time.monotonic() > end
            self._told("")

    def _told(self, what: str) -> bool:
        """Writes it into the run's lock; False if that cannot be."""
        try:
            self._lock.note(what)
            return True
        except OSError:
            return False


def waiting(run: Run) -> bool:
    """Whether the run waits for a drawing."""
    try:
        return run.turns_lock.read_text() == _WAITS and locks.taken(run.turns_lock)
    except (OSError, ValueError):
        return False


def require(outputs: Path) -> Run | None:
    """The run that whoever draws now takes turns with; None if nothing is at work.

    Raises:
        RunError: what is at work needs the device for itself.
    """
    run = runner.active(outputs)
    for other in job.at_work(outputs):
        if run is None or not other.waits:
            raise RunError(
                tr("No images are drawn while {activity}.", activity=other.activity),
                do=tr(
                    "That needs the whole machine: wait for its end, or cancel it. Earlier images can still be seen."
                ),
            )
    if run and not locks.taken(run.turns_lock):
        raise RunError(
            tr("No images are drawn while the run {name} begins or ends.", name=run.name),
            do=tr("Wait until it trains; then they are drawn between its steps. Earlier images can still be seen."),
        )
    return run


def told(outputs: Path, doing: str) -> str:
    """What whoever draws is ``doing``, for people, and with which run it takes turns.

    >>> told(Path("nowhere"), "Drawing")
    'Drawing…'
    """
    run = runner.active(outputs)
    if run is None:
        return tr("{doing}…", doing=doing)
    return tr("{doing}… It takes turns with the run {name}.", doing=doing, name=run.name)


def company(outputs: Path) -> str:
    """What is at work, to tell it from what is at work later; empty if nothing is."""
    if run := runner.active(outputs):
        return f"{run.name} {runner.place(run)}"
    return next((f"{other.folder} {other.place}" for other in job.at_work(outputs)), "")


@contextmanager
def taken(
    outputs: Path, cancelled: Callable[[], bool], waits: Callable[[], None] = lambda: None
) -> Generator[Run | None]:
    """Waits for the turn of this process, or until ``cancelled``. Within it the run that is yielded waits; None where
    none is at work.

    Args:
        waits: called once if the turn has not come at once.

    Raises:
        MachineError: the outputs folder cannot be written.
    """
    run, lock = runner.active(outputs), Lock(runs.drawing_lock(outputs))
    try:
        if run:
            _until(lambda: cancelled() or _acquired(lock), waits)
            _until(lambda: cancelled() or waiting(run) or not runner.works(run), waits)
        yield run if run and (cancelled() or waiting(run)) else None
    finally:
        lock.release()
        if run:
            # it takes its step before this process asks again; a suspended one takes none
            _until(lambda: not waiting(run), patience=GRACE)


def _acquired(lock: Lock) -> bool:
    try:
        return lock.acquire()
    except OSError as error:
        raise files.refusal(error, tr("Nothing can be drawn while a run trains"), lock.path) from error


def _until(true: Callable[[], bool], waits: Callable[[], None] = lambda: None, patience: float = math.inf) -> None:
    end = time.monotonic() + patience
    if true():
        return
    waits()
    while not true() and time.monotonic() < end:
        time.sleep(POLL)
