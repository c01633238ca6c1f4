"""The form for automatic captions: which model writes them, how, and what becomes of them."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.blocks import Block
from pydantic import ValidationError

from lora_studio import language
from lora_studio.curation import caption_parts
from lora_studio.errors import ModelError, SettingsError, StudioError
from lora_studio.jobs.captioning import CaptioningOrder, Mode
from lora_studio.jobs.model_downloads import HubOffer, ModelDownload
from lora_studio.language import tr
from lora_studio.ui import outcome, words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.pictures import captioning_view
from lora_studio.ui.theme import html
from lora_studio.vision import catalogue, local
from lora_studio.vision.catalogue import Task
from lora_studio.vision.options import Detail, SentenceOptions, TagOptions

_MODES = [
    (tr("Fill empty captions"), Mode.FILL),
    (tr("Add to what is there"), Mode.APPEND),
    (tr("Propose, side by side"), Mode.PROPOSE),
]
_DETAILS = [
    (tr("A sentence"), Detail.SHORT),
    (tr("A few sentences"), Detail.DETAILED),
    (tr("A paragraph"), Detail.LONG),
]
_SENTENCES, _TAGS = SentenceOptions(), TagOptions()
_TITLES = {
    "instruction": tr("Instruction"),
    "max_tokens": tr("Longest caption"),
    "general": tr("Threshold of tags"),
    "character": tr("Threshold of characters"),
    "batch": tr("Pictures at once"),
}
_ABOUT = tr(
    "A model looks at each picture and says what it shows. Nothing that you wrote is changed unless you choose so, and "
    "all of it can be undone."
)


class CaptioningForm:
    """The fields. ``values`` are in the order that ``read`` takes."""

    def __init__(self) -> None:
        with gr.Column(elem_classes="captioning-form") as self.body:
            html(f'<p class="hint">{words.text(_ABOUT)}</p>')
            self._place_model()
            self._place_options()
            self.mode = gr.Radio(_MODES, value=Mode.FILL, label=tr("What becomes of them"), elem_id="captioning-mode")
            self.scope = gr.Radio([], label=tr("In"), show_label=False, container=False, elem_id="captioning-scope")
            with gr.Row(elem_classes="controls"):
                self.start = gr.Button(
                    tr("Write captions"), variant="primary", size="md", min_width=120, elem_id="caption"
                )
                self.close = gr.Button(tr("Cancel"), size="md", min_width=80, elem_id="captioning-close")

    def _place_model(self) -> None:
        offered = [*catalogue.offered(Task.SENTENCES), *catalogue.offered(Task.TAGS)]
        self.model = gr.Dropdown(
            [(model.title, model.key) for model in offered],
            value=offered[0].key,
            allow_custom_value=True,
            label=tr("Model"),
            info=tr("Or the path of a model's folder, or its name on the hub."),
            elem_id="captioner",
        )
        self.about = html()
        self.offer = html(visible=False, elem_id="captioner-offer")
        with gr.Row(elem_classes="controls"):
            self.look_up = gr.Button(
                tr("Look it up"), size="md", min_width=90, visible=False, elem_id="captioner-look-up"
            )
            self.download = gr.Button(
                tr("Download"), size="md", min_width=90, variant="primary", visible=False, elem_id="captioner-download"
            )
            self.stop = gr.Button(
                tr("Stop the download"), size="md", min_width=90, visible=False, elem_id="captioner-stop"
            )

    def _place_options(self) -> None:
        with gr.Column(visible=False) as self.of_instructed:
            self.instruction = gr.Textbox(
                _SENTENCES.instruction, label=tr("Instruction"), lines=4, max_lines=10, elem_id="captioning-instruction"
            )
        with gr.Column(visible=False) as self.of_florence2:
            self.detail = gr.Radio(_DETAILS, value=_SENTENCES.detail, label=tr("Length"), elem_id="captioning-detail")
        with gr.Column(visible=False, elem_classes="fields tight") as self.of_tags:
            self.general = gr.Number(
                _TAGS.general,
                label=_TITLES["general"],
                info=tr("0 to 1; lower writes more."),
                step=0.05,
                elem_id="general",
            )
            self.character = gr.Number(
                _TAGS.character,
                label=_TITLES["character"],
                info=tr("The same for names."),
                step=0.05,
                elem_id="character",
            )
        with gr.Column(visible=False) as self.of_tags_too:
            self.never = gr.Textbox(
                label=tr("Never write"),
                info=tr("Tags with commas between them, such as those that name the style."),
                max_lines=3,
                elem_id="never",
            )
        with gr.Accordion(tr("More"), open=False, elem_classes="fold"), gr.Column(elem_classes="fields tight"):
            self.batch = gr.Number(
                4,
                precision=0,
                label=_TITLES["batch"],
                info=tr("More are quicker and take more memory."),
                elem_id="batch",
            )
            self.longest = gr.Number(
                0, precision=0, label=_TITLES["max_tokens"], info=tr("Tokens; 0 is as usual."), elem_id="longest"
            )

    @property
    def values(self) -> list[Block]:
        """The fields that ``read`` reads."""
        tags = [self.general, self.character, self.never]
        return [self.mode, self.instruction, self.detail, *tags, self.batch, self.longest]

    @property
    def drawn(self) -> list[Block]:
        """What depends on the model and on what is shown."""
        groups = [self.of_instructed, self.of_florence2, self.of_tags, self.of_tags_too]
        buttons = [self.look_up, self.download, self.stop, self.start]
        return [self.body, self.about, self.offer, self.scope, *groups, *buttons]

    def of_model(self, model: str, offer: HubOffer | None, download: ModelDownload | None) -> Updates:
        """The fields of a model, whether it is here, and what downloading it takes."""
        sort, wrong = options_of(model), trouble(model)
        fetching = download is not None and not download.ended
        missing = bool(wrong and wrong.details.get("download"))
        known = catalogue.named(model)
        return {
            self.about: f'<p class="hint">{words.text(known.about)}</p>' if known else "",
            self.offer: gr.update(value=_told(model, wrong, offer, download), visible=wrong is not None),
            self.look_up: gr.update(visible=missing and not fetching and offer is None),
            self.download: gr.update(visible=missing and not fetching and offer is not None),
            self.stop: gr.update(visible=fetching),
            self.start: gr.update(interactive=wrong is None),
            self.of_instructed: gr.update(visible=sort == "instructed"),
            self.of_florence2: gr.update(visible=sort == "florence2"),
            self.of_tags: gr.update(visible=sort == "tags"),
            self.of_tags_too: gr.update(visible=sort == "tags"),
        }


def _told(model: str, wrong: StudioError | None, offer: HubOffer | None, download: ModelDownload | None) -> str:
    """Why a model cannot be used yet, and what is being done about it."""
    if wrong is None:
        return ""
    if not wrong.details.get("download"):
        return outcome.wrong(wrong)
    if download and not download.ended:
        return captioning_view.downloading(download)
    failed = outcome.wrong(download.error) if download and download.error else ""
    return failed + captioning_view.offered(model, offer)


def order(model: str, values: tuple[Any, ...], **more: Any) -> CaptioningOrder:
    """The order that the form's ``values`` make.

    Raises:
        SettingsError: one of them is empty or out of range.
    """
    mode, instruction, detail, general, character, never, batch, longest = values
    raw = {
        "model": model,
        "mode": mode,
        "batch": batch,
        "sentences": {"instruction": (instruction or "").strip(), "detail": detail, "max_tokens": longest},
        "tags": {"general": general, "character": character, "never": tuple(caption_parts.split(never or ""))},
    }
    try:
        return CaptioningOrder.model_validate({**raw, **more})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        title = _TITLES.get(str(fault["loc"][-1]), str(fault["loc"][-1]))
        what = tr("{field}: {fault}.", field=title, fault=language.fault(fault))
        raise SettingsError(what, do=tr("Correct it.")) from None


def options_of(model: str) -> str:
    """Which options a model has: "blip", "florence2", "instructed" or "tags"; "" while it is not known."""
    known = catalogue.named(model)
    if known:
        return (
            "tags" if known.task is Task.TAGS else "instructed" if known.key not in ("blip", "florence2") else known.key
        )
    try:
        return "tags" if model and local.find(model).task is Task.TAGS else "instructed"
    except StudioError:
        return ""


def trouble(model: str) -> StudioError | None:
    """Why a model cannot write captions now; its ``details`` have ``download`` where a download would help."""
    if not model:
        return ModelError(tr("No model is chosen."), do=tr("Choose one."))
    try:
        found = local.find(model)
    except ModelError as error:
        return error
    if found.task is Task.MASKS:
        return ModelError(
            tr("{name} draws masks and writes no captions.", name=found.name), do=tr("Choose a captioner or a tagger.")
        )
    return None
