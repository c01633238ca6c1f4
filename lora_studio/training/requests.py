"""What a running loop can be asked for, as the loop sees it. Whoever runs the loop answers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from lora_studio.events import Event

T = TypeVar("T")


class StoppedEarly(Exception):
    """The run was asked to stop before its first step: there is nothing to save."""


def until_stopped(events: Generator[Event, None, T], stopping: Callable[[], bool]) -> Generator[Event, None, T]:
    """Passes on ``events``, and returns what they return. Once ``stopping`` says so, raises StoppedEarly instead."""
    while True:
        if stopping():
            events.close()
            raise StoppedEarly
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        yield event


class Requests:
    """Nobody asks for anything: the loop runs to its last step. A worker's subclass reads the run's folder."""

    def stop(self) -> bool:
        """Whether to save and end now."""
        return False

    def paused(self) -> bool:
        """Whether to wait before the next step."""
        return False

    def take_preview(self) -> bool:
        """Whether previews are wanted now; asking takes the request."""
        return False

    def take_save(self) -> bool:
        """Whether a checkpoint is wanted now; asking takes the request."""
        return False

    def pause(self) -> bool:
        """Shows the loop's own waiting as a pause, which the user can end. Returns whether that was possible."""
        return False

    def end_pause(self) -> None:
        """Takes back a pause that is no longer needed."""

    def take_stop(self) -> bool:
        """Whether it was asked to stop; asking takes the request."""
        return False

    @contextmanager
    def taking_turns(self) -> Generator[None]:
        """Within it the loop calls ``let_draw`` between two steps, and in a pause."""
        yield

    def let_draw(self) -> None:
        """Waits while a picture is drawn by another process."""
