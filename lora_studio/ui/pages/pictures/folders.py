"""Options of the dataset's folders: repeats, weight, caption, noise levels, and whether they hold class pictures."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import TypeAdapter, ValidationError

from lora_studio.curation.collection import Collection
from lora_studio.dataset import preparation
from lora_studio.dataset.preparation import MAX_REPEATS, MAX_WEIGHT, NOISE_LEVELS, FolderOptions
from lora_studio.errors import SettingsError
from lora_studio.language import number, tr
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

_OPTIONS = TypeAdapter(FolderOptions)
_HIDDEN, _SHOWN = gr.update(visible=False), gr.update(visible=True)
_EDIT = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-folder]');
  if (button) trigger('click', {folder: button.dataset.folder});
});
"""
_INTO_VIEW = """
const show = () => setTimeout(() => { if (element.checkVisibility()) element.scrollIntoView({block: 'center'}); }, 50);
watch('value', show);
show();
"""
_WRONG = {
    "repeats": tr("Repeats must be a whole number from 1 to {most:,}, or empty.", most=MAX_REPEATS),
    "weight": tr("The weight must be a number from 0 to {most:g}.", most=MAX_WEIGHT),
    "timesteps": tr(
        "Noise levels run from 0 to {most:,}, the first below the second; leave both empty for all.",
        most=NOISE_LEVELS,
    ),
}


class Folders:
    """The fold with a table of the folders, and the form of one."""

    def __init__(self, room: Room):
        self.room = room
        with (
            gr.Column(elem_classes="card"),
            gr.Accordion(tr("Folders"), open=False, elem_classes="fold first") as self.fold,
        ):
            self.table = html(js_on_load=_EDIT, elem_id="folders")
            with gr.Column(visible=False, elem_id="folder-form") as self.form:
                self._place_form()
        room.shows(self.draw, [self.fold, self.table, *self._opened])

    def _place_form(self) -> None:
        self.folder = gr.State("")
        self.heading = html(js_on_load=_INTO_VIEW)
        with gr.Column(elem_classes="fields tight"):
            self.repeats = gr.Number(
                None,
                label=tr("Repeats"),
                info=tr("Times in an epoch; empty for what its name says."),
                elem_id="folder-repeats",
            )
            self.weight = gr.Number(
                1.0, label=tr("Weight"), info=tr("Its loss is multiplied by this."), elem_id="folder-weight"
            )
            self.lowest = gr.Number(
                None,
                label=tr("Noise from"),
                info=tr("Of {most:,}; 0 is no noise.", most=NOISE_LEVELS),
                elem_id="folder-lowest",
            )
            self.highest = gr.Number(
                None, label=tr("Noise to"), info=tr("Low: details. High: composition."), elem_id="folder-highest"
            )
        self.prefix = gr.Textbox(
            label=tr("Caption prefix"), info=tr("In front of each caption."), max_lines=1, elem_id="folder-prefix"
        )
        self.caption = gr.Textbox(
            label=tr("Caption"), info=tr("Of pictures without one."), max_lines=1, elem_id="folder-caption"
        )
        self.regularisation = gr.Checkbox(
            label=tr("Class pictures"),
            info=tr("They remind the model of what it knows, and do not show the style (regularisation)."),
            elem_id="folder-regularisation",
        )
        self.wrong = html(visible=False)
        with gr.Row(elem_classes="controls"):
            self.save = gr.Button(tr("Save"), variant="primary", size="md", min_width=80, elem_id="folder-save")
            self.cancel = gr.Button(tr("Cancel"), size="md", min_width=80, elem_id="folder-cancel")

    @property
    def _fields(self) -> list[Any]:
        return [
            self.repeats,
            self.weight,
            self.prefix,
            self.caption,
            self.lowest,
            self.highest,
            self.regularisation,
        ]

    @property
    def _opened(self) -> list[Any]:
        return [self.form, self.folder, self.heading, self.wrong, *self._fields]

    def wire(self) -> None:
        """Binds the table and the form."""
        self.table.click(self.open, self.room.look, self._opened, **QUIET)
        self.cancel.click(lambda: _HIDDEN, None, self.form, **QUIET)
        self.room.edits(
            self.save.click, self.keep, inputs=[self.folder, *self._fields], outputs=[self.form, self.wrong]
        )

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The table, and the form of the folder that another panel asks for."""
        chosen, _ = preparation.read(collection.dataset.folder)
        counts = picture_counts(collection, chosen.folders)
        named = tr("Folders · {count:,}", count=len(counts)) if len(counts) > 1 else tr("Options of this folder")
        drawn = {self.fold: gr.update(label=named), self.table: table(counts, chosen.folders, collection)}
        asked, look.folder_form = look.folder_form, None
        if asked is None:
            return drawn
        return {**drawn, **self._form_of(look, asked), self.fold: gr.update(label=named, open=True)}

    def open(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """The form with the options of the folder whose button was pressed."""
        return self._form_of(look, str(event.folder))

    def _form_of(self, look: PicturesLook, name: str) -> Updates:
        chosen, _ = preparation.read(Path(look.folder))
        own = chosen.folders.get(name, FolderOptions())
        lowest, highest = own.timesteps or (None, None)
        values = (own.repeats, own.weight, own.prefix, own.caption, lowest, highest, own.regularisation)
        return {
            self.form: _SHOWN,
            self.folder: name,
            self.heading: f"<h3>{words.text(_title(name))}</h3>",
            self.wrong: _HIDDEN,
            **{field: gr.update(value=value) for field, value in zip(self._fields, values, strict=True)},
        }

    def keep(self, look: PicturesLook, name: str, *values: Any) -> Updates:
        """Saves the form. An invalid field is named, and all stay as they were typed."""
        try:
            options = read(*values)
        except SettingsError as error:
            return {self.wrong: gr.update(value=words.notice("wrong", error.what), visible=True)}
        self.room.changed(look, self.room.workbench(look).set_folder(name, options))
        return {self.form: _HIDDEN, self.wrong: _HIDDEN}


def read(
    repeats: float | None,
    weight: float | None,
    prefix: str | None,
    caption: str | None,
    lowest: float | None,
    highest: float | None,
    regularisation: bool,
) -> FolderOptions:
    """The options of the form's values.

    Raises:
        SettingsError: a value is out of range.
    """
    levels = (lowest, highest)
    raw = {
        "repeats": _whole(repeats),
        "weight": 1.0 if weight is None else float(weight),
        "prefix": (prefix or "").strip(),
        "caption": (caption or "").strip(),
        "timesteps": None if levels == (None, None) else [_whole(level) for level in levels],
        "regularisation": bool(regularisation),
    }
    try:
        return _OPTIONS.validate_json(json.dumps(raw))
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise SettingsError(_WRONG.get(field, tr("{field} is invalid.", field=field)), where=field) from None


def _whole(typed: float | None) -> float | None:
    """A field's number as a whole one, if it is."""
    return int(typed) if typed is not None and float(typed).is_integer() else typed


def picture_counts(collection: Collection, chosen: Mapping[str, FolderOptions]) -> dict[str, int]:
    """Folder -> pictures directly in it, of the folders that have some or have options; sorted, the dataset's first."""
    own = Counter(parent(name) for name in collection.cards)
    return {name: own[name] for name in sorted({"", *own, *chosen}) if own[name] or name in chosen or len(own) < 2}


def parent(name: str) -> str:
    """The folder of a picture, as options name it: "" for the dataset's own."""
    return os.path.dirname(name)


def table(counts: Mapping[str, int], chosen: Mapping[str, FolderOptions], collection: Collection) -> str:
    """The folders with what is set for each."""
    repeats = {parent(name): card.picture.repeats for name, card in collection.cards.items()}
    rows = "".join(
        _row(name, count, chosen.get(name, FolderOptions()), repeats.get(name, 1)) for name, count in counts.items()
    )
    about = tr(
        "A folder such as {folder} has its own options here. Its name says how often its pictures come up in an epoch.",
        folder="<code>10_harbour</code>",
    )
    return f'<p class="hint">{about}</p><table class="folders"><tbody>{rows}</tbody></table>'


def _row(name: str, count: int, options: FolderOptions, repeats: int) -> str:
    title = words.text(_title(name))
    facts = " · ".join([words.counted(count, "picture"), f"{number(repeats)} ×", *_facts(options)])
    label = words.text(tr("Edit {folder}", folder=_title(name)))
    about = f'data-folder="{words.text(name)}" aria-label="{label}"'
    edit = f'<button type="button" class="quiet-button" {about}>{words.text(tr("Edit"))}</button>'
    return f'<tr><th scope="row">{title}<span>{words.text(facts)}</span></th><td>{edit}</td></tr>'


def _facts(options: FolderOptions) -> Iterable[str]:
    """What is set, in short."""
    if options.regularisation:
        yield tr("class pictures")
    if options.weight != 1:
        yield tr("weight {weight:g}", weight=options.weight)
    if options.prefix:
        yield tr("prefix “{prefix}”", prefix=options.prefix)
    if options.caption:
        yield tr("caption “{caption}”", caption=options.caption)
    if options.timesteps:
        lowest, highest = options.timesteps
        yield tr("noise {lowest:,} to {highest:,}", lowest=lowest, highest=highest)


def _title(name: str) -> str:
    return name or tr("The folder itself")
