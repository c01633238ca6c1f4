"""What one browser tab sees of the Pictures page, and the collections behind it, which all tabs share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from lora_studio.config.settings import Settings
from lora_studio.curation.collection import Card, Collection, Query
from lora_studio.curation.target import Target
from lora_studio.ui.pages.train import pictures

PAGE_SIZE = 60
"""Cards on a page of the list."""
_KEPT = 4


@dataclass
class PicturesLook:
    """The folder, the filter, and the picture that is chosen.

    Attributes:
        settings: what the folder is prepared for: those of the Train page's form.
        page: the page of the list, from 0.
        chosen: the name of the picture in the editor.
    """

    settings: Settings = field(default_factory=Settings)
    query: Query = Query()
    page: int = 0
    chosen: str = ""

    @property
    def folder(self) -> str:
        """The folder's path; empty while none is chosen."""
        return self.settings.run.data


class Collections:
    """The collections of the folders that were opened last, one for each folder and kind of training."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self._known: OrderedDict[tuple[str, bool, int], tuple[Target, Collection]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, look: PicturesLook, fresh: bool = False) -> Collection:
        """The collection that ``look`` shows. ``fresh`` reads the folder again.

        Raises:
            DatasetError: no folder is chosen.
            ModelError: the base model cannot be read.
        """
        target = Target.of(look.settings)
        key = look.folder, look.settings.dataset.nested, target.resolution
        with self._lock:
            known = self._known.get(key)
            if fresh or known is None or known[0] != target:
                dataset = pictures.scan(look.folder, self.outputs, look.settings.dataset.nested)
                known = self._known[key] = target, Collection.of(dataset, target)
            self._known.move_to_end(key)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return known[1]

    def chosen(self, look: PicturesLook) -> Card | None:
        """The card of the chosen picture; None if there is none."""
        return self.of(look).cards.get(look.chosen) if look.chosen else None
