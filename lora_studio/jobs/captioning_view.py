"""What is known of a captioning job from its events. The page and the command show this and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from lora_studio import events as e
from lora_studio.events import State

LATEST = 5
"""Captions that a view shows as the latest."""


@dataclass
class CaptioningView:
    """All that is known of a job. ``done`` of ``total`` pictures are captioned; ``total`` is 0 until it is known."""

    state: State = State.QUEUED
    model: str = ""
    device: str = ""
    tags: bool = False
    """Whether it writes tags and no sentences."""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    waits_for: str = ""
    """What it waits for, in the middle of a sentence; empty if it does not wait."""
    captions: dict[str, e.Captioned] = field(default_factory=dict)
    """By the names of their pictures."""
    warnings: list[e.Warned] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    """Pictures whose captions it wrote into the dataset."""
    kept: set[str] = field(default_factory=set)
    """Pictures that it left as they were: someone wrote their captions meanwhile, or there was nothing to add."""
    error: e.Failed | None = None
    """Why it failed, or that its process vanished."""

    @property
    def latest(self) -> list[e.Captioned]:
        """The latest captions, the last one first."""
        return list(self.captions.values())[-LATEST:][::-1]

    @property
    def can_resume(self) -> bool:
        """Whether it ended before it had looked at all pictures, or before it wrote what it had."""
        return self.state in (State.FAILED, State.INTERRUPTED)


def fold(log: list[e.Event]) -> CaptioningView:
    """The view after the events of a job's log."""
    view = CaptioningView()
    began = e.CaptioningStarted(done=0, total=0, model="", device="")
    for event in log:
        match event:
            case e.StateChanged():
                view.state = event.state
                if event.state is State.QUEUED:
                    view.error, view.warnings = None, []
            case e.CaptioningStarted():
                began, view.total, view.model, view.device = event, event.total, event.model, event.device
                view.tags = event.tags
                view.state = State.RUNNING
            case e.Captioned():
                view.captions[event.name] = event
                view.seconds_left = _left(began, event, len(view.captions))
            case e.Warned():
                view.warnings.append(event)
            case e.CaptionsWritten():
                view.written.update(event.written)
                view.kept.update(event.kept)
            case e.Failed():
                view.state, view.error = State.FAILED, event
    view.done = len(view.captions)
    if view.state is not State.RUNNING:
        view.seconds_left = None
    return view


def _left(began: e.CaptioningStarted, latest: e.Captioned, done: int) -> float:
    """Seconds that the rest takes at the pace since the job began or continued."""
    since = done - began.done
    return (latest.at - began.at) / since * max(began.total - done, 0) if since > 0 else 0.0
