"""Following a job in the terminal until it has ended."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lora_studio.errors import RunError
from lora_studio.jobs.job import Job, JobView

_POLL, _EVERY = 0.2, 10.0
"""Seconds between two looks at the job, and between two lines where the output is no terminal."""


class Progressing(JobView, Protocol):
    """The view of a job that counts: ``done`` of ``total``, which is 0 until it is known."""

    done: int
    total: int


View = TypeVar("View", bound=Progressing)


def follow(job: Job, view: Callable[[], View], describe: Callable[[View], str], kept: str) -> View:
    """Shows a job's progress until it has ended. The first Ctrl+C stops it, the second leaves.

    Args:
        view: what is known of it now.
        describe: a line for each look at it, without its end.
        kept: what it keeps when it is stopped, as a clause.

    Raises:
        RunError: it failed, or its process ended unexpectedly.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=30)]
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task, said, line = bar.add_task("starting", total=None), 0.0, ""
    with _ctrl_c(job, kept), bar:
        while not (seen := view()).state.ended:
            if (now := describe(seen)) != line and (console.is_terminal or time.monotonic() - said > _EVERY):
                bar.update(task, description=now, completed=seen.done, total=seen.total or None)
                if not console.is_terminal:
                    print(now, file=sys.stderr, flush=True)
                said, line = time.monotonic(), now
            time.sleep(_POLL)
    if seen.error:
        raise RunError(seen.error.what, where=seen.error.where, do=seen.error.do)
    return seen


@contextmanager
def _ctrl_c(job: Job, kept: str) -> Generator[None]:
    """Handles Ctrl+C: the first stops the job, which keeps what it has; the second leaves."""

    def answer(*_: object) -> None:
        if job.stop_file.exists():
            raise KeyboardInterrupt
        job.cancel()
        print(f"Stopping; {kept}. Press Ctrl+C again to leave without waiting.", file=sys.stderr)

    before = signal.signal(signal.SIGINT, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
