"""The other processes of a run on several GPUs: each does the leader's steps with its own part of the batch, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

from lora_studio.events import Event
from lora_studio.runs import Run
from lora_studio.training import devices
from lora_studio.training.distributed import Command, JoinedWorld
from lora_studio.training.loop import Diverged, in_words, train_step
from lora_studio.training.session import Session, prepare


def follow(ranks: JoinedWorld, outputs: Path) -> None:
    """Does what the leader tells until it says that it is over. The settings come from it; pictures, base model and
    cache are read here.

    Args:
        outputs: the folder of runs on this machine; only its cache is used.

    Raises:
        PeerLost: the leader or another process ended.
        StudioError: as ``loop.train``.
    """
    name, settings = ranks.share(None)
    run = Run(outputs / name)
    with in_words(run, settings):
        if settings.machine.deterministic:
            devices.make_repeatable()
        session = _last(prepare(run, settings, ranks))
        while (order := ranks.hear()) is not Command.END:
            if order is Command.STATE:
                session.restore(ranks.take(session.machine.device))
            else:
                _step(session)


def _step(session: Session) -> None:
    """A step that gives no number gives none to anybody: the leader's word about it comes next."""
    with suppress(Diverged):
        train_step(session)
        session.step += 1


def _last(work: Generator[Event, None, Session]) -> Session:
    """What ``work`` returns; the leader tells its events."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
