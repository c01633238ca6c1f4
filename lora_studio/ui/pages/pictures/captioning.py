"""Automatic captions: a form for a model and what becomes of its captions, and the job that writes them. The job is
read from disk, so that a reload or a closed tab changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.blocks import Block

from lora_studio.curation import style_words
from lora_studio.curation.collection import Collection
from lora_studio.curation.workbench import Done
from lora_studio.errors import RunError, StudioError
from lora_studio.jobs import captioning, model_downloads
from lora_studio.jobs.captioning import CaptioningJob, CaptioningView, Mode
from lora_studio.language import ntr, tr
from lora_studio.ui import outcome, words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.pictures import captioning_form, captioning_view, scopes
from lora_studio.ui.pages.pictures.bulk import BulkEdits
from lora_studio.ui.pages.pictures.captioning_form import CaptioningForm
from lora_studio.ui.pages.pictures.drafts import ALL
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

_HIDDEN, _SHOWN = gr.update(visible=False), gr.update(visible=True)
_EVERY = 1.5
"""Seconds between two looks at a job or a download."""
_INTO_VIEW = "() => setTimeout(() => document.getElementById('captioning')?.scrollIntoView({block: 'nearest'}), 50)"


class ShownJob(NamedTuple):
    """A job as it was read."""

    job: CaptioningJob
    view: CaptioningView
    mode: Mode
    alive: bool
    proposals: dict[str, str]


class CaptioningPanel:
    """The card with the form and the job."""

    def __init__(self, room: Room, bulk: BulkEdits):
        self.room, self.bulk = room, bulk
        self._read: dict[str, tuple[Any, ShownJob]] = {}
        with gr.Column(elem_classes="card", visible=False, elem_id="captioning") as self.card:
            html(f"<h2>{words.text(tr('Automatic captions'))}</h2>")
            self.status = html(visible=False, js_on_load=captioning_view.PRESS, elem_id="captioning-status")
            self._place_buttons()
            self.proposals = html(visible=False, js_on_load=captioning_view.PRESS, elem_id="proposals")
            self.form = CaptioningForm()
        self.timer = gr.Timer(_EVERY, active=False)
        room.shows(self.draw, [self.card, self.status, self.proposals, self.timer, *self._buttons, *self.form.drawn])

    def _place_buttons(self) -> None:
        def button(label: str, name: str, **how: Any) -> gr.Button:
            return gr.Button(label, size="md", min_width=80, visible=False, elem_id=f"captioning-{name}", **how)

        with gr.Row(elem_classes="controls"):
            self.cancel = button(tr("Stop"), "stop")
            self.resume = button(tr("Resume"), "resume", variant="primary")
            self.accept = button(tr("Accept all"), "accept", variant="primary")
            self.dismiss = button(tr("Dismiss all"), "dismiss")
            self.style = button(tr("Remove words about the style…"), "style")
            self.forget = button(tr("Close"), "forget")

    @property
    def _buttons(self) -> list[Block]:
        return [self.cancel, self.resume, self.accept, self.dismiss, self.style, self.forget]

    def opens(self, event: Any) -> None:
        """Binds an event, such as ``button.click``, that opens the form."""
        event(self.open, self.room.look, self.room.drawn, **QUIET).then(None, js=_INTO_VIEW, **QUIET)

    def wire(self) -> None:
        """Binds the form and the buttons."""
        look, form, edits = self.room.look, self.form, self.room.edits
        own = [look, self.timer, *form.drawn]
        form.model.change(self.choose, [look, form.model], own, trigger_mode="always_last", **QUIET)
        form.scope.input(self.limit, [look, form.scope], look, **QUIET)
        form.close.click(self.close, look, self.room.drawn, **QUIET)
        form.look_up.click(self.look_up, look, own, **outcome.WORK)
        form.download.click(self.download, look, own, **QUIET)
        form.stop.click(self.stop_download, look, own, **QUIET)
        edits(form.start.click, self.start, inputs=form.values)
        edits(self.cancel.click, lambda look: self._job(look).job.cancel())
        edits(self.resume.click, lambda look: self._job(look).job.resume())
        edits(self.forget.click, self.drop)
        edits(self.accept.click, lambda look: self.take(look, list(self._job(look).proposals)))
        edits(self.dismiss.click, lambda look: self._job(look).job.dismiss())
        edits(self.proposals.click, self.press)
        edits(self.status.click, self.press)
        self.bulk.opens(self.style.click, lambda look: self.bulk.propose(look, "remove style"))
        self.timer.tick(self.tick, look, self.room.drawn, **QUIET)

    def open(self, look: PicturesLook) -> Updates:
        """Shows the form."""
        look.captioning.opened = True
        return self.room.draw(look)

    def close(self, look: PicturesLook) -> Updates:
        """Hides the form."""
        look.captioning.opened = False
        return self.room.draw(look)

    def choose(self, look: PicturesLook, model: str) -> Updates:
        """Another model."""
        look.captioning.model, look.captioning.offer = (model or "").strip().strip("\"'"), None
        return self._form(look)

    def limit(self, look: PicturesLook, scope: str) -> PicturesLook:
        """Other pictures."""
        look.captioning.scope = scope or ALL
        return look

    def look_up(self, look: PicturesLook) -> Iterator[Updates]:
        """Asks the hub what a download takes."""
        draft, model = look.captioning, look.captioning.model
        yield {self.form.offer: gr.update(value=outcome.busy(tr("Asking the hub.")), visible=True)}
        try:
            offer = model_downloads.look(model)
        except StudioError as error:
            yield {self.form.offer: gr.update(value=outcome.wrong(error), visible=True)}
            return
        if draft.model == model:  # else another one was chosen while it was asked
            draft.offer = offer
            yield self._form(look)

    def download(self, look: PicturesLook) -> Updates:
        """Starts the download that was offered."""
        try:
            model_downloads.start(look.captioning.model)
        except StudioError as error:
            return {self.form.offer: gr.update(value=outcome.wrong(error), visible=True)}
        return self._form(look)

    def stop_download(self, look: PicturesLook) -> Updates:
        """Stops it; what is here stays."""
        if found := model_downloads.latest(look.captioning.model):
            found.cancel()
        return self._form(look)

    def start(self, look: PicturesLook, *values: Any) -> None:
        """Starts a job."""
        draft = look.captioning
        known = scopes.cards(look, self.room.collections.of(look))
        names = [card.name for card in known.get(draft.scope, [])] if draft.scope != ALL else []
        nested = look.settings.dataset.nested
        order = captioning_form.order(draft.model, values, data=look.folder, names=tuple(names), nested=nested)
        if order.mode is not Mode.PROPOSE:
            self.room.workbench(look)
        draft.watched, draft.opened = captioning.start(order, self.room.outputs).name, False

    def drop(self, look: PicturesLook) -> None:
        """Shows an ended job no longer."""
        self._job(look).job.remove()
        look.captioning.watched = ""

    def press(self, look: PicturesLook, event: gr.EventData) -> None:
        """A button of one picture."""
        name, found = str(event.name), self._shown(look)
        if event.act == "choose":
            look.chosen, look.selected = name, {name}
        elif found is None or name not in found.proposals:
            return  # it was decided on: the button was pressed twice
        elif event.act == "accept":
            self.take(look, [name])
        elif event.act == "dismiss":
            found.job.dismiss([name])

    def take(self, look: PicturesLook, names: list[str]) -> None:
        """Writes proposals."""
        found = self._job(look)
        self.room.workbench(look)
        written = found.job.accept(names)
        said = Done(ntr(len(written), "{count:,} caption changed.", "{count:,} captions changed."), tuple(written))
        self.room.changed(look, said, captions={name: found.proposals[name] for name in written})

    def tick(self, look: PicturesLook) -> Updates:
        """The job as it is now; when it has ended, the cards with what it wrote."""
        was = look.captioning.at_work
        try:
            updates = self.draw(look, self.room.collections.of(look))
        except (StudioError, OSError):  # which the page says
            return {**self.room.draw(look), self.timer: gr.Timer(active=False)}
        if was and not look.captioning.at_work:
            return self.room.draw(look, fresh=True)
        return {self.room.look: look, **updates}

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The form, and the job that works or has something to say."""
        draft, found = look.captioning, self._shown(look)
        draft.at_work = bool(found and found.alive)
        if found is None:
            shown = {self.status: _HIDDEN, self.proposals: _HIDDEN, **dict.fromkeys(self._buttons, _HIDDEN)}
        else:
            shown = self._job_shown(found, collection)
        form = self._form(look) if draft.opened else {self.form.body: _HIDDEN}
        return {self.card: gr.update(visible=draft.opened or found is not None), **shown, **form, **self._ticks(look)}

    def _job_shown(self, found: ShownJob, collection: Collection) -> Updates:
        outputs, job, seen = self.room.outputs, found.job, found.view
        if found.alive:
            said = captioning_view.at_work(seen, job.stop_file.exists(), collection, outputs)
        else:
            said = captioning_view.ended(seen, found.mode, len(found.proposals), self._style(found, collection))
        shown = {
            self.cancel: found.alive and not job.stop_file.exists(),
            self.resume: not found.alive and seen.can_resume,
            self.accept: bool(found.proposals) and not found.alive,
            self.dismiss: bool(found.proposals) and not found.alive,
            self.style: not found.alive and bool(self._style(found, collection)),
            self.forget: not found.alive,
        }
        proposals = "" if found.alive else captioning_view.proposed(found.proposals, collection, outputs)
        return {
            self.status: gr.update(value=said, visible=True),
            self.proposals: gr.update(value=proposals, visible=bool(proposals)),
            **{button: gr.update(visible=visible) for button, visible in shown.items()},
        }

    def _style(self, found: ShownJob, collection: Collection) -> list[str]:
        """What the captions that a job wrote say about the style."""
        cards = (collection.cards[name] for name in found.view.written if name in collection.cards)
        said = (one for card in cards for one in style_words.found(card.picture.caption))
        return list(dict.fromkeys(one.casefold() for one in said))

    def _form(self, look: PicturesLook) -> Updates:
        """The form for the chosen model, and whether that is here."""
        draft, form = look.captioning, self.form
        known = scopes.cards(look, self.room.collections.of(look))
        draft.scope = draft.scope if draft.scope in known else ALL
        return {
            self.room.look: look,
            form.body: _SHOWN,
            form.scope: gr.update(choices=scopes.titles(known), value=draft.scope, visible=len(known) > 1),
            **form.of_model(draft.model, draft.offer, model_downloads.latest(draft.model)),
            **self._ticks(look),
        }

    def _ticks(self, look: PicturesLook) -> Updates:
        """Looks again and again while a job or a download is under way."""
        download = model_downloads.latest(look.captioning.model)
        fetching = look.captioning.opened and download is not None and not download.ended
        return {self.timer: gr.Timer(active=look.captioning.at_work or fetching)}

    def _job(self, look: PicturesLook) -> ShownJob:
        """The job that is shown. Raises RunError where another tab closed it."""
        found = self._shown(look)
        if found is None:
            raise RunError(tr("This captioning is no longer there."), do=tr("Start it anew."))
        return found

    def _shown(self, look: PicturesLook) -> ShownJob | None:
        """The folder's latest job: while it works, waits, can be resumed or proposes something, or is watched here."""
        latest = next(iter(captioning.jobs(self.room.outputs, look.folder)), None)
        found = self._known(latest) if latest else None
        if found is None:
            return None
        says = found.alive or found.view.can_resume or found.proposals or found.job.name == look.captioning.watched
        return found if says else None

    def _known(self, job: CaptioningJob) -> ShownJob | None:
        """The job as it is on disk, read again only where that has changed; None if it is damaged."""
        alive = job.alive
        stamp = (alive, _stamp(job.events_file), _stamp(job.settled_file))
        stamped, found = self._read.get(job.name, (None, None))
        if found is None or alive or stamped != stamp:
            try:
                mode = job.order().mode
                found = ShownJob(job, job.view(), mode, alive, job.proposals() if mode is Mode.PROPOSE else {})
            except RunError:
                return None
            self._read = {job.name: (stamp, found)}
        return found


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size
