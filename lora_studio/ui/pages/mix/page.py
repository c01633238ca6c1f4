"""The Mix page: adapters and weights on the left, what they draw on the right. Everything is bound together here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.errors import StudioError
from lora_studio.jobs.renderer import Renderer
from lora_studio.runs import library
from lora_studio.ui import images, outcome, words
from lora_studio.ui.outcome import WORK, Updates
from lora_studio.ui.pages.library import cards, details
from lora_studio.ui.pages.mix import blend_form, figures, image_specs, mixture, rows, saving
from lora_studio.ui.pages.mix.blend_form import BlendForm
from lora_studio.ui.pages.mix.drawing import MixDrawing
from lora_studio.ui.pages.mix.mixture import Mix
from lora_studio.ui.pages.mix.scene_form import SceneForm
from lora_studio.ui.pages.mix.sheet_form import SheetForm
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

_DRAWING: dict[str, Any] = {**WORK, "trigger_mode": "multiple", "concurrency_limit": None}
"""A newer image can be asked for while an older one is drawn, which the renderer then leaves."""
_AGAIN = 3.0
"""Seconds between two checks whether the run that the images wait for has ended."""


class MixPage:
    """The page's components and the handlers of its adapters.

    Args:
        draft: where the browser keeps the mix. It must be outside the tabs, which the browser makes only when they are
            entered.
    """

    def __init__(self, outputs: Path, draft: gr.BrowserState):
        self.outputs, self.draft = outputs, draft
        self.mix = gr.State(Mix())
        with gr.Row(elem_classes="halves", equal_height=False):
            with gr.Column(scale=5, min_width=330, elem_classes="half"):
                self._place_rows()
                with gr.Column(elem_classes="card"):
                    self.scene = SceneForm(outputs)
            with gr.Column(scale=8, min_width=330, elem_classes="half", elem_id="mixed"):
                with gr.Column(elem_classes="card seen"):
                    self.figures = html(figures.EMPTY, elem_id="mix-pictures")
                    self.note = html(elem_id="mix-note")
                with gr.Column(elem_classes="card", visible=False) as self.blend_card:
                    self._place_blend()
                with gr.Column(elem_classes="card", visible=False) as self.sheet_card:
                    self.sheet = SheetForm()
        self.drawing = MixDrawing(
            outputs=outputs,
            renderer=Renderer(outputs, images.folder(outputs) / "mix"),
            mix=self.mix,
            scene=self.scene,
            blend=self.blend,
            sheet=self.sheet,
            figures=self.figures,
            note=self.note,
            again=gr.Timer(_AGAIN, active=False),
            draft=draft,
        )

    def _place_rows(self) -> None:
        with gr.Column(elem_classes="card"):
            html("<h2>Adapters</h2>")
            with gr.Column(elem_classes="fields"):
                self.adding = gr.Dropdown(
                    [], label="Add an adapter", info="Type to search your library.", elem_id="mix-add"
                )
            self.rows = html(rows.html(Mix()), js_on_load=rows.CHANGE, elem_id="mix-rows")
            self.message = html(visible=False, elem_id="mix-said")

    def _place_blend(self) -> None:
        html("<h2>Save as one adapter</h2>")
        self.blend = BlendForm()
        with gr.Row(elem_classes="seeded", equal_height=True):
            self.name = gr.Textbox(
                label="Name",
                placeholder="the adapters and their weights",
                max_lines=1,
                min_width=120,
                elem_id="mix-name",
            )
            self.save = gr.Button(
                "Save to the library", variant="primary", size="md", min_width=160, elem_id="mix-save"
            )
        self.saved = html(visible=False, elem_id="mix-saved")

    @property
    def _listed(self) -> list[Any]:
        """What ``_list`` changes."""
        rows = [self.mix, self.adding, self.rows, self.message, *self._of_base]
        return [*rows, self.blend_card, self.sheet_card, self.sheet.across, self.sheet.down]

    @property
    def _of_base(self) -> list[Any]:
        """What ``follow`` changes."""
        return [self.scene.base, *self.scene.reading.components]

    def wire(self, tab: gr.Tab, page: gr.Blocks) -> None:
        """Binds everything; ``tab`` is the page's own."""
        self._wire_adapters(tab, page)
        drawn = self._drawn
        tab.select(self.drawing.renderer.warm, None, None, **QUIET)
        tab.select(self.drawing.first, **drawn)
        followed = self.scene.base.input(self.follow, [self.mix, self.scene.base], self._of_base, **QUIET)
        for event in (followed.then, *self.scene.wire(), *self.blend.wire()):
            event(self.drawing.draw, **drawn)
        self.drawing.again.tick(self.drawing.retry, **drawn)
        self.sheet.wire()
        self.sheet.draw.click(
            self.drawing.draw_sheet, self.drawing.inputs | self.sheet.inputs, self.sheet.sheet, **WORK
        )
        self.save.click(self.keep, self.drawing.inputs | {self.name}, [self.saved, self.adding], **WORK)

    @property
    def _drawn(self) -> dict[str, Any]:
        """How a handler that draws is bound."""
        return {"inputs": self.drawing.inputs, "outputs": self.drawing.outputs_drawn, **_DRAWING}

    def _wire_adapters(self, tab: gr.Tab, page: gr.Blocks) -> None:
        tab.select(lambda: self._choices(), None, self.adding, **QUIET)
        restored = [self.scene.prompt, self.scene.seed, *self._listed]
        page.load(self.restore, [self.mix, self.draft, self.scene.base], restored, **QUIET)
        added = self.adding.select(self.add, [self.mix, self.adding, self.scene.base], self._listed, **QUIET)
        added.then(self.drawing.draw, **self._drawn)
        acted = self.rows.click(
            self.act,
            [self.mix, self.scene.base, self.scene.prompt],
            [self.scene.prompt, self.blend.method, *self._listed],
            **QUIET,
        )
        acted.then(self.drawing.draw, **self._drawn)
        weighed = [self.rows, self.message, *self.drawing.outputs_drawn]
        self.rows.input(self.weigh, self.drawing.inputs, weighed, **_DRAWING)

    def _choices(self) -> dict[str, Any]:
        return gr.update(choices=cards.choices(library.entries(self.outputs), self.outputs), value=None)

    def _list(self, mix: Mix, base: str, problem: StudioError | None = None) -> Updates:
        """What follows from which adapters are in the mix; with the ``problem`` that one could not be added."""
        message = words.notice("wrong", problem.what, problem.where, problem.do) if problem else ""
        offered = image_specs.bases(self.outputs, mix.family)
        known = [name for _, name in offered]
        fits = base in known or (base != "starter" and bool(base))
        chosen = base if fits else next(iter(known), "")
        shown = gr.update(visible=bool(mix.rows))
        return {
            self.mix: mix,
            self.adding: self._choices(),
            self.rows: rows.html(mix),
            self.message: gr.update(value=message, visible=bool(message)),
            **self.follow(mix, chosen),
            self.scene.base: gr.update(choices=offered, value=chosen),
            self.blend_card: shown,
            self.sheet_card: shown,
            **self.sheet.offer(mix),
        }

    def follow(self, mix: Mix, base: str) -> Updates:
        """Reads the base model as the run did that it is taken from. What was typed stays until that changes."""
        read = image_specs.reading(base, mix, self.outputs)
        if read == mix.base_read:
            return {self.scene.base: gr.skip()}
        mix.base_read = read
        return self.scene.fill(read)

    def restore(self, mix: Mix, draft: Any, base: str) -> Updates:
        """What this browser's user had mixed before a reload or a restart, without what has gone meanwhile."""
        draft = draft if isinstance(draft, dict) else {}
        reported = draft.get("rows")
        kept = [one for one in reported if isinstance(one, dict)] if isinstance(reported, list) else []
        for one in kept:
            with contextlib.suppress(StudioError):
                self._add(mix, str(one.get("key")))
        mix.weigh(kept)
        fields = {"prompt": self.scene.prompt, "seed": self.scene.seed}
        typed = {field: gr.update(value=draft[name]) for name, field in fields.items() if name in draft}
        listed = self._list(mix, draft.get("base") or base)
        with contextlib.suppress(StudioError):
            read = draft.get("base_read")
            listed |= self.scene.fill(image_specs.read_from(read)) if isinstance(read, dict) else {}
        return {**typed, **listed}

    def add(self, mix: Mix, key: str | None, base: str) -> Updates:
        """Puts the chosen adapter into the mix."""
        try:
            base = self._add(mix, key or "", base)
        except StudioError as error:
            return self._list(mix, base, error)
        return self._list(mix, base)

    def _add(self, mix: Mix, key: str, base: str = "") -> str:
        """Puts an adapter into the mix; gives the base model to draw with: ``base``, or that of the first one's run."""
        entry = cards.found(key, self.outputs)
        mix.add(entry, self.outputs)
        known = details.base_of_run(entry.run, self.outputs).get("base", "") if len(mix.rows) == 1 else ""
        gone = os.path.isabs(known) and not os.path.exists(known)
        return base if gone or not known else known

    def act(self, mix: Mix, base: str, prompt: str, event: gr.EventData) -> Updates:
        """A button of a row: remove it, take it apart, or put its trigger word into the prompt; or an adapter that the
        page's address names.
        """
        key, changed = str(event.key), {}
        mix.weigh(getattr(event, "rows", None))
        row = mix.row(key)
        try:
            match getattr(event, "act", None):
                case "remove":
                    mix.remove(key)
                case "apart":
                    changed = {self.blend.method: self._take_apart(mix, key)}
                case "trigger" if row and row.trigger not in (prompt or ""):
                    changed = {self.scene.prompt: f"{row.trigger}, {prompt}" if prompt else row.trigger}
                case None if row is None:
                    base = self._add(mix, key, base)
        except StudioError as error:
            return self._list(mix, base, error)
        return {**changed, **self._list(mix, base)}

    def _take_apart(self, mix: Mix, key: str) -> str:
        """Takes a blend apart; gives its method if the page has it and the blend was all of the mix."""
        recipe = mixture.apart(mix, key, self.outputs)
        whole = len(mix.rows) == len(recipe.ingredients)
        return recipe.method if whole and blend_form.offers(recipe.method) else "exact"

    def weigh(self, values: dict[Any, Any], event: gr.EventData) -> Iterator[Updates]:
        """Takes other weights over, then draws."""
        mix = values[self.mix]
        changes = mix.weigh(getattr(event, "rows", None))
        notices = "".join(words.notice("warned", one) for one in changes)
        first: Updates = {self.message: gr.update(value=notices, visible=bool(changes))}
        if changes:  # otherwise the slider that is being moved is left alone
            first[self.rows] = rows.html(mix)
        for updates in self.drawing.draw(values):
            yield {**first, **updates}
            first = {}

    def keep(self, values: dict[Any, Any]) -> Iterator[Updates]:
        """Saves the mix as one adapter."""

        def act() -> str:
            return saving.save(values[self.mix], self.blend.chosen(values), values[self.name] or "", self.outputs)

        for update in outcome.told("Blending, saving and proving…", act):
            yield {self.saved: update, self.adding: self._choices()}
