"""What other processes ask a run's worker for: the files in the run's ``control/`` folder, and who wants to draw."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

from lora_studio.jobs import control
from lora_studio.jobs.control import Request
from lora_studio.jobs.turns import RunTurns
from lora_studio.runs import Run
from lora_studio.training.requests import Requests


class ControlFiles(Requests):
    """The requests to the worker of ``run``. The system's request to end, ``terminated``, is one to stop."""

    def __init__(self, run: Run, terminated: threading.Event):
        self._run, self._terminated, self._turns = run, terminated, RunTurns(run)

    def stop(self) -> bool:
        return self._terminated.is_set() or control.asked(self._run, Request.STOP)

    def paused(self) -> bool:
        return control.asked(self._run, Request.PAUSE)

    def take_preview(self) -> bool:
        return control.take(self._run, Request.PREVIEW)

    def take_save(self) -> bool:
        return control.take(self._run, Request.SAVE)

    def pause(self) -> bool:
        try:
            control.ask(self._run, Request.PAUSE)
            return True
        except OSError:  # the disk may be too full for even that
            return False

    def end_pause(self) -> None:
        with suppress(OSError):  # the user ends it then
            control.withdraw(self._run, Request.PAUSE)

    def take_stop(self) -> bool:
        asked = self._terminated.is_set()
        self._terminated.clear()
        return control.take(self._run, Request.STOP) or asked

    @contextmanager
    def taking_turns(self) -> Generator[None]:
        with self._turns.offered():
            yield

    def let_draw(self) -> None:
        self._turns.wait(self.stop)
