"""What is typed and not written yet: an edit of many captions, an order for automatic ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lora_studio.curation import edits
from lora_studio.curation.edits import CaptionChange
from lora_studio.jobs.model_downloads import HubOffer

ALL, FOUND, SELECTED = "all", "found", "selected"


@dataclass
class EditDraft:
    """An edit that is being typed.

    Attributes:
        kind: a key of ``EDITS``.
        values: of its fields, by name; missing ones are as by default.
        scope: which pictures: ``ALL``, ``FOUND`` by search and filter, or ``SELECTED``.
        changes: what it would change, as it was shown last.
        title: what it does, for undo.
    """

    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    scope: str = ALL
    changes: list[CaptionChange] = field(default_factory=list)
    title: str = ""

    @property
    def complete(self) -> bool:
        """Whether all fields that are needed are filled in."""
        needed = [one.name for one in edits.fields(self.kind) if one.required]
        return all(self.values.get(name) not in (None, "", ()) for name in needed)


@dataclass
class CaptioningDraft:
    """What a tab sees of automatic captions.

    Attributes:
        opened: whether the form is shown.
        model: a key of ``vision.catalogue``, a path, or a name on the hub.
        scope: which pictures, as in ``EditDraft``.
        offer: what the hub says of the model, once she asked.
        watched: the job whose result is shown when it has ended.
        at_work: whether a job was at work when the page was drawn last.
    """

    opened: bool = False
    model: str = "blip"
    scope: str = ALL
    offer: HubOffer | None = None
    watched: str = ""
    at_work: bool = False
