"""The measures by name."""

from __future__ import annotations

from collections.abc import Iterator

from lora_studio.evaluation.measure import Measure
from lora_studio.evaluation.validation import ValidationLoss
from lora_studio.events import Event
from lora_studio.training.session import Session

MEASURES: dict[str, Measure] = {measure.name: measure for measure in (ValidationLoss(),)}
"""Name -> measure, in the order in which they are taken. Another one may be added while the studio runs."""


def measured(session: Session) -> Iterator[Event]:
    """Takes every measure that applies."""
    for measure in MEASURES.values():
        if measure.applies(session):
            yield measure.event(session.step, measure.measure(session))
