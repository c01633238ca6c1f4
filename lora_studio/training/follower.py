"""The other processes of a run on several GPUs: each takes the leader's steps with its own part of the batch, and does
nothing else.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lora_studio.events import Event
from lora_studio.runs import Run
from lora_studio.training import devices, exceptions, rate_search
from lora_studio.training.distributed import Command, JoinedWorld
from lora_studio.training.prepare import prepare
from lora_studio.training.session import Session
from lora_studio.training.train_step import Diverged, train_step

T = TypeVar("T")


def follow(world: JoinedWorld, outputs: Path) -> None:
    """Follows the leader's commands until the run is over. Settings come from the leader; pictures, base model and
    cache are read on this machine.

    Args:
        outputs: the folder of runs on this machine; only its cache is used.

    Raises:
        PeerLost: the leader or another process ended.
        StudioError: as ``loop.train``.
    """
    name, settings = world.broadcast(None)
    run = Run(outputs / name)
    with exceptions.translating(exceptions.while_training(run, settings)):
        if settings.machine.deterministic:
            devices.make_repeatable()
        session = _result(prepare(run, settings, world))
        while (command := world.next_command()) is not Command.END:
            if command is Command.STATE:
                session.restore(world.receive_state(session.machine.device))
            elif command is Command.FIND_RATE:
                _result(rate_search.find(session))
            else:
                _step(session)


def _step(session: Session) -> None:
    """A step that diverges diverges in every process: the leader then sends the state to continue from."""
    with suppress(Diverged):
        train_step(session)
        session.step += 1


def _result(work: Generator[Event, None, T]) -> T:
    """What ``work`` returns. Its events are dropped: the leader reports the same ones."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
