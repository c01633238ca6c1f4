"""The Mix page: adapters and weights on the left, what they draw on the right. Everything is bound together here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.errors import StudioError
from lora_studio.jobs.renderer import Renderer
from lora_studio.language import tr
from lora_studio.ui import outcome, words
from lora_studio.ui.outcome import WORK, Updates
from lora_studio.ui.pages.mix import figures, saving
from lora_studio.ui.pages.mix.blend_form import BlendForm
from lora_studio.ui.pages.mix.drawing import MixDrawing
from lora_studio.ui.pages.mix.scene_form import SceneForm
from lora_studio.ui.pages.mix.sheet_form import SheetForm
from lora_studio.ui.pages.mix.states_form import StatesForm
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.scene import mixture
from lora_studio.ui.scene.adapter_list import AdapterList, with_trigger
from lora_studio.ui.scene.base_form import BaseForm
from lora_studio.ui.scene.mixture import Mix
from lora_studio.ui.theme import html

_DRAWING: dict[str, Any] = {**WORK, "trigger_mode": "multiple", "concurrency_limit": None}
"""A newer image can be asked for while an older one is drawn, which the renderer then leaves."""
_NO_ADAPTER = tr("No adapter yet. Choose the first one above; a second one makes it a mix.")
_AGAIN = 3.0
"""Seconds between two checks whether the run that the images wait for has ended."""
_KEEP = "(draft, prompt, seed) => ({...draft, prompt, seed})"
"""What the browser keeps at once of what is typed; drawing keeps the rest."""


class MixPage:
    """The page's components and the handlers of its adapters.

    Args:
        renderer: which other pages draw with too, so that there is one base model in memory.
        draft: where the browser keeps the mix. It must be outside the tabs, which the browser makes only when they are
            entered.
    """

    def __init__(self, outputs: Path, renderer: Renderer, draft: gr.BrowserState):
        self.outputs, self.draft = outputs, draft
        self.mix = gr.State(Mix())
        with gr.Row(elem_classes="halves", equal_height=False):
            with gr.Column(scale=5, min_width=330, elem_classes="half"):
                self._place_rows()
                with gr.Column(elem_classes="card"):
                    self.scene = SceneForm(outputs)
                with gr.Column(elem_classes="card"):
                    self.states = StatesForm(outputs)
            with gr.Column(scale=8, min_width=330, elem_classes="half", elem_id="mixed"):
                with gr.Column(elem_classes="card seen"):
                    self.figures = html(figures.empty(), elem_id="mix-pictures")
                    self.note = html(elem_id="mix-note")
                with gr.Column(elem_classes="card", visible=False) as self.blend_card:
                    self._place_blend()
                with gr.Column(elem_classes="card", visible=False) as self.sheet_card:
                    self.sheet = SheetForm()
        self.drawing = MixDrawing(
            outputs=outputs,
            renderer=renderer,
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
            html(f"<h2>{words.text(tr('Adapters'))}</h2>")
            self.adapters = AdapterList(self.outputs, "mix", self.mix, _NO_ADAPTER)

    def _place_blend(self) -> None:
        html(f"<h2>{words.text(tr('Save as one adapter'))}</h2>")
        self.blend = BlendForm()
        with gr.Row(elem_classes="seeded", equal_height=True):
            self.name = gr.Textbox(
                label=tr("Name"),
                placeholder=tr("the adapters and their weights"),
                max_lines=1,
                min_width=120,
                elem_id="mix-name",
            )
            self.save = gr.Button(
                tr("Save to the library"), variant="primary", size="md", min_width=160, elem_id="mix-save"
            )
        self.saved = html(visible=False, elem_id="mix-saved")

    @property
    def _listed(self) -> list[Any]:
        """What ``_list`` changes."""
        rows = [*self.adapters.shown, *self.base_form.followed]
        return [*rows, self.blend_card, self.sheet_card, self.sheet.across, self.sheet.down]

    @property
    def restored(self) -> list[Any]:
        """What ``restore`` changes."""
        return [self.scene.prompt, self.scene.seed, *self._listed]

    @property
    def base_form(self) -> BaseForm:
        """Which base model is drawn with."""
        return self.scene.base_form

    def wire(self, tab: gr.Tab, page: gr.Blocks) -> None:
        """Binds everything; ``tab`` is the page's own."""
        self._wire_adapters(tab, page)
        drawn = self._drawn
        tab.select(self.drawing.renderer.warm, None, None, **QUIET)
        entered = tab.select(self.enter, [self.mix, self.scene.base], self._listed, **QUIET)
        entered.then(self.drawing.first, **drawn)
        base = self.base_form
        followed = base.base.input(base.follow, [self.mix, base.base], base.followed, **QUIET)
        (of_scene, new_seed), (of_blend, method) = self.scene.wire(), self.blend.wire()
        gr.on([*of_scene, *of_blend], self.drawing.draw, **drawn)
        for handler in (followed, new_seed, method):
            handler.then(self.drawing.draw, **drawn)
        self.drawing.again.tick(self.drawing.retry, **drawn)
        kept = {"inputs": [self.draft, self.scene.prompt, self.scene.seed], "outputs": self.draft, "js": _KEEP}
        typed = [self.scene.prompt.change, self.scene.seed.change]
        gr.on(typed, None, trigger_mode="always_last", **kept, **QUIET)
        self.sheet.wire()
        self.states.wire(tab)
        self.sheet.draw.click(
            self.drawing.draw_sheet, self.drawing.inputs | self.sheet.inputs, self.sheet.sheet, **WORK
        )
        self.save.click(self.keep, self.drawing.inputs | {self.name}, [self.saved, self.adapters.adding], **WORK)

    @property
    def _drawn(self) -> dict[str, Any]:
        """How a handler that draws is bound."""
        return {"inputs": self.drawing.inputs, "outputs": self.drawing.outputs_drawn, **_DRAWING}

    def _wire_adapters(self, tab: gr.Tab, page: gr.Blocks) -> None:
        page.load(self.restore, [self.mix, self.draft, self.scene.base], self.restored, **QUIET)
        adding = self.adapters.adding
        added = adding.select(self.add, [self.mix, adding, self.scene.base], self._listed, **QUIET)
        added.then(self.drawing.draw, **self._drawn)
        acted = self.adapters.rows.click(
            self.act,
            [self.mix, self.scene.base, self.scene.prompt],
            [self.scene.prompt, self.blend.method, *self.blend.parameters.values(), *self._listed],
            **QUIET,
        )
        acted.then(self.drawing.draw, **self._drawn)
        weighed = [self.adapters.rows, self.adapters.message, *self.drawing.outputs_drawn]
        self.adapters.rows.input(self.weigh, self.drawing.inputs, weighed, **_DRAWING)

    def _list(self, mix: Mix, base: str, problem: StudioError | None = None) -> Updates:
        """What follows from which adapters are in the mix; with the ``problem`` that one could not be added."""
        shown = gr.update(visible=bool(mix.rows))
        return {
            **self.adapters.show(mix, problem),
            **self.base_form.offer(mix, base),
            self.blend_card: shown,
            self.sheet_card: shown,
            **self.sheet.offer(mix),
        }

    def restore(self, mix: Mix, draft: Any, base: str) -> Updates:
        """What this browser's user had mixed before a reload or a restart, without what has gone meanwhile."""
        draft = draft if isinstance(draft, dict) else {}
        self.adapters.restore(mix, draft.get("rows"))
        fields = {"prompt": self.scene.prompt, "seed": self.scene.seed}
        typed = {field: gr.update(value=draft[name]) for name, field in fields.items() if name in draft}
        listed = self._list(mix, draft.get("base") or base)
        return {**typed, **listed, **self.base_form.restore(draft.get("base_read"))}

    def enter(self, mix: Mix, base: str) -> Updates:
        """What is new when the page is opened: the library's adapters, and the names of runs."""
        known = {self.adapters.adding: self.adapters.choices()}
        return self._list(mix, base) if mix.follow(self.outputs) else known

    def add(self, mix: Mix, key: str | None, base: str) -> Updates:
        """Puts the chosen adapter into the mix."""
        try:
            base = self.adapters.add(mix, key or "", base)
        except StudioError as error:
            return self._list(mix, base, error)
        return self._list(mix, base)

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
                case "apart" if row:
                    changed = self._take_apart(mix, key)
                case "trigger" if row and row.trigger not in (prompt or ""):
                    changed = {self.scene.prompt: with_trigger(prompt, row.trigger)}
                case None if row is None:
                    base = self.adapters.add(mix, key, base)
        except StudioError as error:
            return self._list(mix, base, error)
        return {**changed, **self._list(mix, base)}

    def _take_apart(self, mix: Mix, key: str) -> Updates:
        """Takes a blend apart; brings back how it was made if it was all of the mix."""
        recipe = mixture.apart(mix, key, self.outputs)
        return self.blend.fill(recipe if len(mix.rows) == len(recipe.ingredients) else None)

    def weigh(self, values: dict[Any, Any], event: gr.EventData) -> Iterator[Updates]:
        """Takes other weights over, then draws."""
        first = self.adapters.weigh(values[self.mix], event)
        for updates in self.drawing.draw(values):
            yield {**first, **updates}
            first = {}

    def keep(self, values: dict[Any, Any]) -> Iterator[Updates]:
        """Saves the mix as one adapter."""

        def act() -> str:
            return saving.save(values[self.mix], self.blend.chosen(values), values[self.name] or "", self.outputs)

        for update in outcome.told(tr("Blending, saving and proving…"), act):
            yield {self.saved: update, self.adapters.adding: self.adapters.choices()}
