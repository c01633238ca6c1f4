"""The handlers that draw: the mix, first roughly, then well, and the same image without adapters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr

from lora_studio.errors import RunError, StudioError
from lora_studio.jobs import turns
from lora_studio.jobs.renderer import Answer, Renderer
from lora_studio.language import tr
from lora_studio.ui import outcome, words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.mix import figures, image_specs
from lora_studio.ui.pages.mix.blend_form import BlendForm
from lora_studio.ui.pages.mix.image_specs import ChosenBlend, Scene
from lora_studio.ui.pages.mix.scene_form import SceneForm
from lora_studio.ui.pages.mix.sheet_form import SheetForm
from lora_studio.ui.scene.mixture import Mix


@dataclass
class MixDrawing:
    """What the page draws with and where it shows it."""

    outputs: Path
    renderer: Renderer
    mix: gr.State
    scene: SceneForm
    blend: BlendForm
    sheet: SheetForm
    figures: gr.HTML
    note: gr.HTML
    again: gr.Timer
    """Ticks while images wait for what is at work."""
    draft: gr.BrowserState
    """Where the browser keeps the mix."""

    @property
    def inputs(self) -> set[Any]:
        """What an image depends on."""
        return {self.mix, *self.scene.inputs, *self.blend.inputs}

    @property
    def outputs_drawn(self) -> list[Any]:
        """What ``draw``, ``first`` and ``retry`` change."""
        return [self.figures, self.note, self.blend.cost, self.again, self.draft]

    def draw(self, values: dict[Any, Any]) -> Iterator[Updates]:
        """Draws the mix and the base model's own image, unless a newer request comes meanwhile."""
        mix = values[self.mix]
        mix.turn, mix.lane = mix.turn + 1, mix.lane or uuid4().hex
        turn = mix.turn
        if not mix.rows:
            mix.mixed = mix.plain = ""
            yield {self.figures: figures.empty(), self.note: "", self.blend.cost: "", self.draft: self._draft(values)}
            return
        yield {
            self.figures: gr.skip() if mix.mixed else figures.html(mix),
            self.note: self._busy(),
            self.draft: self._draft(values),
        }
        try:
            for updates in self._images(mix, self.scene.scene(values), self.blend.chosen(values)):
                if mix.turn != turn:
                    break
                yield updates
        except StudioError as error:
            if mix.turn == turn:
                yield self._failed(mix, error)

    def first(self, values: dict[Any, Any]) -> Iterator[Updates]:
        """Draws a mix that was restored, when its room is entered."""
        mix = values[self.mix]
        if mix.rows and not mix.turn:
            yield from self.draw(values)

    def retry(self, values: dict[Any, Any]) -> Iterator[Updates]:
        """Draws once that is possible again."""
        if not self.renderer.waits():
            yield from self.draw(values)

    def draw_sheet(self, values: dict[Any, Any]) -> Iterator[Any]:
        """Draws the sheet that is asked for."""
        mix = values[self.mix]

        def act() -> str:
            mix.lane = mix.lane or uuid4().hex
            scene, spread = self.scene.scene(values), self.sheet.spread(values)
            spec = image_specs.sheet(mix, scene, self.sheet.keys(values), spread)
            *_, drawn = self.renderer.draw(spec, f"{mix.lane} sheet")
            if drawn.kind == "dropped":
                raise RunError(tr("Another sheet was asked for before this one was drawn."), do=tr("Draw it again."))
            return figures.sheet(drawn, values[self.sheet.kind])

        yield from outcome.told(turns.told(self.outputs, tr("Drawing the sheet")), act)

    def _busy(self, doing: str = tr("Drawing")) -> str:
        return outcome.busy(turns.told(self.outputs, doing))

    def _draft(self, values: dict[Any, Any]) -> dict[str, Any]:
        """What the browser keeps for a reload."""
        scene = self.scene.scene(values)
        rows = values[self.mix].draft()
        typed = {"prompt": scene.prompt, "seed": scene.seed, "base": scene.base, "base_read": scene.base_read}
        return {"rows": rows, **typed}

    def _failed(self, mix: Mix, error: StudioError) -> Updates:
        """The reason beside the last images; a run that has the machine is waited for."""
        waits = isinstance(error, RunError)
        notice = words.notice("warned" if waits else "wrong", error.what, error.where, error.do)
        return {self.figures: figures.html(mix), self.note: notice, self.again: gr.update(active=waits)}

    def _images(self, mix: Mix, scene: Scene, chosen: ChosenBlend) -> Iterator[Updates]:
        """The mix's image, then the base model's."""
        plain, blending = image_specs.plain(mix, scene), image_specs.blending(chosen)
        if plain.key() != mix.scene:
            mix.scene, mix.plain = plain.key(), ""  # it had another prompt or seed
        note = ""
        for answer in self.renderer.draw(image_specs.mixed(mix, scene, blending), f"{mix.lane} mix"):
            if answer.kind == "waiting":
                yield {self.note: self._busy(tr("Waiting for a turn"))}
            elif answer.kind == "loading":
                yield {self.note: self._busy(tr("Loading the base model"))}
            elif answer.kind == "drawn":
                mix.mixed, note = answer.path, figures.caption(answer, scene)
                yield self._mixed(mix, answer, note, is_blend=blending is not None)
        for answer in self.renderer.draw(plain, f"{mix.lane} plain"):
            if answer.kind == "drawn":
                mix.plain = answer.path
                yield {self.figures: figures.html(mix), self.note: note}

    def _mixed(self, mix: Mix, answer: Answer, note: str, is_blend: bool) -> Updates:
        shown: Updates = {self.figures: figures.html(mix), self.again: gr.update(active=False)}
        if not answer.last:
            return {**shown, self.note: self._busy()}
        return {**shown, self.note: note, self.blend.cost: figures.cost(mix, answer if is_blend else None)}
