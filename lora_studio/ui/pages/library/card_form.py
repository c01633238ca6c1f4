"""The model card of an adapter: what its artist says of it, and the card that comes of it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio import adapters, files
from lora_studio.adapters.card import LICENCES, CardText
from lora_studio.errors import StudioError
from lora_studio.language import declared, tr
from lora_studio.runs import model_card
from lora_studio.runs.library import Entry, Origin
from lora_studio.runs.shown import Shown
from lora_studio.ui import downloads, images, sharing, words
from lora_studio.ui.outcome import Updates, done
from lora_studio.ui.theme import html

_TELLS = tr(
    "Saved beside the adapter, and in the file's header, from which Civitai, SwarmUI and "
    "others read it. The weights stay as they are."
)


class CardForm:
    """The fields of the card, the button that saves it, and the card itself."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        with gr.Column(elem_id="model-card") as self.whole:
            self.pictures = html()
            with gr.Column(elem_classes="fields"):
                self.title = gr.Textbox(label=tr("Title"), max_lines=1, elem_id="card-title")
                self.author = gr.Textbox(label=tr("Author"), max_lines=1, elem_id="card-author")
                self.licence = gr.Dropdown(
                    [(declared(label), name) for name, label in LICENCES.items()],
                    label=tr("Licence"),
                    allow_custom_value=True,
                    elem_id="card-licence",
                )
                self.tags = gr.Textbox(
                    label=tr("Tags"), placeholder=tr("style, ink, line art"), max_lines=1, elem_id="card-tags"
                )
            self.notes = gr.Textbox(
                label=tr("Notes"),
                info=tr("For whoever uses it: what it is good at, and what not."),
                lines=3,
                max_lines=10,
                elem_id="card-notes",
            )
            html(f'<p class="hint">{words.text(_TELLS)}</p>')
            with gr.Row(elem_classes="controls"):
                self.save = gr.Button(tr("Save the card"), size="md", min_width=120, elem_id="save-card")
            self.saved = html(visible=False, elem_id="card-saved")

    @property
    def fields(self) -> list[Any]:
        """What the artist writes, as in ``CardText``."""
        return [self.title, self.author, self.licence, self.tags, self.notes]

    @property
    def filled(self) -> list[Any]:
        """What ``fill`` changes."""
        return [self.whole, self.pictures, *self.fields, self.saved]

    def fill(self, entry: Entry) -> Updates:
        """The card of another adapter. A saved state has none: its run reads its file."""
        hidden = {self.whole: gr.update(visible=False), self.saved: gr.update(visible=False)}
        if entry.origin is Origin.CHECKPOINT:
            return hidden
        try:
            text = CardText.read(adapters.header(Path(entry.path)).metadata)
        except StudioError:
            return hidden  # its details say what is wrong
        values = dict(zip(self.fields, text, strict=True))
        return {**hidden, self.whole: gr.update(visible=True), self.pictures: self._pictures(entry), **values}

    def _pictures(self, entry: Entry) -> str:
        found = self._copies(entry)
        if not found:
            told = words.text(tr("No previews of a run show it: its card has no pictures."))
            return f'<p class="hint">{told}</p>'
        drawn = "".join(
            f'<img src="{words.text(images.address(copy))}" alt="{words.text(one.prompt)}" '
            f'title="{words.text(one.prompt)}" loading="lazy">'
            for one, copy in found
        )
        return f'<div class="card-pictures">{drawn}</div>'

    def _copies(self, entry: Entry) -> list[tuple[Shown, Path]]:
        """The card's pictures, each with its copy for the page; damaged ones are left out."""
        found = []
        for one in sharing.shown_by(entry, self.outputs):
            try:
                found.append((one, images.copy(one.style, self.outputs, images.THUMBNAIL, images.preview)))
            except OSError:
                continue
        return found

    def keep(self, entry: Entry, *texts: str | None) -> str:
        """Saves the card; what came of it as HTML.

        Raises:
            StudioError, OSError: as ``model_card.save``.
        """
        adapter = Path(entry.path)
        downloads.withdraw(adapter, self.outputs)
        card = model_card.save(
            adapter, CardText(*(text or "" for text in texts)), [one for one, _ in self._copies(entry)]
        )
        written = card.read_text("utf-8")
        link = downloads.link(self._zipped(adapter, card), self.outputs, tr("Download the card"))
        summary = f"<summary>{words.text(tr('As Markdown'))}</summary>"
        folded = f'<details class="recipe">{summary}<pre>{words.text(written)}</pre></details>'
        saved = done(tr("Saved as {name}.", name=card.name), str(card.parent))
        return f'{saved}<div class="ways">{link}</div>{folded}'

    def _zipped(self, adapter: Path, card: Path) -> Path:
        """The card and its pictures in one file."""
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.write(card, card.name)
            for path in sorted(model_card.pictures_folder(adapter).glob("*.webp")):
                archive.write(path, f"{path.parent.name}/{path.name}")
        target = images.folder(self.outputs) / "cards" / f"{adapter.stem}-card.zip"
        files.write(target, data.getvalue())
        return target
