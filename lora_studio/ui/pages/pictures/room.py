"""What the panels of the Pictures page share: the look of the tab, the collections behind it, and how edits are made.

A panel is a class that takes the ``Room``. It places its components where it is constructed, and binds them in
``wire``::

    class Words:
        def __init__(self, room: Room):
            self.room = room
            self.list = html(js_on_load=...)
            self.remove = gr.Button("Remove")
            room.shows(self.draw, [self.list])

        def wire(self) -> None:
            self.room.edits(self.remove.click, self.take_away, inputs=[self.tag])

        def draw(self, look: PicturesLook, collection: Collection) -> Updates:
            return {self.list: ...}

        def take_away(self, look: PicturesLook, tag: str) -> None:
            changes = ...
            done = self.room.workbench(look).edit_captions(changes)
            self.room.changed(look, done, captions=changes)

The first edit of a folder asks whether the studio may write there, and that of a sample whether to work on a copy:
``Room.workbench`` then raises, the page asks, and repeats the whole edit once she agreed. So nothing may be changed
before ``Room.workbench`` is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.blocks import Block

from lora_studio import starter
from lora_studio.curation.collection import Collection
from lora_studio.dataset import preparation
from lora_studio.errors import DatasetError, StudioError
from lora_studio.language import in_sequence, ntr, tr
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates, wrong
from lora_studio.ui.pages.pictures import uploads
from lora_studio.ui.pages.pictures.look import Collections, PicturesLook
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

if TYPE_CHECKING:
    from lora_studio.curation.workbench import Done, Workbench

Draw = Callable[[PicturesLook, Collection], Updates]
Act = Callable[..., Updates | None]
"""An edit: gets the look and the values of its inputs, and returns what else changes beside what is drawn anew."""

_HIDDEN, _SHOWN = gr.update(visible=False), gr.update(visible=True)
_EMPTY = gr.update(value="", visible=False)


class _NotAsked(Exception):
    """She was not asked yet whether the studio may write in this folder."""


class Room:
    """The page's state, and the message at its bottom: what an edit did, with undo and redo, or the question.

    Attributes:
        look: the state of the tab, a ``PicturesLook``.
        drawn: the components that an edit may change, ``look`` among them.
        framed: those of them that are shown also where the folder cannot be read.
    """

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.collections = Collections(outputs)
        self.look = gr.State(PicturesLook())
        self.drawn: list[Block] = [self.look]
        self.framed: list[Block] = []
        self._draws: list[Draw] = []
        self._frames: list[Callable[[PicturesLook], Updates]] = []
        self._drawing = threading.Lock()
        self._more: list[Block] = []
        self._followers: Sequence[gr.Textbox] = ()

    def encloses(self, body: Block, failure: gr.HTML) -> None:
        """``body`` is shown while the folder can be read, else ``failure`` with the reason."""
        self.body, self.failure = body, failure
        self.drawn += [body, failure]

    def place(self) -> None:
        """Places the message; it stays at the window's bottom."""
        with gr.Row(elem_id="pictures-said"):
            self.message = html(visible=False, elem_id="pictures-message")
            self.yes = gr.Button(
                tr("Write there"), variant="primary", size="md", min_width=110, visible=False, elem_id="yes"
            )
            self.no = gr.Button(tr("Not now"), size="md", min_width=90, visible=False, elem_id="not-now")
            self.undo = gr.Button(tr("Undo"), size="md", min_width=80, visible=False, elem_id="undo")
            self.redo = gr.Button(tr("Redo"), size="md", min_width=80, visible=False, elem_id="redo")
        self.shows(self._draw_message, [self.message, self.yes, self.no, self.undo, self.redo])

    def shows(self, draw: Draw, components: Sequence[Block]) -> None:
        """From now on ``draw`` gives the updates of ``components`` whenever the page is drawn. What it leaves out stays
        as it is; ``Collection.version`` and the look tell whether anything can have changed.
        """
        self._draws.append(draw)
        self.drawn += components

    def frames(self, draw: Callable[[PicturesLook], Updates], components: Sequence[Block]) -> None:
        """``shows`` for what is there whether the folder can be read or not."""
        self._frames.append(draw)
        self.framed += components
        self.drawn += components

    def draw(self, look: PicturesLook, fresh: bool = False) -> Updates:
        """All that the page shows, or why it cannot; ``fresh`` reads the folder again."""
        updates: Updates = {self.look: look}
        try:
            collection = self.collections.of(look, fresh)
        except (StudioError, OSError) as error:
            look.failed = True
            shown = {self.body: _HIDDEN, self.failure: gr.update(value=wrong(error), visible=True)}
            return {**updates, **shown, **self._framed(look)}
        look.failed = False
        with self._drawing:  # of two answers on their way, the later one shows all that was done before
            for draw in self._draws:
                updates |= draw(look, collection)
        return {**updates, self.body: _SHOWN, self.failure: _EMPTY, **self._framed(look)}

    def _framed(self, look: PicturesLook) -> Updates:
        return {component: update for draw in self._frames for component, update in draw(look).items()}

    def edits(self, event: Any, act: Act, inputs: Sequence[Block] = (), outputs: Sequence[Block] = ()) -> Any:
        """Binds an edit to an event, such as ``button.click``. ``outputs`` are components that ``act`` changes itself,
        apart from those that are drawn. A handler with a parameter of type ``gr.EventData`` gets the event too.

        Any StudioError or OSError that ``act`` raises becomes the page's message.
        """
        self._more += outputs
        return event(self._handler(act), [self.look, *inputs], [*self.drawn, *outputs], **QUIET)

    def workbench(self, look: PicturesLook) -> Workbench:
        """The writer of the folder. Only for handlers that were bound by ``edits``: they are asked and repeated where
        she did not agree yet.
        """
        found = self.collections.workbench(look)
        if not found.allowed or starter.is_sample(look.folder):
            raise _NotAsked
        return found

    def changed(
        self,
        look: PicturesLook,
        done: Done,
        captions: Mapping[str, str] | None = None,
        left_out: Mapping[str, bool] | None = None,
        **fields: Mapping[str, object],
    ) -> None:
        """Takes what an edit changed into the cards, and its sentence into the page's message. ``fields`` are those of
        ``Picture`` by the pictures' names, such as ``crop={"a.png": None}``. Without any the folder is read again.
        """
        look.said = _told(in_sequence((done.sentence, *done.notes)))
        if captions is None and left_out is None and not fields:
            self.collections.of(look, fresh=True)
            return
        collection = self.collections.of(look)
        collection.change(captions and self._read_again(look, done, captions), **fields)
        for out in (True, False):
            collection.leave_out([name for name, chosen in (left_out or {}).items() if chosen is out], out)

    def leave_out(self, look: PicturesLook, names: Sequence[str], out: bool) -> None:
        """Leaves pictures out of training, or takes them in again.

        Raises:
            DatasetError: they are to be taken in, and their folder's weight of 0 alone leaves them out.
        """
        bench, cards = self.workbench(look), self.collections.of(look).cards
        done = bench.leave_out(names) if out else bench.take_in(names)
        weightless = [name for name in names if not cards[name].picture.weight]
        if weightless and not out and not done.names:
            raise DatasetError(
                _weightless(len(weightless), len(names)),
                where=weightless[0],
                do=tr("Give the folder another weight, in Folders at the end of the page."),
            )
        self.changed(look, done, left_out=dict.fromkeys(names, out))

    def _read_again(self, look: PicturesLook, done: Done, captions: Mapping[str, str]) -> Mapping[str, str]:
        """``captions`` as training reads them: one that is empty now may be its folder's, and what shares a caption
        file changed as well.
        """
        unsure = {name for name in (*captions, *done.names) if not captions.get(name)}
        return {**captions, **self.collections.workbench(look).captions(unsure)} if unsure else captions

    def wire(self, followers: Sequence[gr.Textbox] = ()) -> None:
        """Binds the message's buttons. Call it last: what was bound by ``edits`` is repeated here. ``followers`` show
        the folder's path.
        """
        self._followers = followers
        shown = [*self.drawn, *dict.fromkeys(self._more), *followers]
        self.yes.click(self._agree, self.look, shown, **QUIET)
        self.no.click(self._decline, self.look, self.drawn, **QUIET)
        self.undo.click(self._handler(self._undo), self.look, self.drawn, **QUIET)
        self.redo.click(self._handler(self._redo), self.look, self.drawn, **QUIET)

    def _handler(self, act: Act) -> Callable[..., Updates]:
        def handler(look: PicturesLook, *values: Any) -> Updates:
            return self._do(look, partial(act, look, *values))

        def with_event(look: PicturesLook, event: gr.EventData, *values: Any) -> Updates:
            return self._do(look, partial(act, look, event, *values))

        wants_event = "EventData" in str(list(act.__annotations__.values()))
        return with_event if wants_event else handler

    def _do(self, look: PicturesLook, act: Callable[[], Updates | None]) -> Updates:
        """Does an edit, or asks first and keeps it for then."""
        look.said, look.pending = "", None
        updates: Updates = {}
        try:
            updates = act() or {}
        except _NotAsked:
            look.pending = partial(self._do, look, act)
        except (StudioError, OSError) as error:
            look.said = wrong(error)
            look.resets += 1
        return {**self.draw(look), **updates}

    def _agree(self, look: PicturesLook) -> Updates:
        waiting, look.pending = look.pending, None
        moved: Updates = {}
        try:
            if starter.is_sample(look.folder):
                copy = uploads.copied(look.folder, self.outputs)
                look.settings = look.settings.changed(data=str(copy))
                moved = dict.fromkeys(self._followers, str(copy))
            else:
                self.collections.workbench(look).allow()
        except (StudioError, OSError) as error:
            look.said = wrong(error)
            look.resets += 1
            return self.draw(look)
        return {**(waiting() if waiting else self.draw(look)), **moved}

    def _decline(self, look: PicturesLook) -> Updates:
        look.pending, look.said = None, _told(tr("Nothing was written."))
        look.resets += 1
        return self.draw(look)

    def _undo(self, look: PicturesLook) -> None:
        bench = self.workbench(look)
        self._moved(look, bench, bench.undo())

    def _redo(self, look: PicturesLook) -> None:
        bench = self.workbench(look)
        self._moved(look, bench, bench.redo())

    def _moved(self, look: PicturesLook, bench: Workbench, done: Done) -> None:
        """Takes a step that was undone, or done again, into the cards; where it changed more than captions, crops and
        what is left out, the folder is read again.
        """
        cards = self.collections.of(look).cards
        if any(name not in cards for name in done.names):
            self.changed(look, done)
        elif done.kinds <= {"captions"}:
            self.changed(look, done, captions=bench.captions(done.names))
        elif done.kinds == {"preparation"}:
            chosen = preparation.read(bench.folder)[0]
            out = {name: name in chosen.left_out for name in done.names}
            self.changed(look, done, left_out=out, crop={name: chosen.crops.get(name) for name in done.names})
        else:
            self.changed(look, done)

    def _draw_message(self, look: PicturesLook, collection: Collection) -> Updates:
        asks, copy = look.pending is not None, starter.is_sample(look.folder)
        said = _question(collection.dataset.folder.name, copy) if asks else look.said
        undoable, redoable = ("", "") if asks else self._steps(look)
        return {
            self.message: gr.update(value=said, visible=bool(said)),
            self.yes: gr.update(value=tr("Make a copy") if copy else tr("Write there"), visible=asks),
            self.no: gr.update(visible=asks),
            self.undo: gr.update(visible=bool(undoable)),
            self.redo: gr.update(visible=bool(redoable)),
        }

    def _steps(self, look: PicturesLook) -> tuple[str, str]:
        """What can be undone, and done again."""
        if not (Path(look.folder) / preparation.FOLDER).is_dir():
            return "", ""
        bench = self.collections.workbench(look)
        return bench.undoable, bench.redoable


def _told(sentence: str) -> str:
    return f'<p class="told">{words.text(sentence)}</p>'


def _question(folder: str, copy: bool) -> str:
    """Whether to work on a ``copy``, else whether the studio may write in the folder, as HTML."""
    if copy:
        title = tr("Work on a copy?")
        what = tr("{folder} is a sample, which stays as it is. Work on a copy?", folder=folder)
        more = tr("It goes to the studio's own pictures, where you can change captions, crops and masks as you like.")
    else:
        title = tr("Write in this folder?")
        what = tr("May the studio write in {folder}?", folder=folder)
        more = tr(
            "It keeps captions and masks beside your pictures, and crops, what is left out and the first version of "
            "each caption in a folder called .lora_studio. The pictures themselves are never changed. You are asked "
            "once for each folder."
        )
    return (
        f'<div class="notice warned" role="alertdialog" aria-label="{words.text(title)}">'
        f"<b>{words.text(what)}</b><p>{words.text(more)}</p></div>"
    )


def _weightless(count: int, asked: int) -> str:
    """Why pictures, of those that were ``asked`` for, are still left out."""
    if asked == 1:
        return tr("It is left out since the weight of the folder is 0.")
    return ntr(
        count,
        "{count:,} of them is left out since the weight of the folder is 0.",
        "{count:,} of them are left out since the weight of the folder is 0.",
    )
