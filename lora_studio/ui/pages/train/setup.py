"""The left half of the page: pictures, base model, preset, settings, and the button that starts."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio import runs
from lora_studio.config import presets
from lora_studio.config.presets import Preset
from lora_studio.config.settings import Settings
from lora_studio.dataset import intake
from lora_studio.errors import DatasetError, SettingsError, StudioError
from lora_studio.jobs import runner
from lora_studio.optim.registry import RATES
from lora_studio.runs import Run, branching
from lora_studio.ui import words
from lora_studio.ui.form import Form, differences, rates, read, summary, wanted
from lora_studio.ui.pages.train import pictures, upload
from lora_studio.ui.pages.train.check import Check, CheckState
from lora_studio.ui.theme import html

_FIRST_PRESET = "quick-look"
_HINT = '<p class="hint">Twenty to forty pictures of one style are plenty: PNG, JPEG, WebP and others, captions as .txt files of the same names.</p>'
_KEEP_DRAFT = "(preset, ...values) => ({preset, fields: Object.fromEntries(%s.map((key, i) => [key, values[i]]))})"
"""What was typed, kept by the browser itself; ``restore`` reads it."""
_starting = threading.Lock()

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How the page's own handlers are bound: at once, without a curtain over what they change, and not offered to programs.
"""


class Setup:
    """The fields and handlers of the left half."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.presets, self.damaged = _presets()
        first = self.presets.get(_FIRST_PRESET) or next(iter(self.presets.values()), None)
        self.samples = pictures.samples()
        self.form = Form({**wanted(first), "data": next(iter(self.samples), "")})
        self._place(first)

    def _place(self, first: Preset | None) -> None:
        with gr.Column(elem_classes="card"):
            html("<h2>Pictures</h2>")
            self._place_pictures()
        with gr.Column(elem_classes="card"):
            html("<h2>Training</h2>")
            self._place_recipe(first)
        with gr.Column(elem_classes="card"):
            html("<h2>More settings</h2>")
            self.form.folded()
        with gr.Column(elem_classes="go"):
            self.check = Check(self.outputs, self.form, self._settings)
            self.check.place()
            self.notice = html(visible=False)
            self.origin = gr.State("")
            with gr.Row(elem_classes="branch", visible=False) as self.branch:
                self.branch_from_line = html()
                self.forget = gr.Button("Begin anew instead", size="sm", min_width=120, elem_id="forget-origin")
            with gr.Row(elem_classes="begin"):
                self.start = gr.Button("Start training", variant="primary", size="lg", min_width=150, elem_id="start")
                self.check.place_button()
        self.draft = gr.BrowserState({}, storage_key="lora-studio-draft", secret="lora-studio")

    def _place_pictures(self) -> None:
        help = "Paste the path of a folder of pictures, with captions beside them if there are any."
        self.form.field("data", label="Folder", info=help, placeholder="~/Pictures/my-style")
        with gr.Row(elem_classes="samples"):
            html('<span class="or">or try</span>', min_width=0)
            self.sample_buttons = {
                path: gr.Button(name, size="sm", min_width=80) for path, name in self.samples.items()
            }
            self.upload = gr.UploadButton(
                "Upload…", size="sm", min_width=80, file_count="multiple", file_types=intake.TYPES
            )
        self.report = html(js_on_load=pictures.ENLARGE, elem_id="pictures")

    def _place_recipe(self, first: Preset | None) -> None:
        with gr.Column(elem_classes="fields"):
            base = {
                "label": "Base model",
                "info": "The built-in starter, or the path of a model of yours.",
                "elem_id": "set-base",
            }
            self.form.own("base", gr.Dropdown(_bases(self.outputs), value="starter", allow_custom_value=True, **base))
            titles = [(preset.title, name) for name, preset in self.presets.items()]
            chosen = first.name if first else None
            self.preset = gr.Dropdown(
                titles,
                value=chosen,
                filterable=False,
                label="Preset",
                info="Fills in the settings below.",
                elem_id="preset",
            )
        self.blurb = html(_blurb(first, self.damaged))
        with gr.Column(elem_classes="fields"):
            self.form.field("name", info="Of the run and its file; empty takes the folder's.", placeholder="my-style")
        self.form.basic()
        self.summary = html(visible=False, elem_id="summary")
        self.reset = gr.Button("Back to the preset", size="sm", visible=False, elem_id="reset")

    def wire(self, page: gr.Blocks) -> None:
        """Binds everything but Start, which concerns both halves."""
        fields = self.form.components
        data = self.form.fields["data"]
        looked = {
            "inputs": data,
            "outputs": [data, self.report],
            **QUIET,
            "show_progress": "minimal",
            "show_progress_on": self.report,
        }
        for path, button in self.sample_buttons.items():
            button.click(lambda path=path: path, None, data, **QUIET).then(self.look, **looked)
        gr.on([data.submit, data.blur], self.look, trigger_mode="always_last", **looked)
        self.upload.upload(
            self.take, self.upload, [data, self.notice], show_progress="minimal", api_visibility="private"
        ).then(self.look, **looked)
        chosen = {"inputs": self.preset, "outputs": [self.blurb, *fields], **QUIET}
        self.preset.input(self.choose, **chosen)
        self.reset.click(self.choose, **chosen)
        optimizer, rate_fields = self.form.fields["optimizer"], [self.form.fields[key] for key in RATES]
        optimizer.input(self.take_rates, [self.preset, optimizer], rate_fields, **QUIET)
        self.form.explain()
        changes, form = [one.change for one in [self.preset, *fields]], [self.preset, *fields]
        gr.on(
            changes,
            self.changed,
            [self.check.seen, *form],
            [self.summary, self.reset, self.check.stale],
            trigger_mode="always_last",
            **QUIET,
        )
        gr.on(
            changes,
            None,
            form,
            self.draft,
            js=_KEEP_DRAFT % json.dumps(list(self.form.fields)),
            trigger_mode="always_last",
            **QUIET,
        )
        self.check.wire(self.start, QUIET)
        self.forget.click(lambda: ["", gr.update(visible=False)], None, [self.origin, self.branch], **QUIET)
        page.load(self.restore, [self.draft], [self.preset, self.blurb, *fields], **QUIET).then(self.look, **looked)

    def choose(self, name: str | None) -> list[Any]:
        """A preset's settings in the fields; what the user wrote in words stays."""
        preset = self.presets.get(name)
        return [_blurb(preset, self.damaged), *self.form.filled(wanted(preset))]

    def take_rates(self, name: str | None, optimizer: str) -> list[float]:
        """The rates that come with an optimizer that the user chose: another one's would learn nothing, or diverge."""
        return list(rates(optimizer, self.presets.get(name)).values())

    def restore(self, draft: Any) -> list[Any]:
        """What this browser's user had typed, after a reload or a restart."""
        draft = draft if isinstance(draft, dict) else {}
        preset = self.presets.get(draft.get("preset"))
        chosen = gr.update(value=preset.name) if preset else gr.skip()
        fields = draft.get("fields") if isinstance(draft.get("fields"), dict) else {}
        typed = [gr.update(value=fields[key]) if key in fields else gr.skip() for key in self.form.fields]
        return [chosen, _blurb(preset, self.damaged) if preset else gr.skip(), *typed]

    def changed(self, seen: CheckState, name: str | None, *values: Any) -> list[Any]:
        """What differs from the preset, or is wrong; the way back; and whether the check's finding is still about this."""
        reading, preset = read(self.form.raw(values)), self.presets.get(name)
        said = summary(reading, preset)
        return [
            gr.update(value=said, visible=bool(said)),
            gr.update(visible=reading.settings is not None and bool(differences(reading.values, preset))),
            self.check.changed(seen, values),
        ]

    def look(self, data: str) -> tuple[Any, str]:
        """The dataset's pictures, counts and problems."""
        typed, data = data, pictures.tidy(data)
        mended = gr.skip() if data == typed else data  # what the user types meanwhile is not undone
        if not data:
            return mended, _HINT
        try:
            return mended, pictures.report(pictures.scan(data, self.outputs), self.outputs)
        except (StudioError, OSError) as error:
            return mended, words.notice("wrong", str(error))

    def take(self, uploaded: list[str]) -> tuple[Any, Any]:
        """Uploaded pictures as a folder of their own."""
        try:
            return str(upload.keep([Path(one) for one in uploaded], self.outputs)), gr.update(visible=False)
        except StudioError as error:
            return gr.skip(), told(error)

    def begin(self, *values: Any, origin: str = "") -> tuple[Run | None, Any]:
        """Starts a run as the form says, or puts it into the queue: the run, or None and why not. ``origin`` is the
        RUN@STEP that it branches from, if any.
        """
        try:
            settings = self._settings(values)
            with _starting:
                run = self._the_same(settings, origin) or self._made(settings, origin)
                runner.start(run)
            return run, gr.update(visible=False)
        except StudioError as error:
            return None, told(error)

    def _the_same(self, settings: Settings, origin: str) -> Run | None:
        """The run that does just this already, or waits to: a second press, or another tab's, would train the same
        adapter twice.
        """
        for run in runner.at_work(self.outputs):
            parent = run.parent()
            same = run.settings() == settings.changed(name=run.name) and origin == (
                f"{parent['run']}@{parent['step']}" if parent else ""
            )
            if same and run.name.startswith(runs.wanted_name(settings)):
                return run
        return None

    def _made(self, settings: Settings, origin: str) -> Run:
        if not origin:
            return runs.create(settings, self.outputs)
        parent, step = branching.origin(origin, self.outputs)
        return branching.branch(parent, step, settings, self.outputs)

    def branch_from(self, run: Run, step: int) -> list[Any]:
        """Updates of ``origin``, the line that tells of it, and the form: the run's own settings, to be changed and
        started from its state of ``step``.
        """
        said = f'<p class="origin">Begins from <b>{words.text(run.name)}</b>, step {step:,}. Change what you like, then start.</p>'
        return [f"{run.name}@{step}", gr.update(visible=True), said, *self.form.filled(run.settings().flat())]

    def _settings(self, values: tuple[Any, ...]) -> Settings:
        """The form's settings, with a dataset that can be trained on.

        Raises:
            SettingsError, DatasetError: what must be mended first.
        """
        reading = read(self.form.raw(values))
        if reading.settings is None:
            raise SettingsError(" ".join(reading.wrong.values()), do="Mend that, then try again.")
        settings = reading.settings.changed(
            data=pictures.tidy(reading.settings.run.data), base=pictures.tidy(reading.settings.run.base)
        )
        blocking = pictures.scan(settings.run.data, self.outputs).blocking
        if blocking:
            raise DatasetError(blocking[0].what, where=blocking[0].file, do=blocking[0].do)
        return settings


def told(error: StudioError) -> Any:
    """An update that shows ``error`` where the user acted."""
    return gr.update(value=words.notice("wrong", error.what, error.where, error.do), visible=True)


def _presets() -> tuple[dict[str, Preset], list[str]]:
    """The presets by name, and what is wrong with those that cannot be read."""
    found, damaged = {}, []
    for path in sorted(presets.FOLDER.glob("*.toml")):
        try:
            found[path.stem] = presets.read(path)
        except SettingsError as error:
            damaged.append(str(error))
    return found, damaged


def _blurb(preset: Preset | None, damaged: list[str]) -> str:
    lines = [preset.blurb] if preset else []
    return "".join(f'<p class="blurb">{words.text(line)}</p>' for line in lines + damaged)


def _bases(outputs: Path) -> list[tuple[str, str]]:
    """The starter, and what earlier runs were trained on."""
    used = {}
    for run in runs.existing(outputs)[:50]:
        try:
            base = run.settings().run.base
        except SettingsError:
            continue
        used[base] = Path(base).name
    used.pop("starter", None)
    return [("Built-in starter", "starter"), *((name, base) for base, name in used.items())]
