"""What can be done with a picture: look at it, compare, star, delete, and use what it was drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.errors import StudioError
from lora_studio.language import tr
from lora_studio.runs import gallery
from lora_studio.sampling import picture_file
from lora_studio.sampling.picture_recipe import Stated
from lora_studio.ui import outcome, words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.draw import stage, starts, taking
from lora_studio.ui.pages.draw.drawing import PageDrawing
from lora_studio.ui.pages.draw.sitting import Sitting
from lora_studio.ui.scene.adapter_list import AdapterList
from lora_studio.ui.scene.mixture import Mix


class PictureActs:
    """The handlers of the large picture and of the gallery.

    Args:
        taken: where it is told what of a dropped picture's settings was taken over.
    """

    def __init__(self, drawing: PageDrawing, adapters: AdapterList, taken: gr.HTML):
        self.drawing, self.adapters, self.taken = drawing, adapters, taken
        self.outputs, self.form, self.shelf = drawing.outputs, drawing.form, drawing.shelf

    @property
    def inputs(self) -> set[Any]:
        """What ``act`` and ``fill`` depend on."""
        return {self.drawing.sitting, self.drawing.mix, self.form.fields["base"]}

    @property
    def seen(self) -> list[Any]:
        """What ``choose`` changes."""
        return [self.drawing.sitting, self.drawing.stage, self.drawing.note, *self.shelf.shown]

    @property
    def filled(self) -> list[Any]:
        """What ``fill`` changes."""
        return [*self.adapters.shown, *self.form.filled, *self.form.base_form.followed, self.taken]

    def see(self, sitting: Sitting) -> Updates:
        """The large picture and the gallery."""
        drawing = self.drawing.easel.drawing(sitting.lane)
        large = stage.html(sitting, drawing, self.outputs)
        return {self.drawing.sitting: sitting, self.drawing.stage: large, **self.shelf.draw(sitting)}

    def enter(self, sitting: Sitting) -> Updates:
        """The latest picture, unless one is chosen or forms."""
        if not sitting.chosen and not sitting.watching:
            sitting.chosen = next((one.name for one in gallery.listed(self.outputs)), "")
        return self.see(sitting)

    def choose(self, sitting: Sitting, event: gr.EventData) -> Updates:
        """Shows the picture that was pressed."""
        sitting.choose(str(event.name))
        return {**self.see(sitting), self.drawing.note: ""}

    def act(self, values: dict[Any, Any], event: gr.EventData) -> Updates:
        """A button below the large picture."""
        sitting, name = values[self.drawing.sitting], str(event.name)
        try:
            return {self.drawing.note: "", **self._acted(values, sitting, str(event.act), name, bool(event.on))}
        except StudioError as error:
            return {**self.see(sitting), self.drawing.note: outcome.wrong(error)}

    def _acted(self, values: dict[Any, Any], sitting: Sitting, act: str, name: str, on: bool) -> Updates:
        match act:
            case "use":
                return self.fill(values, picture_file.read(gallery.found(name, self.outputs)), self.drawing.note)
            case "start":
                return self._start(gallery.found(name, self.outputs))
            case "star":
                gallery.star(name, on, self.outputs)
            case "delete" if gallery.find(name, self.outputs):  # else it was pressed twice
                self.shelf.delete(sitting, name)
            case "compare":
                sitting.comparing = on
            case "beside" | "over":
                sitting.beside = act == "beside"
            case "single":
                sitting.other = ""
        return self.see(sitting)

    def _start(self, path: Path) -> Updates:
        kept = str(starts.keep(path, self.outputs))
        said = outcome.done(tr("The next picture starts from this one."), tr("How much it changes is set in the form."))
        return {**self.form.fill({"start": kept}), self.form.start_fold: gr.update(open=True), self.drawing.note: said}

    def start_from(self, uploaded: str | None) -> Updates:
        """The picture that was dropped, pasted or taken away again."""
        start, note = self.form.fields["start"], self.drawing.note
        if not uploaded:
            return {start: "", note: ""}
        try:
            return {start: str(starts.keep(Path(uploaded), self.outputs)), note: ""}
        except StudioError as error:
            return {start: "", note: outcome.wrong(error)}

    def take(self, values: dict[Any, Any], dropped: gr.File) -> Updates:
        """The settings of a picture that was dropped."""
        try:
            stated = picture_file.read(Path(str(values[dropped])))
        except StudioError as error:
            told = words.notice("wrong", error.what, "", error.do)  # its path is that of the copy which was sent here
            return {dropped: None, self.taken: gr.update(value=told, visible=True)}
        return {dropped: None, **self.fill(values, stated, self.taken)}

    def fill(self, values: dict[Any, Any], stated: Stated, at: gr.HTML) -> Updates:
        """The fields with what a picture tells; what they cannot take is named ``at`` a place in sight."""
        mix: Mix = values[self.drawing.mix]
        base = self.form.fields["base"]
        taken = taking.take(stated, mix, values[base] or "", self.outputs)
        offered = self.form.base_form.offer(mix, taken.fields["base"])
        read = self.form.base_form.fill(taken.base_read) if taken.base_read is not None else {}
        fields = {key: value for key, value in taken.fields.items() if key != "base"}
        return {
            **self.adapters.show(mix),
            **self.form.fill(fields),
            **offered,
            **read,
            self.form.new_seed: False,
            self.taken: gr.update(visible=False),
            at: gr.update(value=_said(taken.left), visible=True),
        }

    def to_mix(self, sitting: Sitting, event: gr.EventData) -> Mapping[str, Any] | None:
        """What the page Mix is to show of the picture whose button ``mix`` was pressed; None for other buttons."""
        if event.act != "mix":
            return None
        stated = picture_file.read(gallery.found(str(event.name), self.outputs))
        mix = Mix()
        taken = taking.take(stated, mix, "starter", self.outputs)
        told = {key: taken.fields[key] for key in ("prompt", "seed", "base") if key in taken.fields}
        return {**told, "rows": mix.draft(), "base_read": taken.base_read or {}}


def _said(left: list[str]) -> str:
    done = outcome.done(tr("The form has the settings of this picture."))
    if not left:
        return done
    listed = "".join(f"<li>{words.text(one)}</li>" for one in dict.fromkeys(left))
    title = words.text(tr("Not taken over"))
    return f'{done}<div class="notice warned" role="note"><b>{title}</b><ul>{listed}</ul></div>'
