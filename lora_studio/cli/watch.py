"""A run's progress in the terminal: a progress bar, or plain lines if the output is not a terminal."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from lora_studio import events as e
from lora_studio.cli.options import duration
from lora_studio.errors import RunError, StudioError
from lora_studio.evaluation.value import STYLE_SCALE, Value, number
from lora_studio.jobs import control, eventlog, queue, runner
from lora_studio.jobs.control import Request
from lora_studio.jobs.view import RunView
from lora_studio.runs import Run, branching

EVERY = 10.0
"""Seconds between two plain lines on steps."""


def work(run: Run) -> RunView:
    """Starts the run's worker unless it is running or queued, and shows its progress until the run has ended.

    Ctrl+C asks the run to stop and save its adapter; a second Ctrl+C leaves without waiting for that.

    Raises:
        RunError: the run failed, left the queue, or its worker ended unexpectedly; what was saved is kept.
    """
    known, seen = _count(run), RunView()
    runner.start(run)
    with Display() as display, _ctrl_c(run, display):
        display.say(f"Run {run.name}, in {run.folder}")
        if taken := branching.taken_over(run):
            display.say(taken)
        if waits := place(run):
            display.say(waits)
        for number, event in enumerate(runner.follow(run)):
            seen.apply(event)
            if number >= known:
                display.show(event, seen)
    if seen.state == e.State.FINISHED:
        return seen
    if failed := seen.failed:
        raise RunError(failed.what, where=run.log_file if failed.ours else failed.where, do=failed.do)
    if seen.stopped_early:
        raise RunError(
            "The run was stopped before its first step, so there is no adapter.",
            where=run.folder,
            do=f"Start it again with python3 app.py resume {run.name}",
        )
    if seen.left_queue:
        raise RunError(
            "The run left the queue before its turn.",
            where=run.folder,
            do=f"Put it back with python3 app.py resume {run.name}",
        )
    raise RunError(
        "The run's process ended unexpectedly: it was killed, or the machine lost power.",
        where=run.log_file,
        do=f"Resume from the last saved state with python3 app.py resume {run.name}",
    )


def _count(run: Run) -> int:
    """How many events the run has so far. Their times do not tell old ones from new: the clock may be set meanwhile."""
    count = offset = 0
    while True:
        found, after = eventlog.read(run.events_file, offset)
        if after == offset:
            return count
        count, offset = count + len(found), after


def place(run: Run) -> str:
    """What a run that was just started waits for, as a sentence; empty if it does not wait."""
    waits = queue.waits_for(run)
    return f"It waits for {waits}, then starts." if waits else ""


@contextmanager
def _ctrl_c(run: Run, display: Display) -> Generator[None]:
    """Handles Ctrl+C: the first stops the run, the second leaves. The worker is a separate process and does not receive
    it.
    """

    def answer(*_: object) -> None:
        if control.asked(run, Request.STOP):
            display.say(f"The run {run.name} is still stopping, and saves its adapter.")
            raise KeyboardInterrupt
        control.ask(run, Request.STOP)
        display.say("Stopping and saving the adapter. Press Ctrl+C again to leave without waiting.")

    before = signal.signal(signal.SIGINT, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Display:
    """Shows events on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[text]}", markup=False),
        ]
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task, self.stage, self._said = self.bar.add_task("starting", total=None, text=""), "", 0.0

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        """Prints a line above the progress bar."""
        self.console.print(Text(line))

    def show(self, event: e.Event, seen: RunView) -> None:
        """Shows ``event``, the latest of ``seen``."""
        match event:
            case e.Preparing():
                self._prepare(event)
            case e.BaseLoaded():
                self.say(event.sentence)
            case e.Started():
                self.say(_beginning(event))
            case e.RateFound() | e.LayersSeen():
                self.say(event.sentence)
            case e.StepDone():
                self._step(event, seen)
            case e.Validated():
                self.say(f"step {event.step}: validation loss {event.loss:.4f}")
            case e.Measured():
                self.say(f"step {event.step}: {event.title} {event.value:.4g}{_interval(event)}")
            case e.Judged():
                self.say(judged_line(event))
            case e.StateKept():
                self.say(event.what)
            case e.PreviewReady(index=0, base=False):
                self.say(f"step {event.step}: previews drawn")
            case e.CheckpointSaved():
                self.say(f"step {event.step}: state saved")
            case e.RolledBack():
                self.say(event.what)
            case e.StateChanged(state=e.State.PAUSED):
                self.say("paused")
            case e.Warned():
                self.say(f"Note: {StudioError(event.what, where=event.where, do=event.do)}")

    def _prepare(self, event: e.Preparing) -> None:
        self.bar.update(
            self.task,
            description=event.stage,
            completed=event.done,
            total=event.total,
            text=f"{event.done} of {event.total}",
        )
        if event.stage != self.stage and self.bar.disable:
            self.say(f"{event.stage}…")
        self.stage = event.stage

    def _step(self, event: e.StepDone, seen: RunView) -> None:
        total = seen.started.total_steps if seen.started else event.step
        text = (
            f"step {event.step} of {total}, average loss {seen.average_loss:.4f}, "
            f"{event.images_per_second:.3g} {seen.unit}s/s, {duration(event.eta)} left"
        )
        self.bar.update(self.task, description="training", completed=event.step, total=total, text=text)
        if self.bar.disable and (time.monotonic() - self._said > EVERY or event.step == total):
            self.say(text)
            self._said = time.monotonic()


def judged_line(event: e.Judged) -> str:
    """One state's measures, as ``judge`` prints them too."""
    margin = Value(event.style, event.low, event.high).margin(STYLE_SCALE, "[{}, {}]")
    style = f"{number(event.style, '3.0f')} % {margin}"
    subjects = f"{event.subject:.2f} (training pictures {event.level:.2f}){', fading' if event.fades else ''}"
    copies = f", {event.copies} may be copies" if event.copies else ""
    copies += f", {event.memorized} of {event.asked} asked by their captions come back" if event.memorized else ""
    return f"step {event.step:>6}  style {style}  subjects {subjects}  drift {event.drift:.2f}{copies}"


def _beginning(event: e.Started) -> str:
    onwards = f" from step {event.first_step}" if event.first_step else ""
    held = f", {event.validation_images} held out for validation" if event.validation_images else ""
    held += f", with {event.class_images} class pictures" if event.class_images else ""
    parameters = f"{event.parameters / 1e6:.2g} M parameters"
    how = ", ".join(filter(None, (event.device, event.precision, event.engine, parameters)))
    of = f"{event.images} pictures{held}"
    if event.pairs:
        of = f"{event.pairs} pairs of {'pictures' if event.images else 'prompts'}, so without validation"
    return f"Training {event.total_steps} steps{onwards} on {of}. {how}."


def _interval(event: e.Measured) -> str:
    return "" if event.low is None or event.high is None else f" ({event.low:.4g} to {event.high:.4g})"
