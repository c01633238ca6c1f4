"""Getting pictures in: by a path, from the folders that were opened last, or by dropping, pasting, choosing files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import gradio as gr

from lora_studio import files
from lora_studio.config.slices.run import names_pairs
from lora_studio.dataset import pictures
from lora_studio.dataset.intake import Item
from lora_studio.errors import DatasetError, StudioError
from lora_studio.language import in_sequence, ntr, tr
from lora_studio.ui import paths, words
from lora_studio.ui.outcome import WORK, Updates, busy, wrong
from lora_studio.ui.pages.pictures import drop, recent, uploads
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.pages.train.pictures import samples
from lora_studio.ui.pages.train.setup import QUIET, Setup
from lora_studio.ui.theme import html


class Intake:
    """The card with the folder's path, and the one that asks for the name of what was uploaded."""

    def __init__(self, room: Room):
        self.room = room
        with gr.Column(elem_classes="card intake", visible=False) as self.card:
            self._place_path()
        with gr.Column(elem_classes="card intake", visible=False, elem_id="naming") as self.naming:
            self._place_naming()
        self.drop = html(drop.sign(), js_on_load=drop.take(), elem_id="drop-pictures")
        room.frames(self.draw, [self.card, self.places, self.naming, self.question, self.add, self.beside])

    def _place_path(self) -> None:
        with gr.Row(elem_classes="finder path"):
            self.path = gr.Textbox(
                placeholder=tr("Path of a folder of pictures, such as ~/Pictures/my-style"),
                label=tr("Folder of pictures"),
                show_label=False,
                container=False,
                max_lines=1,
                scale=3,
                elem_id="pictures-path",
            )
            self.go = gr.Button(tr("Open"), size="md", min_width=80, scale=0, elem_id="open-folder")
        self.wrong = html(visible=False, elem_id="path-wrong")
        self.places = html(js_on_load=drop.CHOOSE, elem_id="places")

    def _place_naming(self) -> None:
        self.question = html()
        with gr.Row(elem_classes="finder path"):
            self.name = gr.Textbox(
                label=tr("Name of the dataset"), container=False, show_label=False, max_lines=1, elem_id="dataset-name"
            )
            self.make = gr.Button(
                tr("Make a dataset"), variant="primary", size="md", min_width=130, elem_id="make-dataset"
            )
            self.add = gr.Button(tr("Add"), size="md", min_width=90, visible=False, elem_id="add-to-dataset")
            self.beside = gr.Button(
                tr("Open its folder"), size="md", min_width=120, visible=False, elem_id="open-beside"
            )
            self.cancel = gr.Button(tr("Cancel"), size="md", min_width=80, elem_id="forget-upload")
        self.refused = html(visible=False, elem_id="upload-refused")

    def wire(self, setup: Setup, opened: Any, add: gr.Button) -> None:
        """Binds everything. ``opened`` chains the opening of the folder to an event, ``add`` is the button that shows
        the card.
        """
        look, shown = self.room.look, [self.room.look, *self.room.framed, self.name]
        going = [setup.data, self.wrong, *shown]

        def press(look: PicturesLook, event: gr.EventData) -> Updates:
            return self.open(look, str(event.folder), setup)

        for event in (self.path.submit, self.go.click):
            opened(event(lambda look, typed: self.open(look, typed, setup), [look, self.path], going, **QUIET))
        opened(self.places.click(press, look, going, **QUIET))
        add.click(self.toggle, look, [*shown, self.wrong], **QUIET)
        self.drop.upload(self.received, look, [*shown, self.refused, self.wrong], **QUIET)
        self.cancel.click(self.forget, look, shown, **QUIET)
        kept = [setup.data, self.refused, *shown]
        make, more = partial(self.keep, setup), partial(self.keep, setup, add=True)
        opened(gr.on([self.make.click, self.name.submit], make, [look, self.name], kept, **WORK))
        opened(self.add.click(more, [look, self.name], kept, **WORK))
        opened(self.beside.click(lambda look: self.open_beside(look, setup), look, kept, **QUIET))

    def draw(self, look: PicturesLook) -> Updates:
        """The two cards."""
        shown = _is_open(look)
        naming = bool(look.uploaded)
        goal = Path(look.folder) if look.folder and uploads.own(look.folder, self.room.outputs) else None
        single = len(look.uploaded) == 1 and look.typed
        zipped = single and _is_zip(look.uploaded[0])
        return {
            self.card: gr.update(visible=shown and not naming),
            self.places: self._places(look) if shown and not naming and not look.listed else gr.skip(),
            self.naming: gr.update(visible=naming),
            self.question: _question(look) if naming else "",
            self.add: gr.update(
                visible=naming and goal is not None, value=tr("Add to {name}", name=goal.name) if goal else tr("Add")
            ),
            self.beside: gr.update(visible=bool(single and not zipped)),
        }

    def _places(self, look: PicturesLook) -> str:
        """The folders that can be opened at once, and how files get here. Listed anew when another is opened; those
        that were listed stay where they are, as one of them is under the pointer.
        """
        found = {one.path: one.pictures for one in recent.recent(self.room.outputs)}
        new = [path for path in found if path not in look.places]
        look.listed, look.places = True, [*new, *(path for path in look.places if path in found)]
        places = [_chip(path, Path(path).name, words.counted(found[path], "picture"), look) for path in look.places]
        places += [_chip(path, name, tr("sample"), look) for path, name in samples().items()]
        return f'<div class="chips">{"".join(places)}</div>{_help()}'

    def toggle(self, look: PicturesLook) -> Updates:
        """Shows the card with the path, or hides it."""
        look.intake, look.listed, look.places = not _is_open(look), False, []
        return {**self._drawn(look), self.wrong: gr.update(visible=False)}

    def open(self, look: PicturesLook, typed: str, setup: Setup) -> Updates:
        """The folder at a path that was typed, or the file of pairs; a ZIP or a picture asks what to do with it."""
        path = paths.tidy(typed)
        look.uploaded, look.others, look.typed = [], [], False
        if os.path.isdir(path) or (names_pairs(path) and os.path.isfile(path)):
            look.intake = _is_open(look)
            return {setup.data: path, self.wrong: gr.update(visible=False), **self._drawn(look)}
        try:
            look.uploaded, look.typed = [_single(path)], True
        except DatasetError as error:
            return {self.wrong: gr.update(value=wrong(error), visible=True), **self._drawn(look)}
        named = {self.name: uploads.suggested(look.uploaded)}
        return {self.wrong: gr.update(visible=False), **named, **self._drawn(look)}

    def open_beside(self, look: PicturesLook, setup: Setup) -> Updates:
        """The folder of the picture whose path was given."""
        folder = str(look.uploaded[0].path.parent) if look.uploaded else look.folder
        look.uploaded, look.intake = [], _is_open(look)
        return {setup.data: folder, **self._drawn(look)}

    def received(self, look: PicturesLook, event: gr.EventData) -> Updates:
        """What the browser uploaded."""
        try:
            look.uploaded, look.typed = uploads.received(event.files, self.room.outputs), False
        except (StudioError, OSError) as error:
            return self._refuse(look, error)
        look.others = [str(name) for name in event.others][: uploads.MOST_FILES]
        if not look.uploaded:
            do = tr("Choose PNG, JPEG or WebP files, or a ZIP.")
            if pairs := next(filter(names_pairs, look.others), ""):
                do = tr("Paste the path of {name}: a file of pairs is read where it is.", name=pairs)
            return self._refuse(look, DatasetError(tr("There is no picture among these files."), do=do))
        hidden = dict.fromkeys([self.wrong, self.refused], gr.update(visible=False))
        return {**self._drawn(look), self.name: uploads.suggested(look.uploaded), **hidden}

    def _refuse(self, look: PicturesLook, error: StudioError | OSError) -> Updates:
        """Says in the card with the path why nothing came of an upload."""
        look.uploaded, look.intake, look.listed = [], True, False
        return {**self._drawn(look), self.wrong: _shown(wrong(error))}

    def forget(self, look: PicturesLook) -> Updates:
        """Throws an upload away."""
        uploads.forget(look.uploaded, self.room.outputs)
        look.uploaded, look.others = [], []
        return self._drawn(look)

    def keep(self, setup: Setup, look: PicturesLook, name: str, add: bool = False) -> Iterator[Updates]:
        """Makes a dataset of what was uploaded, or adds it to the one that is shown, and opens that."""
        outputs, uploaded = self.room.outputs, look.uploaded
        if not uploaded:
            return
        yield {self.refused: _shown(busy(tr("Copying…")))}
        try:
            goal = Path(look.folder) if add else uploads.dataset(name, outputs)
            if not add and goal.exists():
                raise DatasetError(
                    tr("There is a dataset called {name} already.", name=goal.name), do=_taken(look, goal, outputs)
                )
            kept = uploads.add(uploaded, goal) if add else uploads.keep(uploaded, outputs, name)
        except (StudioError, OSError) as error:
            yield {self.refused: _shown(wrong(error))}
            return
        uploads.forget(uploaded, outputs)
        told = [problem.what for problem in kept.left_out] + _others(look.others)
        if name and not add and name != kept.folder.name:
            told.insert(0, _otherwise(name, kept.folder.name))
        look.uploaded, look.others, look.intake = [], [], _is_open(look)
        look.arrived[kept.folder] = in_sequence([_kept(uploaded, kept.folder), *told])
        yield {setup.data: str(kept.folder), self.refused: gr.update(visible=False), **self._drawn(look)}

    def _drawn(self, look: PicturesLook) -> Updates:
        return {self.room.look: look, **self.draw(look)}


def _is_open(look: PicturesLook) -> bool:
    """Whether the card with the path is open, unless a name is asked for. Opening a folder leaves it as it is: all that
    is below would move under the pointer.
    """
    at_first = not look.folder or look.folder in samples() or look.failed
    return look.intake if look.intake is not None else at_first


def _shown(value: str) -> Any:
    return gr.update(value=value, visible=True)


def _chip(path: str, name: str, about: str, look: PicturesLook) -> str:
    pressed = str(path == look.folder).lower()
    return (
        f'<button type="button" class="filter" data-path="{words.text(path)}" title="{words.text(path)}" '
        f'aria-pressed="{pressed}">{words.text(name)} <span>{words.text(about)}</span></button>'
    )


def _help() -> str:
    """How else pictures get here."""
    pick = '<button type="button" class="quiet-button" data-pick="{}">{}</button>'.format
    said = tr(
        "Or drop pictures, a folder or a ZIP anywhere on this page, paste a picture, or choose {pictures} {folder} "
        "Those are copied; a folder whose path you give stays where it is.",
        pictures=pick("files", words.text(tr("Pictures…"))),
        folder=pick("folder", words.text(tr("A folder…"))),
    )
    return f'<p class="hint">{said}</p>'


def _single(path: str) -> Item:
    """The ZIP or picture at ``path``.

    Raises:
        DatasetError: there is nothing, or something else.
    """
    if not path:
        raise DatasetError(tr("No folder is named."), do=tr("Paste the path of a folder of pictures."))
    if not os.path.exists(path):
        raise DatasetError(
            tr("There is no folder {path}.", path=files.printable(path)),
            do=tr("Check the path, or drop the folder here."),
        )
    name = PurePosixPath(Path(path).name)
    if name.suffix.lower() != ".zip" and not pictures.promises(name.name):
        do = tr("Give the path of a folder of pictures, of a picture, or of a ZIP.")
        raise DatasetError(tr("{name} is neither a folder nor a picture.", name=name), where=path, do=do)
    return Item(Path(path), name)


def _is_zip(item: Item) -> bool:
    return item.name.suffix.lower() == ".zip"


def _named(items: list[Item]) -> str:
    """The only file by its name, several by their number."""
    return items[0].name.name if len(items) == 1 else words.counted(len(items), "file")


def _kept(uploaded: list[Item], folder: Path) -> str:
    """What was done with an upload."""
    if all(map(_is_zip, uploaded)):
        return tr("{files} unpacked into {folder}.", files=_named(uploaded), folder=folder.name)
    return tr("{files} copied to {folder}.", files=_named(uploaded), folder=folder.name)


def _otherwise(typed: str, name: str) -> str:
    """Why a dataset has another name than was typed."""
    return tr(
        "The dataset is called {name}: not every system can have a folder called “{typed}”.", name=name, typed=typed
    )


def _question(look: PicturesLook) -> str:
    if not look.typed:
        what = tr("{files} uploaded.", files=_named(look.uploaded))
        do = ntr(
            len(look.uploaded),
            "It becomes a dataset of the studio's own. What is it called?",
            "They become a dataset of the studio's own. What is it called?",
        )
    elif _is_zip(look.uploaded[0]):
        what, do = (
            tr("{name} is a ZIP.", name=look.uploaded[0].name),
            tr("It can be unpacked into a dataset of the studio's own."),
        )
    else:
        what, do = (
            tr("{name} is one picture.", name=look.uploaded[0].name),
            tr("Open its folder, or copy it into a dataset."),
        )
    return f'<p class="told"><b>{words.text(what)}</b> {words.text(do)}</p>'


def _taken(look: PicturesLook, goal: Path, outputs: Path) -> str:
    if look.folder and uploads.own(look.folder, outputs) and Path(look.folder).name == goal.name:
        return tr("Choose another name, or press “Add to {name}”.", name=goal.name)
    return tr("Choose another name. To add to it, open it first.")


def _others(names: list[str]) -> list[str]:
    """What was not uploaded at all."""
    found = [name for name in names if name.rpartition("/")[2].casefold() not in ("thumbs.db", "desktop.ini")]
    if len(found) == 1:
        return [tr("{file} was not taken: it is neither a picture nor a caption.", file=found[0])]
    if not found:
        return []
    return [tr("{count:,} files that are neither pictures nor captions were not taken.", count=len(found))]
