"""An edit of many captions while it is typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lora_studio.curation import edits
from lora_studio.curation.edits import CaptionChange

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
