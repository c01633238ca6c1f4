"""Requests to a worker: each is a file in the run's ``control/`` folder, so that any process can ask, twice if it
likes.
"""

from __future__ import annotations

import os
from enum import StrEnum

from lora_studio.runs import Run


class Request(StrEnum):
    """What a worker can be asked for."""

    STOP = "stop"
    """Save and end. Stays until the worker has ended."""
    PAUSE = "pause"
    """Wait between two steps for as long as it stands."""
    PREVIEW = "preview"
    """Draw previews now."""
    SAVE = "save"
    """Save a checkpoint now."""


def ask(run: Run, request: Request) -> None:
    """Leaves the request; asking again changes nothing."""
    run.control.mkdir(exist_ok=True)
    (run.control / request).touch()


def withdraw(run: Run, request: Request) -> None:
    """Takes the request back, for example to go on after a pause."""
    (run.control / request).unlink(missing_ok=True)


def asked(run: Run, request: Request) -> bool:
    """Whether the request stands."""
    return os.path.exists(run.control / request)


def take(run: Run, request: Request) -> bool:
    """Whether the request stands; it is then done with."""
    try:
        (run.control / request).unlink()
        return True
    except FileNotFoundError:
        return False


def clear(run: Run) -> None:
    """Drops all requests: a worker begins with none."""
    for request in Request:
        withdraw(run, request)
