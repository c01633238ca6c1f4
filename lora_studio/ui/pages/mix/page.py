"""The Mix page: adapters and weights on the left, what they draw on the right. Bound together here."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr

from lora_studio.config.settings import SPECS
from lora_studio.errors import AdapterError, RunError, StudioError
from lora_studio.jobs import runner
from lora_studio.jobs.renderer import Renderer
from lora_studio.runs import library
from lora_studio.ui import images, outcome, words
from lora_studio.ui.outcome import WORK
from lora_studio.ui.pages.library import cards
from lora_studio.ui.pages.mix import pictures, rows, saving
from lora_studio.ui.pages.mix.pictures import Method, Scene
from lora_studio.ui.pages.mix.rows import Mix
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

_DRAWING: dict[str, Any] = {**WORK, "trigger_mode": "multiple", "concurrency_limit": None}
"""A newer picture is asked for while an older one is drawn; the renderer leaves that one then."""
_AGAIN = 3.0
"""Seconds between two looks whether the run that pictures wait for has ended."""
_FIRST_SHEETS = {"strip": (0.0, 1.5, 7), "grid": (0.0, 1.5, 4)}
_SEEN = tuple[Any, ...]


class MixPage:
    """The page's parts and handlers.

    Args:
        draft: where the browser keeps the mix; it must stand outside the rooms, which the browser makes only when they
            are entered.
    """

    def __init__(self, outputs: Path, draft: gr.BrowserState):
        self.outputs, self.draft = outputs, draft
        self.renderer = Renderer(outputs, images.folder(outputs) / "mix")
        self.mix = gr.State(Mix())
        with gr.Row(elem_classes="halves", equal_height=False):
            with gr.Column(scale=5, min_width=330, elem_classes="half"):
                self._place_rows()
                self._place_scene()
            with gr.Column(scale=8, min_width=330, elem_classes="half", elem_id="mixed"):
                with gr.Column(elem_classes="card seen"):
                    self.pictures = html(pictures.EMPTY, elem_id="mix-pictures")
                    self.note = html(elem_id="mix-note")
                with gr.Column(elem_classes="card", visible=False) as self.blend_card:
                    self._place_blend()
                with gr.Column(elem_classes="card", visible=False) as self.sheet_card:
                    self._place_sheet()
        self.again = gr.Timer(_AGAIN, active=False)

    def _place_rows(self) -> None:
        with gr.Column(elem_classes="card"):
            html("<h2>Adapters</h2>")
            with gr.Column(elem_classes="fields"):
                self.adding = gr.Dropdown(
                    [], label="Add an adapter", info="Type to search your library.", elem_id="mix-add"
                )
            self.rows = html(rows.html(Mix()), js_on_load=rows.CHANGE, elem_id="mix-rows")
            self.said = html(visible=False, elem_id="mix-said")

    def _place_scene(self) -> None:
        with gr.Column(elem_classes="card"):
            html("<h2>Picture</h2>")
            self.prompt = gr.Textbox(pictures.PROMPT, label="Prompt", max_lines=3, elem_id="mix-prompt")
            with gr.Row(elem_classes="seeded", equal_height=True):
                self.seed = gr.Number(
                    SPECS["preview_seed"].default, label="Seed", precision=0, min_width=90, elem_id="mix-seed"
                )
                self.reseed = gr.Button("New seed", size="md", min_width=100, elem_id="mix-reseed")
            help = "The adapters' own kind: the built-in starter, or the path of a model of yours."
            self.base = gr.Dropdown(
                pictures.bases(self.outputs, ""),
                value="starter",
                label="Base model",
                info=help,
                allow_custom_value=True,
                elem_id="mix-base",
            )
            with (
                gr.Accordion("More", open=False, elem_classes="fold", elem_id="mix-more"),
                gr.Column(elem_classes="fields"),
            ):
                self.steps = gr.Number(
                    SPECS["preview_steps"].default,
                    label="Steps",
                    info="Denoising steps.",
                    precision=0,
                    elem_id="mix-steps",
                )
                self.guidance = gr.Number(
                    SPECS["guidance"].default,
                    label="Guidance",
                    info="How strictly it follows the prompt.",
                    elem_id="mix-guidance",
                )
                self.negative = gr.Textbox(
                    label="Negative prompt", info="What it should avoid.", max_lines=2, elem_id="mix-negative"
                )

    def _place_blend(self) -> None:
        html("<h2>Save as one adapter</h2>")
        choices = [(label, name) for name, (label, _) in saving.METHODS.items()]
        self.method = gr.Radio(choices, value="exact", show_label=False, container=False, elem_id="mix-method")
        self.about = html(_about("exact"))
        with gr.Column(elem_classes="fields"):
            self.rank = gr.Number(
                0, label="Rank", info="0 keeps all that the method leaves.", precision=0, elem_id="mix-rank"
            )
            self.density = gr.Slider(
                0.05,
                1,
                value=0.5,
                step=0.05,
                label="Share kept",
                info="Of each adapter's entries.",
                visible=False,
                elem_id="mix-density",
            )
            self.draw_seed = gr.Number(
                0,
                label="DARE's seed",
                info="Decides which are dropped.",
                precision=0,
                visible=False,
                elem_id="mix-dare",
            )
        self.cost = html(elem_id="mix-cost")
        with gr.Row(elem_classes="seeded", equal_height=True):
            self.name = gr.Textbox(
                label="Name",
                placeholder="the adapters and their weights",
                max_lines=1,
                min_width=180,
                elem_id="mix-name",
            )
            self.save = gr.Button(
                "Save to the library", variant="primary", size="md", min_width=160, elem_id="mix-save"
            )
        self.saved = html(visible=False, elem_id="mix-saved")

    def _place_sheet(self) -> None:
        html("<h2>Sheets</h2>")
        self.kind = gr.Radio(
            [("Strip: one adapter, rising weight", "strip"), ("Grid: two adapters crossed", "grid")],
            value="strip",
            show_label=False,
            container=False,
            elem_id="mix-kind",
        )
        start, stop, count = _FIRST_SHEETS["strip"]
        with gr.Column(elem_classes="fields tight"):
            self.across = gr.Dropdown([], label="Adapter across", elem_id="mix-across")
            self.down = gr.Dropdown([], label="Adapter down", visible=False, elem_id="mix-down")
            self.start = gr.Number(start, label="From weight", elem_id="mix-from")
            self.stop = gr.Number(stop, label="To weight", elem_id="mix-to")
            self.count = gr.Number(count, label="How many", precision=0, elem_id="mix-count")
        with gr.Row(elem_classes="controls"):
            self.draw_sheet = gr.Button("Draw the sheet", size="md", min_width=130, elem_id="mix-sheet")
        self.sheet = html(visible=False, elem_id="mix-sheet-drawn")

    @property
    def _fields(self) -> set[Any]:
        """What a picture depends on."""
        scene = (self.base, self.prompt, self.negative, self.seed, self.steps, self.guidance)
        return {self.mix, *scene, self.method, self.rank, self.density, self.draw_seed}

    @property
    def _drawn(self) -> list[Any]:
        return [self.pictures, self.note, self.cost, self.again, self.draft]

    @property
    def _listed(self) -> list[Any]:
        """What follows which adapters are in the mix."""
        return [
            self.mix,
            self.adding,
            self.rows,
            self.said,
            self.base,
            self.blend_card,
            self.sheet_card,
            self.across,
            self.down,
        ]

    def wire(self, tab: gr.Tab, page: gr.Blocks) -> None:
        """Binds everything; ``tab`` is the page's own."""
        drawing = {"inputs": self._fields, "outputs": self._drawn, **_DRAWING}
        listing = {"outputs": self._listed, **QUIET}
        tab.select(self._choices, None, self.adding, **QUIET)
        tab.select(self.renderer.warm, None, None, **QUIET)
        tab.select(self.first, **drawing)
        page.load(self.restore, [self.mix, self.draft, self.base], [self.prompt, self.seed, *self._listed], **QUIET)
        self.adding.select(self.add, [self.mix, self.adding, self.base], **listing).then(self.draw, **drawing)
        acted = self.rows.click(
            self.act, [self.mix, self.base, self.prompt], outputs=[self.prompt, self.method, *self._listed], **QUIET
        )
        acted.then(self.draw, **drawing)
        self.rows.input(self.weigh, self._fields, [self.rows, self.said, *self._drawn], **_DRAWING)
        self.reseed.click(lambda: random.randrange(2**31), None, self.seed, **QUIET).then(self.draw, **drawing)
        typed = (self.prompt, self.negative)
        gr.on([event for field in typed for event in (field.submit, field.blur)], self.draw, **drawing)
        numbers = (self.seed, self.steps, self.guidance, self.rank, self.draw_seed)
        gr.on([event for field in numbers for event in (field.submit, field.blur)], self.draw, **drawing)
        gr.on([self.base.input, self.density.release], self.draw, **drawing)
        self.method.change(_method_fields, self.method, [self.about, self.density, self.draw_seed], **QUIET).then(
            self.draw, **drawing
        )
        self.again.tick(self.retry, **drawing)
        self.kind.change(self._sheet_fields, self.kind, [self.down, self.start, self.stop, self.count], **QUIET)
        side = {self.kind, self.across, self.down, self.start, self.stop, self.count}
        self.draw_sheet.click(self.drawn_sheet, self._fields | side, self.sheet, **WORK)
        kept = {"inputs": self._fields | {self.name}, "outputs": [self.saved, self.adding], **WORK}
        self.save.click(self.keep, **kept)

    def _choices(self) -> Any:
        return gr.update(choices=cards.choices(library.entries(self.outputs), self.outputs), value=None)

    def _after(self, mix: Mix, base: str, said: str = "") -> list[Any]:
        """Updates of ``_listed``."""
        offered = pictures.bases(self.outputs, mix.family)
        known = {name for _, name in offered}
        fits = base in known or (base != "starter" and bool(base))
        named, keys = [(row.name, row.key) for row in mix.rows], [row.key for row in mix.rows]
        shown = gr.update(visible=bool(mix.rows))
        return [
            mix,
            self._choices(),
            rows.html(mix),
            gr.update(value=said, visible=bool(said)),
            gr.update(choices=offered, value=base if fits else next(iter(known), "")),
            shown,
            shown,
            gr.update(choices=named, value=keys[0] if keys else None),
            gr.update(choices=named, value=keys[1] if len(keys) > 1 else None),
        ]

    def restore(self, mix: Mix, draft: Any, base: str) -> list[Any]:
        """What this browser's user had mixed, after a reload or a restart; without what has gone meanwhile."""
        draft = draft if isinstance(draft, dict) else {}
        rows_kept = draft.get("rows")
        kept = [one for one in rows_kept if isinstance(one, dict)] if isinstance(rows_kept, list) else []
        for one in kept:
            with contextlib.suppress(StudioError):
                self._add(mix, str(one.get("key")))
        mix.weigh(kept)
        typed = [gr.update(value=draft[name]) if name in draft else gr.skip() for name in ("prompt", "seed")]
        return [*typed, *self._after(mix, draft.get("base") or base)]

    def add(self, mix: Mix, key: str | None, base: str) -> list[Any]:
        """Puts the chosen adapter into the mix."""
        said = ""
        try:
            self._add(mix, key or "")
        except StudioError as error:
            said = words.notice("wrong", error.what, error.where, error.do)
        return self._after(mix, base, said)

    def _add(self, mix: Mix, key: str) -> None:
        entry = cards.find(key, self.outputs)
        if entry is None:
            raise AdapterError("This adapter has gone.", where=key, do="Choose another: it was moved or deleted.")
        mix.add(entry, self.outputs)

    def act(self, mix: Mix, base: str, prompt: str, event: gr.EventData) -> list[Any]:
        """A button of a row: out with it, apart, or its trigger into the prompt; or an adapter that the page's address
        names.
        """
        key = str(event.key)
        mix.weigh(getattr(event, "rows", None))
        said, method = "", gr.skip()
        row = mix.row(key)
        try:
            match getattr(event, "act", None):
                case "remove":
                    mix.remove(key)
                case "apart":
                    recipe = rows.apart(mix, key, self.outputs)
                    method = (
                        recipe.method
                        if recipe.method in saving.METHODS and len(mix.rows) == len(recipe.ingredients)
                        else "exact"
                    )
                case "trigger" if row and row.trigger not in (prompt or ""):
                    prompt = f"{row.trigger}, {prompt}" if prompt else row.trigger
                case None if row is None:
                    self._add(mix, key)
        except StudioError as error:
            said = words.notice("wrong", error.what, error.where, error.do)
        return [prompt, method, *self._after(mix, base, said)]

    def weigh(self, values: dict[Any, Any], event: gr.EventData) -> Iterator[_SEEN]:
        """Other weights: takes them over, then draws."""
        mix = values[self.mix]
        said = mix.weigh(getattr(event, "rows", None))
        notices = gr.update(value="".join(words.notice("warned", one) for one in said), visible=bool(said))
        mended = rows.html(mix) if said else gr.skip()  # what is being moved is not drawn anew
        for seen in self.draw(values):
            yield mended, notices, *seen
            mended = notices = gr.skip()

    def draw(self, values: dict[Any, Any]) -> Iterator[_SEEN]:
        """The mix's picture, rough and good, then the base model's own; whatever a newer turn draws is left to it."""
        mix = values[self.mix]
        mix.turn, mix.lane = mix.turn + 1, mix.lane or uuid4().hex
        turn = mix.turn
        skipped = (gr.skip(),) * len(self._drawn)
        if not mix.rows:
            mix.mixed = mix.plain = ""
            yield pictures.EMPTY, "", "", gr.skip(), {}
            return
        draft = {
            "rows": mix.kept(),
            **{
                name: values[field]
                for name, field in (("prompt", self.prompt), ("seed", self.seed), ("base", self.base))
            },
        }
        yield gr.skip() if mix.mixed else pictures.html(mix), outcome.busy("Drawing…"), gr.skip(), gr.skip(), draft
        try:
            for seen in self._two(mix, self._scene(values), self._method(values)):
                if mix.turn != turn:
                    break
                yield seen
        except StudioError as error:
            if mix.turn == turn:
                waits = isinstance(error, RunError)
                yield (
                    pictures.html(mix),
                    words.notice("warned" if waits else "wrong", error.what, error.where, error.do),
                    gr.skip(),
                    gr.update(active=waits),
                    gr.skip(),
                )
        if mix.turn != turn:
            yield skipped

    def _two(self, mix: Mix, scene: Scene, method: Method) -> Iterator[_SEEN]:
        """Updates for the mix's picture, then for the base model's."""
        plain, how = pictures.plain(mix, scene), pictures.blending(method)
        if plain.key() != mix.scene:
            mix.scene, mix.plain = plain.key(), ""  # it was of another prompt or seed
        note = ""
        for answer in self.renderer.draw(pictures.order(mix, scene, how), f"{mix.lane} mix"):
            if answer.kind == "loading":
                yield gr.skip(), outcome.busy("Loading the base model…"), gr.skip(), gr.skip(), gr.skip()
            elif answer.kind == "drawn":
                mix.mixed, note = answer.path, pictures.told(answer, scene)
                cost = pictures.cost(mix, method, answer if how else None) if answer.last else gr.skip()
                yield (
                    pictures.html(mix),
                    note if answer.last else outcome.busy("Drawing…"),
                    cost,
                    gr.update(active=False),
                    gr.skip(),
                )
        for answer in self.renderer.draw(plain, f"{mix.lane} plain"):
            if answer.kind == "drawn":
                mix.plain = answer.path
                yield pictures.html(mix), note, gr.skip(), gr.skip(), gr.skip()

    def first(self, values: dict[Any, Any]) -> Iterator[_SEEN]:
        """Draws a mix that was restored, when its room is entered."""
        mix = values[self.mix]
        if mix.rows and not mix.turn:
            yield from self.draw(values)
        else:
            yield (gr.skip(),) * len(self._drawn)

    def retry(self, values: dict[Any, Any]) -> Iterator[_SEEN]:
        """Draws once the run that pictures wait for has ended."""
        if runner.active(self.outputs):
            yield (gr.skip(),) * len(self._drawn)
        else:
            yield from self.draw(values)

    def _scene(self, values: dict[Any, Any]) -> Scene:
        return Scene(
            *(values[field] for field in (self.base, self.prompt, self.negative, self.seed, self.steps, self.guidance))
        )

    def _method(self, values: dict[Any, Any]) -> Method:
        return Method(*(values[field] for field in (self.method, self.rank, self.density, self.draw_seed)))

    @staticmethod
    def _sheet_fields(kind: str) -> list[Any]:
        start, stop, count = _FIRST_SHEETS[kind]
        return [gr.update(visible=kind == "grid"), start, stop, count]

    def drawn_sheet(self, values: dict[Any, Any]) -> Iterator[Any]:
        """The sheet that is asked for."""
        mix, chosen = values[self.mix], (values[self.across], values[self.down])
        names = chosen if values[self.kind] == "grid" else chosen[:1]

        def act() -> str:
            mix.lane = mix.lane or uuid4().hex
            order = pictures.sheet_order(
                mix, self._scene(values), names, tuple(values[field] for field in (self.start, self.stop, self.count))
            )
            *_, drawn = self.renderer.draw(order, f"{mix.lane} sheet")
            if drawn.kind == "dropped":
                raise RunError("The sheet was left for another one.", do="Draw it again.")
            return pictures.sheet(drawn, values[self.kind])

        yield from outcome.told("Drawing the sheet…", act)

    def keep(self, values: dict[Any, Any]) -> Iterator[_SEEN]:
        """Saves the mix as one adapter."""

        def act() -> str:
            return saving.save(values[self.mix], self._method(values), values[self.name] or "", self.outputs)

        for seen in outcome.told("Blending, saving and proving…", act):
            yield seen, self._choices()


def _about(method: str) -> str:
    return f'<p class="blurb">{words.text(saving.METHODS[method][1])}</p>'


def _method_fields(method: str) -> list[Any]:
    return [_about(method), gr.update(visible=method in saving.DENSE), gr.update(visible=method == "dare")]
