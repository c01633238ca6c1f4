"""What a measure must say. Page, command line and log show any measure without knowing it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from lora_studio.evaluation.value import Value
from lora_studio.events import Event, Measured
from lora_studio.training.session import Session


class Measure(ABC):
    """Something measured of the adapter as it would be exported at this step."""

    name: ClassVar[str]
    """In the log."""
    title: ClassVar[str]
    """For people."""

    def applies(self, session: Session) -> bool:
        """Whether it can be measured in this run."""
        return True

    @abstractmethod
    def measure(self, session: Session) -> Value:
        """The value at the present step. The session is left as it was, its random numbers included."""

    def event(self, step: int, found: Value) -> Event:
        """How the log has it."""
        return Measured(step=step, name=self.name, title=self.title, value=found.value, low=found.low, high=found.high)
