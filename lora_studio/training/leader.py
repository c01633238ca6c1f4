"""The process that runs the training loop, and through which all others take part in it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from lora_studio.config.settings import Settings
from lora_studio.events import Event
from lora_studio.runs import Run
from lora_studio.training import devices, rate_search
from lora_studio.training.distributed import Command, World
from lora_studio.training.session import Session
from lora_studio.training.train_step import StepResult, train_step


class Leader:
    """What it does to the state of a session, all processes of ``world`` do with it. A run of one process is alone."""

    def __init__(self, world: World):
        self.world = world

    def announce(self, run: Run, settings: Settings) -> None:
        """Tells the others which run this is, with device and precision as they are chosen here."""
        if self.world.size > 1:
            self.world.broadcast((run.name, devices.settled(settings)))

    def start(self, session: Session) -> None:
        """All processes begin with this one's state."""
        self.world.send_state(session.state())

    def find_rate(self, session: Session) -> Generator[Event]:
        """All find the learning rate, where that is needed.

        Raises:
            NothingLearned: the very first loss is NaN or infinite.
        """
        if not rate_search.needed(session):
            return
        self.world.command(Command.FIND_RATE)
        found = yield from rate_search.find(session)
        rate_search.keep(session, found)
        yield found

    def step(self, session: Session) -> StepResult:
        """All take one optimizer step; it is counted.

        Raises:
            Diverged: loss or gradient is NaN or infinite; the weights are as before the step.
        """
        self.world.command(Command.STEP)
        result = train_step(session)
        session.step += 1
        return result

    def restore(self, session: Session, state: dict[str, Any]) -> None:
        """All take over ``state``."""
        session.restore(state)
        self.world.send_state(session.state())

    def end(self) -> None:
        """The others end; what comes after the last step this process does alone."""
        self.world.command(Command.END)
