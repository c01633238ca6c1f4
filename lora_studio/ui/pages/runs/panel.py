"""The panel with all runs and the queue, above the card of the run that is shown. It is drawn while it is open, and a
tab is sent only what has changed.
"""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr
from gradio.blocks import Block

from lora_studio import runs
from lora_studio.errors import RunError, StudioError
from lora_studio.jobs import housekeeping, queue, reordering, stopping
from lora_studio.language import tr
from lora_studio.runs import Run, undo
from lora_studio.ui import downloads
from lora_studio.ui.outcome import Updates, wrong
from lora_studio.ui.pages.runs import address, comparison, panel_view, queue_list, rows
from lora_studio.ui.pages.runs.panel_view import PanelState
from lora_studio.ui.pages.runs.rows import PAGE, RowCache
from lora_studio.ui.pages.train.live import RunWatcher, TabState
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

EVERY = 2.0
"""Seconds between two looks at the runs while the panel is open."""

_FOCUS = """() => setTimeout(() => {
  const panel = document.getElementById('all-runs');
  if (!panel) return document.getElementById('open-runs')?.focus();
  panel.querySelector('input, textarea')?.focus({preventScroll: true});
  if (panel.getBoundingClientRect().top < 0 || innerWidth < 900) panel.scrollIntoView({behavior: 'smooth'});
}, 100)"""
"""The panel that was opened is in view and has the focus; once it is closed, the button that opens it."""

_ESCAPE = """
element.closest('#all-runs').addEventListener('keydown', event => {
  if (event.key !== 'Escape' || event.defaultPrevented) return;
  const ways = ['keep-name', 'back-to-runs', 'close-runs'].map(id => document.getElementById(id));
  event.preventDefault();
  ways.find(one => one?.checkVisibility())?.click();
});
"""
"""Escape leaves the field for the new name, then the comparison, then the panel; for ``gr.HTML(js_on_load=...)``."""

_TO_WHAT_IS_NEXT = """() => {
  const look = left => setTimeout(() => {
    const name = document.querySelector('#rename-run input, #rename-run textarea');
    if (name) {
      name.focus();
      return name.select();
    }
    const told = document.querySelector('#runs-said [data-run]');
    const row = [...document.querySelectorAll('#runs li')].find(one => one.dataset.run === told?.dataset.run);
    const here = document.activeElement, lost = !here || here === document.body;
    if (lost || (told?.matches('div') && row?.contains(here)))  // or it would be at the button that deletes it again
      (row?.querySelector('.show') || told)?.focus({preventScroll: true});
    if (left) look(left - 1);
  }, 100);
  look(10);
}"""
"""A run's name can be typed at once where it is to be renamed. What was pressed may be gone: then the row of the run
that was renamed or brought back has the focus, or the button that undoes.
"""


class RunsPanel:
    """The panel's components and handlers."""

    def __init__(self, watcher: RunWatcher):
        self.watcher, self.outputs, self.rows = watcher, watcher.outputs, RowCache(watcher.outputs)
        self.state = gr.State(PanelState())
        self.timer = gr.Timer(EVERY, active=False)
        self.address = html(js_on_load=address.FOLLOW, elem_classes="unseen")
        with gr.Column(elem_classes="card", elem_id="all-runs", visible=False) as self.card:
            with gr.Row(elem_classes="headline"):
                self.title = html(f"<h2>{tr('All runs')}</h2>", js_on_load=_ESCAPE)
                self.filter = gr.Textbox(
                    label=tr("Search the runs"),
                    show_label=False,
                    container=False,
                    placeholder=tr("Search names…"),
                    max_lines=1,
                    min_width=120,
                    elem_id="filter-runs",
                )
                self.back = gr.Button(tr("All runs"), size="md", min_width=90, visible=False, elem_id="back-to-runs")
                self.close = gr.Button(tr("Close"), size="md", min_width=80, elem_id="close-runs")
            self.said = html(visible=False, js_on_load=rows.LIST, elem_id="runs-said")
            with gr.Row(elem_classes="rename", equal_height=False, visible=False) as self.renaming:
                self.name = gr.Textbox(label=tr("New name"), max_lines=1, min_width=160, elem_id="rename-run")
                self.save = gr.Button(tr("Rename"), size="md", variant="primary", min_width=100, elem_id="save-name")
                self.cancel = gr.Button(tr("Cancel"), size="md", min_width=80, elem_id="keep-name")
            self.queue = html(visible=False, js_on_load=queue_list.PRESS, elem_id="queue")
            self.list = html(js_on_load=rows.LIST, elem_id="runs")
            self.comparison = html(visible=False, js_on_load=comparison.PRESS, elem_id="compared")

    @property
    def _parts(self) -> dict[str, Block]:
        names = (
            "card",
            "timer",
            "title",
            "back",
            "filter",
            "said",
            "renaming",
            "queue",
            "list",
            "comparison",
            "address",
        )
        return {name: getattr(self, name) for name in names}

    @property
    def drawn(self) -> list[Block]:
        """What its handlers change."""
        return [self.state, *self._parts.values()]

    def wire(
        self,
        opener: gr.Button,
        tab: gr.State,
        shown: list[Block],
        show: Callable[..., Updates],
    ) -> None:
        """Binds everything.

        Args:
            opener: the button that opens and closes the panel.
            tab: what the tab shows of a run.
            shown: the page's parts, which ``show`` changes.
            show: turns to the run of an event.
        """
        ours = [self.state, tab]
        for button in (opener, self.close):
            button.click(self.toggle, ours, self.drawn, **QUIET).then(None, js=_FOCUS, **QUIET)
        self.timer.tick(self.draw, ours, self.drawn, **QUIET)
        self.filter.change(self.search, [*ours, self.filter], self.drawn, trigger_mode="always_last", **QUIET)
        self.list.input(show, tab, shown, **QUIET).then(self.draw, ours, self.drawn, **QUIET)
        self.back.click(self.leave, ours, self.drawn, **QUIET).then(None, js=_FOCUS, **QUIET)
        self.comparison.click(self.choose_step, ours, self.drawn, **QUIET)
        self.address.input(self.follow, ours, self.drawn, **QUIET)
        for part in (self.list, self.said):
            pressed = part.click(self.press, ours, [*self.drawn, self.name], **QUIET)
            pressed.then(None, js=_TO_WHAT_IS_NEXT, **QUIET)
        saved = gr.on([self.save.click, self.name.submit], self.rename, [*ours, self.name], self.drawn, **QUIET)
        left = self.cancel.click(self.keep_name, ours, self.drawn, **QUIET)
        for event in (saved, left):
            event.then(None, js=_TO_WHAT_IS_NEXT, **QUIET)
        self.queue.click(self.press_queue, ours, self.drawn, **QUIET)

    def toggle(self, here: PanelState, tab: TabState) -> Updates:
        """Opens the panel, or closes it."""
        self._settle(here)
        here.open, here.most = not here.open, PAGE
        here.compare()
        return self.draw(here, tab)

    def search(self, here: PanelState, tab: TabState, text: str) -> Updates:
        """Shows the runs that contain all words of ``text``."""
        here.words, here.most = text, PAGE
        return self.draw(here, tab)

    def press(self, here: PanelState, tab: TabState, event: gr.EventData) -> Updates:
        """Does with a run what was pressed."""
        if self._is_done(here, event):
            return self.draw(here, tab)
        if event.act != "restore":
            self._settle(here)
        try:
            if event.act == "more":
                here.most += PAGE
            elif event.act == "compare":
                self._compare(here, event.run, event.on)
            elif event.act == "alone":
                here.first = ""
            elif event.act == "rename":
                here.renaming = runs.find(event.run, self.outputs).name
            elif event.act == "delete":
                here.said = panel_view.deleted(self._delete(event.run))
                here.deleted = event.run
            elif event.act == "restore":
                housekeeping.restore(event.run, self.outputs)
                here.deleted = ""
                here.said = panel_view.said(event.run, tr("{run} is back.", run=event.run))
        except StudioError as error:
            here.said = wrong(error) + panel_view.undo(here.deleted, self.outputs)
        named = {self.name: gr.update(value=here.renaming, label=tr("New name of {renaming}", renaming=here.renaming))}
        return {**self.draw(here, tab), **(named if here.renaming else {})}

    def _is_done(self, here: PanelState, event: gr.EventData) -> bool:
        """Whether an earlier press did it: the button was pressed twice."""
        if event.act == "delete":
            return event.run == here.deleted and self.watcher.find(event.run) is None
        return event.act == "restore" and not here.deleted

    def _settle(self, here: PanelState) -> None:
        """Forgets what the last press began. A run that it deleted is kept as long as undo is offered: where the trash
        is emptied, its gigabytes are to be free.
        """
        if here.deleted and housekeeping.restorable(here.deleted, self.outputs):
            undo.forget(self.outputs, undo.RUNS)
        here.settle()

    def _compare(self, here: PanelState, name: str, on: bool) -> None:
        """The first press chooses a run, one on another run compares them; a second one on the first leaves it."""
        if here.first not in ("", name):
            here.compare(here.first, name)
        elif not here.compared:  # else the run that completed the pair was pressed twice
            here.first = name if on else ""

    def leave(self, here: PanelState, tab: TabState) -> Updates:
        """Goes back from the comparison to the list."""
        here.compare()
        return self.draw(here, tab)

    def choose_step(self, here: PanelState, tab: TabState, event: gr.EventData) -> Updates:
        """Shows the previews of another step of one of the two runs."""
        here.steps = {**here.steps, int(event.side): int(event.step)}
        return self.draw(here, tab)

    def follow(self, here: PanelState, tab: TabState, event: gr.EventData) -> Updates:
        """Compares the two runs that the page's address names; without any it goes back to the list."""
        here.compare(*map(str, event.names))
        self._settle(here)
        gone = [name for name in here.compared if self.watcher.find(name) is None]
        if gone:
            here.said = wrong(
                RunError(tr("There is no run named {name!r}.", name=gone[0]), do=tr("It may have been deleted."))
            )
        here.open = here.open or bool(here.compared)
        return self.draw(here, tab)

    def _delete(self, name: str) -> Run:
        run = runs.find(name, self.outputs)
        housekeeping.require_rest(run, "deleted")
        for path in run.folder.glob("*.safetensors"):
            downloads.withdraw(path, self.outputs)
        housekeeping.delete(run)
        return run

    def rename(self, here: PanelState, tab: TabState, name: str) -> Updates:
        """Gives the run the name that was typed."""
        run = runs.find(here.renaming, self.outputs)
        try:
            new = housekeeping.rename(run, name)
            here.said, here.renaming = panel_view.renamed(run.name, name, new.name), ""
            here.first = new.name if here.first == run.name else here.first
        except StudioError as error:
            here.said = wrong(error)
        return self.draw(here, tab)

    def keep_name(self, here: PanelState, tab: TabState) -> Updates:
        """Leaves the run its name."""
        self._settle(here)
        return self.draw(here, tab)

    def press_queue(self, here: PanelState, tab: TabState, event: gr.EventData) -> Updates:
        """Moves what waits in the queue, takes it out, or stops what is at work."""
        self._settle(here)
        try:
            if event.act in ("up", "down"):
                reordering.move(self.outputs, event.key, up=event.act == "up")
            else:
                for entry in queue.line(self.outputs):  # it may have ended, or the button was pressed twice
                    if entry.key == event.key:
                        stopping.stop(entry.one)
        except StudioError as error:
            here.said = wrong(error)
        return self.draw(here, tab)

    def draw(self, here: PanelState, tab: TabState) -> Updates:
        """What has changed in the panel since the tab was sent it."""
        base = {"card": {"visible": here.open}, "timer": {"active": here.open}, "address": {"value": address.html(())}}
        parts = base | (panel_view.shown(here, tab.run, self.watcher, self.rows) if here.open else {})
        return {self.state: here, **{self._parts[name]: one for name, one in here.unsent(parts).items()}}
