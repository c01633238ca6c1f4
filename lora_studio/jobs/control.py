"""Requests to a worker: each is a file in the run's ``control/`` folder, so that any process can ask, also twice."""

from __future__ import annotations

import os
from enum import StrEnum

from lora_studio import files
from lora_studio.runs import Run


class Request(StrEnum):
    """What a worker can be asked for."""

    STOP = "stop"
    """Save and end. Stays until the worker has ended."""
    PAUSE = "pause"
    """Wait between two steps for as long as it is there."""
    PREVIEW = "preview"
    """Draw previews now."""
    SAVE = "save"
    """Save a checkpoint now."""


def ask(run: Run, request: Request) -> None:
    """Leaves the request; asking again changes nothing.

    Raises:
        OSError: the disk refuses.
    """
    run.control.mkdir(exist_ok=True)
    files.patiently((run.control / request).touch)


def withdraw(run: Run, request: Request) -> None:
    """Takes the request back, for example to resume after a pause.

    Raises:
        OSError: the disk refuses.
    """
    files.unlink(run.control / request)


def asked(run: Run, request: Request) -> bool:
    """Whether the request is there."""
    return os.path.exists(run.control / request)


def take(run: Run, request: Request) -> bool:
    """Removes the request, and returns whether it was there. One that another program has open, as can happen on
    Windows, is not taken yet: it is there the next time.
    """
    try:
        return files.unlink(run.control / request)
    except OSError:
        return False


def clear(run: Run) -> None:
    """Drops all requests: a worker starts with none. Raises as ``withdraw``."""
    for request in Request:
        withdraw(run, request)
