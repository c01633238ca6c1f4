"""A search for subjects in pictures: what is asked for, how far it is, and the masks that it has made."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lora_studio.curation import masks
from lora_studio.curation.collection import Card
from lora_studio.curation.masks import Finish
from lora_studio.curation.workbench import Workbench
from lora_studio.dataset.items import Dataset
from lora_studio.language import tr
from lora_studio.ui.outcome import busy

_NUMBERS = itertools.count(1)


@dataclass
class SubjectSearch:
    """A search in the pictures of ``cards``. ``kept`` is what of a picture is learned."""

    bench: Workbench
    model: Path
    kept: Literal["subject", "background"]
    cards: list[Card]
    number: int = field(default_factory=lambda: next(_NUMBERS))
    done: int = 0
    begun: bool = False
    stopped: bool = False
    made: dict[str, bytes] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """How far it is, as HTML."""
        what = (
            tr("Stopping…")
            if self.stopped
            else tr("Looking for the subject: {done:,} of {total:,}", done=self.done, total=len(self.cards))
        )
        return f'<div data-wanted="{self.number}">{busy(what)}</div>'

    def pictures(self) -> Iterator[None]:
        """Makes the masks, a picture at each step.

        Raises:
            DatasetError: a picture or its mask can no longer be read.
            ModelError: the model cannot be used.
        """
        from lora_studio.vision.segmenters import U2Net  # onnxruntime, which is needed here alone

        source = masks.segmented(U2Net(self.model), self.kept)
        for card in self.cards:
            if self.stopped:
                return
            self.made |= masks.make(Dataset(self.bench.folder, [card.picture], []), source, Finish())
            self.done += 1
            yield
