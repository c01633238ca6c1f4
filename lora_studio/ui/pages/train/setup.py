"""The left half of the page: pictures, base model, preset, settings, and the button that starts."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio import runs
from lora_studio.config.presets import Preset
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.dataset import epochs
from lora_studio.errors import SettingsError, StudioError
from lora_studio.jobs import job, runner, warm
from lora_studio.language import tr
from lora_studio.methods import registry as methods
from lora_studio.optim import registry as optimizers
from lora_studio.optim.registry import RATES
from lora_studio.runs import Run, branching
from lora_studio.training import creating
from lora_studio.ui import field_notes, paths, words
from lora_studio.ui.fields import FormReading, from_field, read
from lora_studio.ui.form import Form, changes, differences, preset_values, rates, summary, to_fix
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.train import beginning, pictures, timestep_plot
from lora_studio.ui.pages.train.check import Check, CheckState
from lora_studio.ui.pages.train.outlook import Outlook
from lora_studio.ui.pages.train.preset_form import PresetForm
from lora_studio.ui.scene import base_look
from lora_studio.ui.theme import html

_HINT = tr(
    "Twenty to forty pictures in one style are enough: PNG, JPEG, WebP and others. "
    '<a href="#pictures">Open or drop them in Pictures</a>.'
)
_KEEP_DRAFT = "(preset, ...values) => ({preset, fields: Object.fromEntries(%s.map((key, i) => [key, values[i]]))})"
"""Stores what was typed in the browser; ``restore`` reads it."""
_RESTORED = "() => { window.formRestored = true; window.dispatchEvent(new Event('form-restored')) }"
"""Tells other pages that the form holds what was typed last."""
_SHORT = ("trigger", "steps", "rank", "preview_prompts")
"""The settings above the fold, after the base model, the preset and the name."""
_LOOKED = ("nested", "base", "validation_share", "seed", "resolution", "max_upscale")
"""The settings that what is said of the pictures depends on most."""
_HIDDEN = gr.update(visible=False)
_GONE = gr.update(value="", visible=False)
_starting = threading.Lock()

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How the page's handlers are bound: they run at once, do not cover what they change, and are not part of the API."""


_IMPORTED = 60.0
"""Seconds in which the libraries are imported that estimate the memory."""
TypedRates = dict[str, dict[str, float]]
"""Rates that were typed, by their rule and the setting: one rule's rates mean nothing to another."""
_RULING = ("optimizer", "method")
"""The settings that decide what a rate means."""


def _rule(optimizer: str, method: str) -> str:
    """The same for those to which rates mean the same."""
    return f"{optimizers.get(optimizer).update_rule} {methods.get(method).relative_rate:g}"


class Setup:
    """The fields and handlers of the left half."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.preset_form = PresetForm(outputs)
        first = self.preset_form.first
        self.samples = pictures.samples()
        self.sample = next(iter(self.samples.values()), "")
        """The name of the sample style that the form names at first; empty where there is none."""
        self.outlook = Outlook(outputs)
        self.form = Form({**preset_values(first), "data": next(iter(self.samples), "")})
        self._place()

    def _place(self) -> None:
        with gr.Column(elem_classes="card", elem_id="train-pictures"):
            self._place_pictures()
        with gr.Column(elem_classes="card", elem_id="train-form"):
            html(f"<h2>{tr('Training')}</h2>")
            self._place_recipe()
            with gr.Accordion(tr("All settings"), open=False, elem_classes="fold", elem_id="all-settings") as self.all:
                self.changes = html(visible=False, elem_id="changes")
                self.reset = gr.Button(tr("Reset to the preset"), size="sm", visible=False, elem_id="reset")
                self.form.place_all({timestep_plot.KEYS[-1]: self._place_timesteps})
            self.summary = html(visible=False, elem_id="summary")
            looked, reading = self.outlook.base_of(read(self.form.initial))
            self.notes = html(field_notes.notes(reading, (), looked), js_on_load=field_notes.place())
        with gr.Column(elem_classes="go"):
            self.check = Check(self.outputs, self.form, self._settings, self.outlook.measured)
            self.check.place()
            self.cost = html(self.outlook.cost(reading, looked), elem_id="cost")
            self.check.tells, self.check.told = self._cost_of, [self.cost]
            self.notice, self.refusal = html(visible=False), html(visible=False)
            self.origin = gr.State("")
            self.typed = gr.State({})
            with gr.Row(elem_classes="branch", visible=False) as self.branch:
                self.branch_from_line = html()
                self.forget = gr.Button(tr("Start from scratch"), size="sm", min_width=120, elem_id="forget-origin")
            with gr.Row(elem_classes="begin"):
                self.start = gr.Button(
                    tr("Start training"), variant="primary", size="lg", min_width=150, elem_id="start"
                )
                self.check.place_button()
        self.draft = gr.BrowserState({}, storage_key="lora-studio-draft", secret="lora-studio", render=False)
        """To be rendered outside of the tabs: in one that is not open it would be read too late."""

    def _place_timesteps(self) -> None:
        started = (self.form.start.get(key, SPECS[key].default) for key in timestep_plot.KEYS)
        self.timesteps = html(timestep_plot.chart(*started), elem_id="timesteps")

    def _place_pictures(self) -> None:
        link = f'<a class="way" href="#pictures">{tr("Open in Pictures")}</a>'
        html(f"<h2>{tr('Pictures')}</h2>{link}", elem_classes="small-headline")
        self.report = html(elem_id="pictures")
        with gr.Column(elem_classes="fields"):
            help = tr("Path of a folder of pictures, or of a .toml file of prompt pairs.")
            data = self.form.field("data", label=tr("Folder"), info=help, placeholder="~/Pictures/my-style")
        assert isinstance(data, gr.Textbox)
        self.data = data

    def _place_recipe(self) -> None:
        with gr.Column(elem_classes="fields"):
            base = gr.Dropdown(
                _bases(self.outputs),
                value="starter",
                allow_custom_value=True,
                label=tr("Base model"),
                info=tr("The starter, or the path of your own."),
                elem_id="set-base",
            )
            self.form.adopt("base", base)
            self.preset_form.place_field()
        self.preset_form.place_tools()
        with gr.Column(elem_classes="fields"):
            self.form.field("name", info=tr("Of the run and its file. Empty: the folder's."), placeholder="my-style")
            for key in _SHORT:
                self.form.field(key)

    def wire(self, page: gr.Blocks) -> None:
        """Binds everything but Start, which concerns both halves."""
        fields, data = self.form.components, self.data
        looking = [data.submit, data.blur, *(self.form.fields[key].change for key in _LOOKED)]
        self.looks(self.gathers(partial(gr.on, looking), trigger_mode="always_last").then)
        filled = [*self.preset_form.chosen, self.typed, *fields]
        choose_options: dict[str, Any] = {"inputs": self.preset, "outputs": filled, **QUIET}
        self.preset.input(self.choose, **choose_options)
        self.reset.click(self.choose, **choose_options)
        rate_fields, ruling = [self.form.fields[key] for key in RATES], [self.form.fields[key] for key in _RULING]
        for field in ruling:
            field.input(self.take_rates, [self.preset, self.typed, *ruling], rate_fields, **QUIET)
        for key, field in zip(RATES, rate_fields, strict=True):
            kept = partial(self.keep_rate, key)
            field.input(kept, [self.typed, field, *ruling], self.typed, trigger_mode="always_last", **QUIET)
        self.form.explain()
        changes = [one.change for one in [self.preset, *fields]]
        told = self.gathers(partial(gr.on, changes), trigger_mode="always_last")
        about = [
            self.summary,
            self.changes,
            self.reset,
            self.all,
            self.notes,
            self.cost,
            self.check.stale,
            self.refusal,
        ]
        told.then(self._changed, [self.check.seen, self.draft], about, trigger_mode="always_last", **QUIET)
        shown = [self.form.fields[key] for key in timestep_plot.KEYS]
        plot_options: dict[str, Any] = {"outputs": self.timesteps, "trigger_mode": "always_last", **QUIET}
        gr.on([field.change for field in shown], timestep_plot.chart, shown, **plot_options)
        self.pressed = self.gathers(self.start.click)
        """The press on Start, with the form as it was then: first, as the handlers of an event run one by one."""
        self.check.wire(self.gathers(self.check.button.click), self.draft, self.start, QUIET)
        self.forget.click(lambda: {self.origin: "", self.branch: _HIDDEN}, None, [self.origin, self.branch], **QUIET)
        restored = page.load(self.restore, [self.draft], [*self.preset_form.chosen, *fields], **QUIET)
        self.preset_form.wire(self.gathers, self.draft, self._kept_settings, **QUIET)
        self.looks(self.keeps(restored.then(None, js=_RESTORED, **QUIET)).then)

    def looks_again(self, tab: gr.Tab) -> None:
        """Looks at the dataset whenever ``tab`` is opened: it may have been edited on another page."""
        self.looks(tab.select)

    def looks(self, event: Any) -> None:
        """Looks at the dataset that ``draft`` names, at ``event``, such as ``button.click``."""
        looked = event(self._look, self.draft, [self.data, self.report, self.cost], **QUIET)
        ready = looked.then(lambda: warm.wait(_IMPORTED), None, None, **QUIET)
        ready.then(self._cost_now, self.draft, self.cost, **QUIET)

    def _cost_now(self, kept: dict[str, Any]) -> Updates:
        fields = kept.get("fields", {})
        return self._cost_of(self.form.kept(fields)) if set(self.form.fields) <= set(fields) else {}

    def _look(self, kept: dict[str, Any]) -> Updates:
        if not set(self.form.fields) <= set(kept.get("fields", ())):  # the form is still to be restored
            return {self.data: gr.skip()}
        reading = read(self.form.raw(self.form.kept(kept["fields"])))
        looked, reading = self.outlook.base_of(reading)
        seen = self.look(reading.values["data"], reading.usable)
        return {**seen, self.cost: self.outlook.cost(reading, looked)}

    def gathers(self, event: Any, **how: Any) -> Any:
        """Puts the whole form into ``draft`` at ``event``, such as ``button.click``; handlers of the form follow it and
        take ``draft``. One with a hundred fields as inputs would slow down all later events: gradio looks up each
        input of whatever has run.
        """
        form = [self.preset, *self.form.components]
        return event(None, form, self.draft, js=_KEEP_DRAFT % json.dumps(list(self.form.fields)), **QUIET, **how)

    def keeps(self, event: Any) -> Any:
        """Stores the form once ``event`` is done: fields of a tab that is not open tell of no change."""
        return self.gathers(event.then)

    def choose(self, name: str | None) -> Updates:
        """Fills in a preset's settings; names, trigger words and prompts stay."""
        preset = self._preset(name)
        return {**self.preset_form.show(preset), self.typed: {}, **self.form.fill(preset_values(preset))}

    def take_rates(self, name: str | None, typed: TypedRates, optimizer: str, method: str) -> Updates:
        """Fills in the rates of an optimizer or a method that the user chose, those that were typed for it before:
        another one's would learn nothing, or diverge.
        """
        own = typed.get(_rule(optimizer, method), {})
        return self.form.fill({**rates(optimizer, self._preset(name), method), **own})

    def keep_rate(self, key: str, typed: TypedRates, value: str, optimizer: str, method: str) -> TypedRates:
        """Remembers a rate that was typed, for when the user comes back to an optimizer and a method of that rule."""
        rule, rate = _rule(optimizer, method), from_field(SPECS[key], value)
        return {**typed, rule: {**typed.get(rule, {}), key: rate}} if isinstance(rate, int | float) else typed

    def restore(self, draft: Any) -> Updates:
        """Fills in what the browser has stored, after a reload or a restart."""
        draft = draft if isinstance(draft, dict) else {}
        self.preset_form.look()
        preset, fields = self._preset(draft.get("preset")), draft.get("fields")
        typed = fields if isinstance(fields, dict) else {}
        known = self.form.fill({key: value for key, value in typed.items() if key in SPECS})
        return {**self.preset_form.show(preset or self.preset_form.first), **known}

    def _preset(self, name: object) -> Preset | None:
        return self.preset_form.get(name)

    @property
    def preset(self) -> gr.Dropdown:
        """The preset's field."""
        return self.preset_form.field

    def _kept_settings(self, fields: dict[str, Any]) -> Settings:
        """The settings of what the browser kept of the fields. Raises SettingsError where they are invalid."""
        return _valid(read(self.form.raw(self.form.kept(fields))))

    def _changed(self, seen: CheckState, kept: dict[str, Any]) -> Updates:
        return self.changed(seen, kept["preset"], *self.form.kept(kept["fields"]))

    def changed(self, seen: CheckState, name: str | None, *values: Any) -> Updates:
        """Shows what is wrong or differs from the preset, the button that resets it, and whether the memory check is
        out of date. The reason why no run began goes once nothing is wrong.
        """
        looked, reading = self.outlook.base_of(read(self.form.raw(values)))
        preset = self._preset(name)
        changed = differences(reading.values, preset)
        shown = summary(reading) + self._length(reading.settings)
        chips = changes(changed, preset)
        return {
            self.summary: gr.update(value=shown, visible=bool(shown)),
            self.changes: gr.update(value=chips, visible=bool(chips)),
            self.reset: gr.update(visible=bool(changed)),
            self.all: gr.update(label=_all(len(changed))),
            self.notes: field_notes.notes(reading, changed, looked),
            self.cost: self.outlook.cost(reading, looked),
            self.check.stale: self.check.changed(seen, values),
            self.refusal: _GONE if reading.settings else gr.skip(),
        }

    def _cost_of(self, values: tuple[Any, ...]) -> Updates:
        looked, reading = self.outlook.base_of(read(self.form.raw(values)))
        return {self.cost: self.outlook.cost(reading, looked)}

    def _length(self, settings: Settings | None) -> str:
        """How many steps the epochs are, as HTML; empty where the length is given in steps or cannot be told yet."""
        if settings is None or not settings.run.epochs:
            return ""
        try:
            told = epochs.told(self.checked(settings))
        except (StudioError, OSError):  # which the pictures' report tells
            return ""
        return f'<p class="hint">{words.text(told)}</p>'

    def look(self, data: str, settings: Settings | None = None) -> Updates:
        """Shows the pictures and what is wrong with them under ``settings``, and tidies their path."""
        path = paths.tidy(data)
        warm.want(busy=bool(runner.active(self.outputs) or job.at_work(self.outputs)))
        tidied = gr.skip() if path == data else path  # else what the user types meanwhile would be undone
        told = self.outlook.report(path, settings or Settings()) if path else f'<p class="hint">{_HINT}</p>'
        return {self.data: tidied, self.report: told}

    def begin(self, *values: Any, origin: str = "") -> Run:
        """Starts a run with the form's settings, or adds it to the queue. ``origin`` is the RUN@STEP that it branches
        from, if any.

        Raises:
            StudioError: what has to be fixed first.
        """
        settings = self._settings(values)
        with _starting:
            run = self._same_run(settings, origin) or self._create(settings, origin)
            runner.start(run)
        return run

    def _same_run(self, settings: Settings, origin: str) -> Run | None:
        """The run that does exactly this already, or waits to. A second press, or another tab's, would train the same
        adapter twice.
        """
        for run in runner.at_work(self.outputs):
            parent = run.parent()
            same = run.settings() == settings.changed(name=run.name) and origin == (
                f"{parent['run']}@{parent['step']}" if parent else ""
            )
            if same and run.name.startswith(runs.wanted_name(settings.run)):
                return run
        return None

    def _create(self, settings: Settings, origin: str) -> Run:
        parent = branching.branch_point(origin, self.outputs) if origin else None
        return creating.create(settings, self.outputs, parent, warm.require_possible)

    def branch_from(self, run: Run, step: int) -> Updates:
        """Fills in the run's own settings, to be changed and started from its state of ``step``."""
        told = [tr("Starts from <b>{run}</b>, step {step:,}.", run=words.text(run.name), step=step)]
        if not branching.is_whole(run, step):
            told.append(tr("Its adapter alone was kept, so the branch begins at step 0 with a new optimizer."))
        line = " ".join([*told, tr("Change what you like, then start.")])
        return {
            self.origin: f"{run.name}@{step}",
            self.branch: gr.update(visible=True),
            self.branch_from_line: f'<p class="origin">{line}</p>',
            **self.form.fill(run.settings().flat()),
        }

    def refused(self, error: StudioError, values: tuple[Any, ...]) -> Updates:
        """Shows above the start button why no run began: which settings to fix, or else ``error``."""
        shown = to_fix(read(self.form.raw(values))) or words.notice("wrong", error.what, error.where, error.do)
        return {self.refusal: gr.update(value=shown, visible=True), self.notice: _GONE}

    def _settings(self, values: tuple[Any, ...]) -> Settings:
        """The form's settings, with a dataset that can be trained on.

        Raises:
            SettingsError, DatasetError: what has to be fixed first.
        """
        return self.checked(_valid(read(self.form.raw(values))))

    def checked(self, settings: Settings) -> Settings:
        """As ``beginning.checked``."""
        return beginning.checked(settings, self.outputs)


def _valid(reading: FormReading) -> Settings:
    if reading.settings is None:
        raise SettingsError(" ".join(reading.wrong.values()), do=tr("Fix that, then try again."))
    return reading.settings


def _all(changed: int) -> str:
    """The label of the fold with all settings."""
    return tr("All settings · {changed} changed", changed=changed) if changed else tr("All settings")


def _bases(outputs: Path) -> list[tuple[str, str]]:
    """The starter, and the base models of earlier runs."""
    used = {}
    for run in runs.existing(outputs)[:50]:
        try:
            base = run.settings().run.base
        except SettingsError:
            continue
        used[base] = Path(base).name
    used.pop("starter", None)
    models = ((name, base) for base, name in used.items() if not base_look.refusal(base))
    return [(tr("Built-in starter"), "starter"), *models]
