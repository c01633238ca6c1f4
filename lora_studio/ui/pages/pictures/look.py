"""What one browser tab sees of the Pictures page, and the collections behind it, which all tabs share."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.curation.collection import Card, Collection, Query
from lora_studio.curation.target import Target
from lora_studio.dataset.examination import Progress
from lora_studio.dataset.intake import Item
from lora_studio.errors import DatasetError, StudioError
from lora_studio.language import in_sequence, tr
from lora_studio.ui import words
from lora_studio.ui.pages.pictures.drafts import CaptioningDraft, EditDraft
from lora_studio.ui.pages.train import pictures

if TYPE_CHECKING:
    from lora_studio.curation.workbench import Workbench
    from lora_studio.ui.pages.pictures.subject_search import SubjectSearch

PAGE_SIZE = 60
"""Cards on a page of the list."""
_KEPT = 4
_PATIENCE = 0.5
"""Seconds until it is said how far reading is, and between two such lines."""


@dataclass
class PicturesLook:
    """The folder, the filter, and the pictures that are chosen.

    Attributes:
        settings: what the folder is prepared for: those of the Train page's form.
        page: the page of the list, from 0.
        chosen: the name of the picture in the editor.
        selected: names of all pictures that are selected, with ``chosen`` among them if it is set.
        said: HTML of what the last edit did, or why it was refused.
        tag_search: words of the tags that are listed.
        draft: the edit of many captions that is being typed.
        tool: what is open in the editor: "crop", "mask", "model", or "" for none.
        captioning: the order for automatic captions, and the job that is watched.
        chosen_at: when that was chosen, in milliseconds of the browser's clock.
        resets: how often what the browser shows of a crop or a mask was put back to what is saved.
        folder_form: the folder whose options are to be opened; None for none.
        search: the search for subjects that is at work; None if none is.
        pending: the edit that waits for her agreement that the studio writes in the folder.
        drawn: what the list depended on when it was drawn.
        gone: why no thumbnail can be made of a picture, by its name.
        intake: whether the card that opens folders is shown; None for whenever it is needed.
        listed: whether that card lists the folders as they are now.
        places: the folders that it lists, in their order.
        uploaded: files that wait for the name of their dataset.
        typed: whether those are not uploaded, but a path that was typed.
        others: names of files that were dropped too, but cannot be of use.
        arrived: what to say once a dataset is open, by its folder.
        failed: whether the folder could not be read.
    """

    settings: Settings = field(default_factory=Settings)
    query: Query = Query()
    page: int = 0
    chosen: str = ""
    selected: set[str] = field(default_factory=set)
    chosen_at: float = 0.0
    said: str = ""
    tag_search: str = ""
    draft: EditDraft | None = None
    captioning: CaptioningDraft = field(default_factory=CaptioningDraft)
    tool: str = ""
    resets: int = 0
    folder_form: str | None = None
    search: SubjectSearch | None = None
    pending: Callable[[], dict[Any, Any]] | None = None
    drawn: tuple | None = None
    gone: dict[str, str] = field(default_factory=dict)
    intake: bool | None = None
    listed: bool = False
    places: list[str] = field(default_factory=list)
    uploaded: list[Item] = field(default_factory=list)
    typed: bool = False
    others: list[str] = field(default_factory=list)
    arrived: dict[Path, str] = field(default_factory=dict)
    failed: bool = False

    @property
    def folder(self) -> str:
        """The folder's path; empty while none is chosen."""
        return self.settings.run.data

    def leave(self) -> None:
        """Nothing of this folder is chosen any more."""
        self.query, self.page, self.chosen, self.selected = Query(), 0, "", set()
        self.said, self.tag_search, self.draft, self.tool, self.folder_form = "", "", None, "", None
        if self.search:
            self.search.stopped = True
        self.search = None
        self.pending, self.drawn, self.gone, self.listed = None, None, {}, False
        self.captioning = CaptioningDraft()


class Collections:
    """The collections of the folders that were opened last, one for each folder and kind of training."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self._known: OrderedDict[tuple[str, bool, int], tuple[Target, Collection]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, look: PicturesLook, fresh: bool = False, progress: Progress | None = None) -> Collection:
        """The collection that ``look`` shows. ``fresh`` reads the folder again, which ``progress`` follows.

        Raises:
            DatasetError: no folder is chosen, or it is gone.
            ModelError: the base model cannot be read.
        """
        target = Target.of(look.settings)
        key = look.folder, look.settings.dataset.nested, target.resolution
        with self._lock:
            known = self._known.get(key)
        if fresh or known is None or known[0] != target:
            self._still_there(look, key)
            self._settle(look)
            dataset = pictures.scan(look.folder, self.outputs, look.settings.dataset.nested, progress)
            before = known[1] if known and known[0] == target else None
            known = target, Collection.of(dataset, target, before)
        with self._lock:
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return known[1]

    def _still_there(self, look: PicturesLook, key: tuple[str, bool, int]) -> None:
        if not look.folder or os.path.isdir(look.folder):
            return
        if look.settings.run.has_pairs:
            do = tr("Open Train to train on it, or choose a folder of pictures.")
            raise DatasetError(
                tr("{name} holds pairs, and is no folder of pictures.", name=Path(look.folder).name), do=do
            )
        with self._lock:
            self._known.pop(key, None)
        raise DatasetError(
            tr("There is no folder {folder}.", folder=look.folder),
            do=tr("Open the folder of your pictures where it is now."),
        )

    def _settle(self, look: PicturesLook) -> None:
        """Puts back what an interrupted step had changed, and says so."""
        if look.folder:
            with suppress(StudioError):  # every edit tries again, and says why it cannot
                if done := self.workbench(look).settle():
                    look.said = f'<p class="told">{words.text(in_sequence((done.sentence, *done.notes)))}</p>'

    def read(self, look: PicturesLook) -> Iterator[tuple[int, int]]:
        """Reads the folder again. While that takes long, yields how many pictures of how many were read. What prevents
        it, ``of`` says when it is asked next.
        """
        at = (0, 0)

        def progress(done: int, total: int) -> None:
            nonlocal at
            at = done, total

        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(copy_context().run, self.of, look, True, progress)  # in the reader's language
            while not wait([work], _PATIENCE).done:
                yield at
            if (error := work.exception()) and not isinstance(error, StudioError | OSError):
                raise error

    def chosen(self, look: PicturesLook) -> Card | None:
        """The card of the chosen picture; None if there is none."""
        return self.of(look).cards.get(look.chosen) if look.chosen else None

    def selected(self, look: PicturesLook) -> list[Card]:
        """The cards of all selected pictures, in the list's order."""
        found = self.of(look).find(look.query)
        return [card for card in found if card.name in look.selected]

    def workbench(self, look: PicturesLook) -> Workbench:
        """The writer of the folder that ``look`` shows. To change something, ask ``Room.workbench`` instead.

        Raises:
            DatasetError: no folder is chosen.
        """
        from lora_studio.curation.workbench import Workbench

        if not look.folder:
            raise DatasetError(
                tr("No pictures are chosen."), where=tr("Pictures"), do=tr("Choose or drop a folder first.")
            )
        folder = Path(look.folder)
        return Workbench(folder, own=folder.resolve().is_relative_to(runs.pictures_folder(self.outputs).resolve()))
