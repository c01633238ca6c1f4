"""The Draw page. Everything is bound together here."""

from __future__ import annotations

import json
from operator import attrgetter
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio import runs
from lora_studio.errors import StudioError
from lora_studio.language import number, tr
from lora_studio.runs import library
from lora_studio.ui import words
from lora_studio.ui.outcome import WORK, Updates
from lora_studio.ui.pages.draw import named, order, sizes, stage, starts, wall
from lora_studio.ui.pages.draw.acts import PictureActs
from lora_studio.ui.pages.draw.drawing import PageDrawing
from lora_studio.ui.pages.draw.easel import Easel
from lora_studio.ui.pages.draw.form import DrawForm, about_sampler
from lora_studio.ui.pages.draw.sheet_form import DrawSheetForm
from lora_studio.ui.pages.draw.shelf import PictureShelf
from lora_studio.ui.pages.draw.sitting import Sitting
from lora_studio.ui.pages.mix.page import MixPage
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.scene.adapter_list import AdapterList, with_trigger
from lora_studio.ui.scene.mixture import Mix
from lora_studio.ui.theme import html

_DRAWING: dict[str, Any] = {**WORK, "trigger_mode": "multiple", "concurrency_limit": None}
"""Further pictures can be asked for while others are drawn."""
_NO_ADAPTER = tr(
    "None: the base model draws alone. Prompts may name adapters too: <lora:name:0.8>, and embeddings by their words."
)
_PRESS_DRAW = """
() => document.addEventListener('keydown', event => {
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
  const go = document.getElementById('draw-go');
  if (go?.offsetParent) { document.activeElement?.blur(); setTimeout(() => go.click(), 150); }
})
"""
"""Ctrl + Enter draws, once the field that is left has told its content."""
_KEEP = """(draft, ...values) => {
  const named = %s.flatMap((name, at) => name ? [[name, values[at]]] : []);
  return [{...draft, ...Object.fromEntries(named)}, values];
}"""
"""What the browser keeps of the fields, by their names, and all their values as one."""
SHEET = "sheet:"
"""How the address of a run's sheet begins."""
_FORGET_SHEET = "() => { if (/^#draw\\/sheet/.test(location.hash)) history.replaceState(null, '', '#draw') }"
"""A reload must not draw it again."""
_TO_THE_STAGE = (
    "() => { if (window.innerWidth < 900) document.getElementById('draw-stage')?.scrollIntoView({behavior: 'smooth'}) }"
)


class DrawPage:
    """The page's components and the handlers of its pictures.

    Args:
        draft: where the browser keeps what is typed. It must be outside the tabs, which the browser makes only when
            they are entered.
    """

    def __init__(self, outputs: Path, easel: Easel, draft: gr.BrowserState):
        self.outputs, self.easel, self.draft = outputs, easel, draft
        self.mix, self.sitting = gr.State(Mix()), gr.State(Sitting())
        with gr.Row(elem_classes="halves", equal_height=False):
            with gr.Column(scale=5, min_width=330, elem_classes="half", elem_id="draw-form"):
                self._place_form()
            with gr.Column(scale=8, min_width=330, elem_classes="half", elem_id="drawn"):
                with gr.Column(elem_classes="card", elem_id="draw-stage"):
                    self.stage = html(stage.empty(), js_on_load=wall.ACT + stage.SLIDE, elem_id="stage")
                    self.note = html(elem_id="draw-note")
                with gr.Column(elem_classes="card"):
                    self.shelf = PictureShelf(outputs, self.sitting)
        self.drawing = PageDrawing(
            outputs=outputs,
            easel=easel,
            sitting=self.sitting,
            mix=self.mix,
            form=self.form,
            shelf=self.shelf,
            stage=self.stage,
            note=self.note,
            cancel=self.cancel,
            sheet=self.sheet,
        )
        self.acts = PictureActs(self.drawing, self.adapters, self.taken)

    def _place_form(self) -> None:
        self.form = DrawForm(self.outputs)
        with gr.Column(elem_classes="card"):
            self.form.place()
            html(f"<h2>{words.text(tr('Adapters'))}</h2>")
            self.adapters = AdapterList(self.outputs, "draw", self.mix, _NO_ADAPTER)
        with gr.Column(elem_classes="card"):
            self.form.place_rest()
        with gr.Column(elem_classes="card"):
            with gr.Accordion(tr("Settings of a picture"), open=False, elem_classes="fold first", elem_id="draw-take"):
                about = tr("Drop a picture of the studio, A1111 or Forge: it tells how it was drawn.")
                html(f'<p class="hint">{words.text(about)}</p>')
                self.dropped = gr.File(
                    label=tr("A picture with settings"),
                    show_label=False,
                    file_types=[".png", ".webp", ".jpg", ".jpeg"],
                    height=120,
                    elem_id="draw-settings",
                )
            self.taken = html(visible=False, elem_id="draw-taken")
        with gr.Column(elem_classes="card"):
            self.sheet_fold = gr.Accordion(
                tr("Sheet"), open=False, elem_classes="fold first", elem_id="draw-sheet-fold"
            )
            with self.sheet_fold:
                self.sheet = DrawSheetForm(self.outputs)
        with gr.Row(elem_classes="go begin"):
            self.go = gr.Button(tr("Draw"), variant="primary", size="lg", elem_id="draw-go")
            self.cancel = gr.Button(tr("Cancel"), size="lg", visible=False, min_width=110, elem_id="draw-cancel")

    def wire(self, tab: gr.Tab, page: gr.Blocks, tabs: gr.Tabs, mix_page: MixPage) -> None:
        """Binds everything; ``tab`` is the page's own among ``tabs``, ``mix_page`` takes pictures over."""
        self.shelf.wire()
        self._wire_drawing(tab, page)
        self._wire_adapters(tab)
        acts, image = self.acts, self.form.dropped
        chosen = self.shelf.wall.click(acts.choose, self.sitting, acts.seen, **QUIET)
        chosen.then(None, js=_TO_THE_STAGE, **QUIET)
        self.stage.click(acts.act, acts.inputs, [*acts.seen, *acts.filled], **QUIET)
        to_mix = [tabs, *mix_page.restored]

        def opened(sitting: Sitting, event: gr.EventData) -> Updates:
            draft = acts.to_mix(sitting, event)
            if draft is None:
                return {tabs: gr.skip()}
            return {**mix_page.restore(Mix(), draft, "starter"), tabs: gr.update(selected="mix")}

        def taken(values: dict[Any, Any]) -> Updates:
            return acts.take(values, self.dropped)

        self.stage.click(opened, self.sitting, to_mix, **QUIET)
        self.dropped.upload(taken, {self.dropped, *acts.inputs}, [self.dropped, *acts.filled], **QUIET)
        start = self.form.fields["start"]
        gr.on([image.upload, image.clear], acts.start_from, image, [start, self.note], **QUIET)

    def _wire_drawing(self, tab: gr.Tab, page: gr.Blocks) -> None:
        inputs, fields, drawn = self.drawing.inputs, self.form.fields, self.drawing.shown
        gr.on([self.go.click, fields["negative"].submit], self.drawing.draw, inputs, drawn, **_DRAWING)
        self.sheet.wire()
        self.sheet.draw.click(self.drawing.draw_sheet, inputs | self.sheet.inputs, drawn, **_DRAWING)
        gr.on([self.go.click, self.sheet.draw.click], None, js=_TO_THE_STAGE, **QUIET)
        self.cancel.click(self.drawing.end, self.sitting, None, **QUIET)
        tab.select(self.easel.renderer.warm, None, None, **QUIET)
        tab.select(self.acts.enter, self.sitting, self.acts.seen, **QUIET)
        known = {self.draft, self.mix, self.sitting, fields["base"]}
        restored = page.load(self.restore, known, [self.sitting, *self.acts.filled], **QUIET)
        restored.then(self.drawing.resume, self.sitting, drawn, **_DRAWING)
        page.load(None, js=_PRESS_DRAW, **QUIET)
        sized = [fields[name] for name in ("shape", "upright", "width", "height", "base")]
        size = [self.form.size, self.form.own_size]
        changed = [tab.select, *(one.change for one in sized)]
        gr.on(changed, self.size, inputs, size, trigger_mode="always_last", **QUIET)
        self._wire_draft()

    def _wire_draft(self) -> None:
        """Keeps what is typed: at once, and then as the server reads it. The fields come as one value: as inputs, each
        would slow down all later events, because gradio looks up each input of whatever has run.
        """
        states = [self.mix, self.sitting, self.form.fields["start"]]
        fields = sorted(self.form.inputs, key=attrgetter("_id"))  # the same order in each language's page
        typed, held = [one for one in fields if one not in states], gr.JSON(visible=False)

        def keep(raw: list[Any], *known: Any) -> dict[str, Any]:
            values = {field: field.preprocess(one) for field, one in zip(typed, raw, strict=True)}
            return self.keep(values | dict(zip(states, known, strict=True)))

        names = {field: name for name, field in self.form.fields.items() if name != "base"}
        names[self.form.new_seed] = "new_seed"
        changes = [one.change for one in (*fields, self.mix)]
        how: dict[str, Any] = {"trigger_mode": "always_last", **QUIET}
        at_once = _KEEP % json.dumps([names.get(one) for one in typed])
        told = gr.on(changes, None, [self.draft, *typed], [self.draft, held], js=at_once, **how)
        told.then(keep, [held, *states], self.draft, **how)

    def _wire_adapters(self, tab: gr.Tab) -> None:
        base_form, rows, adding = self.form.base_form, self.adapters.rows, self.adapters.adding
        listed = [*self.adapters.shown, *base_form.followed]
        base, prompt = base_form.base, self.form.fields["prompt"]
        tab.select(self.enter, [self.mix, base], listed, **QUIET)
        adding.select(self.add, [self.mix, adding, base], listed, **QUIET)
        filled = [prompt, *listed, self.sheet_fold, *self.sheet.fields]
        pressed = rows.click(self.row, [self.sitting, self.mix, base, prompt], filled, **QUIET)
        pressed.then(None, js=_FORGET_SHEET, **QUIET)
        pressed.then(self.drawing.draw_wanted, self.drawing.inputs | self.sheet.inputs, self.drawing.shown, **_DRAWING)
        rows.input(self.adapters.weigh_mix, self.mix, [self.mix, rows, self.adapters.message], **QUIET)
        base.input(base_form.follow, [self.mix, base], base_form.followed, **QUIET)
        sampler = self.form.fields["sampler"]
        sampler.change(lambda name: gr.update(info=about_sampler(name)), sampler, sampler, **QUIET)
        gr.on([prompt.blur, prompt.submit], self.tags, prompt, self.form.tags, **QUIET)
        tagged = self.form.tags.click(self.add_trigger, prompt, prompt, **QUIET)
        tagged.then(self.tags, prompt, self.form.tags, **QUIET)

    def _list(self, mix: Mix, base: str, problem: StudioError | None = None) -> Updates:
        return {**self.adapters.show(mix, problem), **self.form.base_form.offer(mix, base)}

    def enter(self, mix: Mix, base: str) -> Updates:
        """What is new when the page is opened: the library's adapters, and the names of runs."""
        known = {self.adapters.adding: self.adapters.choices()}
        return self._list(mix, base) if mix.follow(self.outputs) else known

    def add(self, mix: Mix, key: str | None, base: str) -> Updates:
        """Adds the chosen adapter."""
        try:
            return self._list(mix, self.adapters.add(mix, key or "", base))
        except StudioError as error:
            return self._list(mix, base, error)

    def row(self, sitting: Sitting, mix: Mix, base: str, prompt: str, event: gr.EventData) -> Updates:
        """A button of a row; or an adapter that the page's address names, which takes the place of the others, or a run
        whose states a sheet is to show.
        """
        key, field = str(event.key), self.form.fields["prompt"]
        if key.startswith(SHEET):
            return self._sheet_of(key.removeprefix(SHEET), sitting, mix)
        mix.weigh(getattr(event, "rows", None))
        row, act = mix.row(key), getattr(event, "act", None)
        try:
            if act == "remove":
                mix.remove(key)
            elif act == "trigger" and row:
                return {field: with_trigger(prompt, row.trigger)}
            elif act is None and row is None:
                mix.rows = []
                base = self.adapters.add(mix, key, base)
                return {**self._list(mix, base), field: with_trigger(prompt, mix.rows[0].trigger)}
        except StudioError as error:
            return self._list(mix, base, error)
        return self._list(mix, base)

    def _sheet_of(self, name: str, sitting: Sitting, mix: Mix) -> Updates:
        """The fields of a sheet of a run's states and its preview prompts, which is drawn then."""
        try:
            settings = runs.find(name, self.outputs).settings()
        except StudioError as error:
            return self._list(mix, "", error)
        mix.rows, sitting.sheet_wanted = [], True
        trigger = settings.run.trigger
        prompts = [one.replace("{trigger}", trigger).strip(" ,") for one in settings.previews.preview_prompts]
        listed = self._list(mix, settings.run.base)
        return {**listed, **self.sheet.of_run(name, prompts), self.sheet_fold: gr.update(open=True)}

    def tags(self, prompt: str | None) -> str:
        """What the prompt says of adapters, with their trigger words."""
        try:
            entries = library.entries(self.outputs)
            _, found = named.in_prompt(prompt or "", entries)
            found += named.embeddings_in([prompt or ""], entries, taken=[one.entry.path for one in found])
        except StudioError as error:
            return words.notice("warned", error.what, error.where, error.do)
        told = "".join(f"<span>{words.text(one.placed.name)} × {number(one.weight, 'g')}</span>" for one in found)
        missing = dict.fromkeys(
            one.entry.trigger for one in found if one.entry.trigger.lower() not in (prompt or "").lower()
        )
        told += "".join(map(_trigger, missing))
        return f'<p class="facts">{told}</p>' if told else ""

    def add_trigger(self, prompt: str | None, event: gr.EventData) -> str:
        """Puts a trigger word into the prompt."""
        return with_trigger(prompt, str(event.name))

    def size(self, values: dict[Any, Any]) -> Updates:
        """The size in pixels below the shapes."""
        asked = self.form.asked(values)
        own = asked.shape == sizes.OWN
        shown: Updates = {self.form.own_size: gr.update(visible=own)}
        try:
            size = order.size_of(asked, sizes.side_of(asked.base or "starter"))
        except StudioError:  # drawing says why
            return {**shown, self.form.size: ""}
        told = words.text(tr("{size} pixels", size=size.text))
        return {**shown, self.form.size: "" if own else f'<span class="hint">{told}</span>'}

    def keep(self, values: dict[Any, Any]) -> dict[str, Any]:
        """What the browser keeps for a reload."""
        asked = self.form.asked(values)._asdict()
        return {
            **asked,
            "new_seed": values[self.form.new_seed],
            "rows": values[self.mix].draft(),
            "lane": values[self.sitting].own_lane(),
        }

    def restore(self, values: dict[Any, Any]) -> Updates:
        """What this browser's user had typed before a reload or a restart, without what has gone meanwhile."""
        draft, mix, sitting = values[self.draft], values[self.mix], values[self.sitting]
        draft = draft if isinstance(draft, dict) else {}
        sitting.own_lane(draft.get("lane"))
        self.adapters.restore(mix, draft.get("rows"))
        fields = self.form.fields
        kept = {name: draft[name] for name in fields if name in draft and name not in ("base", "start")}
        typed = self.form.fill(kept | self._kept_start(draft.get("start")))
        if "new_seed" in draft:
            typed[self.form.new_seed] = bool(draft["new_seed"])
        listed = self._list(mix, str(draft.get("base") or values[fields["base"]]))
        return {**typed, **listed, **self.form.base_form.restore(draft.get("base_read")), self.sitting: sitting}

    def _kept_start(self, path: object) -> dict[str, str]:
        """The picture to start from, if it is still there."""
        try:
            return {"start": str(starts.checked(str(path), self.outputs))} if path else {}
        except StudioError:
            return {}


def _trigger(word: str) -> str:
    """A button that puts a trigger word into the prompt."""
    text, title = words.text(word), words.text(tr("Put this word into the prompt"))
    return f'<button type="button" class="chip" data-act="trigger" data-name="{text}" title="{title}">{text}</button>'
