"""The Sweeps page: what is tried on the left, what was found on the right. Everything is bound together here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.config.specs import SPECS
from lora_studio.errors import RunError, SettingsError, StudioError
from lora_studio.jobs import sweeping
from lora_studio.jobs.sweeping import SweepingJob
from lora_studio.language import declared, tr
from lora_studio.sweeps import results, space, study
from lora_studio.sweeps.outcome import Trial
from lora_studio.sweeps.space import Sweep
from lora_studio.sweeps.study import Study
from lora_studio.ui import words
from lora_studio.ui.blank import blank, press
from lora_studio.ui.fields import from_field
from lora_studio.ui.outcome import Updates, done, wrong
from lora_studio.ui.pages.sweeps import charts, status, table
from lora_studio.ui.pages.train.setup import QUIET, Setup
from lora_studio.ui.theme import html

EVERY = 2.0
"""Seconds between two looks at the study that is shown."""
_FROM_THE_FORM = ("data", "base", "vae", "text_encoders", "trigger", "nested", "device")
"""What a study takes over from the form of the Train page; the rest is the sweep's."""
_HIDDEN = gr.update(visible=False)


@dataclass
class SweepsTab:
    """What one browser tab shows. ``seen`` changes whenever there is something new to draw."""

    study: str = ""
    trial: int | None = None
    axis: str = ""
    seen: object = None


class SweepsPage:
    """The page's components and handlers."""

    def __init__(self, outputs: Path, setup: Setup):
        self.outputs, self.setup = outputs, setup
        self.sweeps, self.damaged = _sweeps()
        self.tab = gr.State(SweepsTab())
        with gr.Row(elem_classes="halves", equal_height=False):
            with gr.Column(scale=4, min_width=330, elem_classes="half"):
                self._place_choice()
                self._place_study()
            with gr.Column(scale=9, min_width=330, elem_classes="half"):
                self._place_results()

    def _place_choice(self) -> None:
        first = next(iter(self.sweeps.values()), None)
        with gr.Column(elem_classes="card"):
            html(f"<h2>{words.text(tr('Try many settings'))}</h2>")
            self.source = html(elem_id="sweep-source")
            self.sweep = gr.Dropdown(
                [(declared(sweep.title), name) for name, sweep in self.sweeps.items()],
                value=first.name if first else None,
                filterable=False,
                label=tr("Sweep"),
                info=tr("Which settings are varied. Files of your own in presets/sweeps/ appear here too."),
                elem_id="sweep",
            )
            self.about = html(status.about(first, None) + "".join(self.damaged), elem_id="sweep-about")
            self.notice = html(visible=False)
            self.start = gr.Button(tr("Start the sweep"), variant="primary", size="lg", elem_id="start-sweep")

    def _place_study(self) -> None:
        with gr.Column(elem_classes="card", visible=False) as self.study_card:
            self.studies = gr.Dropdown([], label=tr("Sweep"), filterable=False, elem_id="studies")
            self.state = html(elem_id="sweep-state")
            with gr.Row(elem_classes="controls"):
                self.stop = gr.Button(tr("Stop"), size="md", min_width=90, elem_id="stop-sweep")
                self.resume = gr.Button(
                    tr("Continue"), size="md", min_width=90, variant="primary", elem_id="resume-sweep"
                )

    def _place_results(self) -> None:
        with gr.Column(elem_classes="card") as self.blank:
            html(_empty())
        with gr.Column(elem_classes="card", visible=False) as self.table_card:
            html(f"<h2>{words.text(tr('Trials'))}</h2>")
            self.finding = html(elem_id="sweep-finding")
            self.chosen = html(elem_id="sweep-trial")
            with gr.Row(elem_classes="controls"):
                self.use = gr.Button(tr("Use these settings"), size="md", min_width=150, elem_id="use-trial")
                self.keep = gr.Button(tr("Keep its run"), size="md", min_width=120, elem_id="keep-trial")
            self.said = html(visible=False, elem_id="sweep-said")
            self.table = html(js_on_load=table.CHOOSE, elem_id="trials")
        with gr.Column(elem_classes="card", visible=False) as self.charts_card:
            html(f"<h2>{words.text(tr('Across all settings'))}</h2>")
            self.parallel = html(elem_id="parallel")
            with gr.Row(elem_classes="headline"):
                html(f"<h2>{words.text(tr('Along one setting'))}</h2>")
                self.axis = gr.Dropdown(
                    [], show_label=False, label=tr("Setting"), container=False, filterable=False, elem_id="axis"
                )
            self.response = html(elem_id="response")

    def wire(self, tab: gr.Tab, tabs: gr.Tabs) -> None:
        """Binds everything; ``tab`` is the page's own among ``tabs``."""
        form = [self.setup.form.fields[key] for key in _FROM_THE_FORM]
        shown = [self.tab, *self._shown]
        described = [self.source, self.about]
        tab.select(self.describe, [self.sweep, *form], described, **QUIET).then(self.look, self.tab, shown, **QUIET)
        self.sweep.input(self.describe, [self.sweep, *form], described, **QUIET)
        gr.Timer(EVERY).tick(self.tick, self.tab, shown, **QUIET)
        self.start.click(self.begin, [self.tab, self.sweep, *form], [self.notice, *shown], **QUIET)
        self.studies.input(self.show, [self.tab, self.studies], shown, **QUIET)
        self.axis.input(self.along, [self.tab, self.axis], shown, **QUIET)
        self.table.click(self.choose, self.tab, [self.said, *shown], **QUIET)
        self.stop.click(self.cancel, self.tab, [self.notice, *shown], **QUIET)
        self.resume.click(self.go_on, self.tab, [self.notice, *shown], **QUIET)
        self.keep.click(self.kept, self.tab, self.said, **QUIET)
        filled = [tabs, self.said, self.setup.notice, *self.setup.form.components]
        used = self.use.click(lambda here: self.used(here, tabs), self.tab, filled, **QUIET)
        self.setup.keeps(used)

    @property
    def _shown(self) -> list[Any]:
        """What ``look`` changes."""
        left = [self.study_card, self.studies, self.state, self.stop, self.resume]
        right = [self.blank, self.table_card, self.finding, self.table, self.chosen, self.use, self.keep]
        return [*left, *right, self.charts_card, self.parallel, self.axis, self.response]

    def describe(self, name: str | None, *form: Any) -> Updates:
        """What the sweep would do, and with which pictures."""
        chosen, values = self.sweeps.get(name or ""), dict(zip(_FROM_THE_FORM, form, strict=True))
        pace = status.pace(self.outputs, str(values["base"]), chosen)
        return {self.source: status.source(values), self.about: status.about(chosen, pace) + "".join(self.damaged)}

    def begin(self, here: SweepsTab, name: str | None, *form: Any) -> Updates:
        """Begins a study of the sweep over the form's pictures, or continues it."""
        try:
            chosen = self.sweeps[name or ""]
            given = {key: from_field(SPECS[key], raw) for key, raw in zip(_FROM_THE_FORM, form, strict=True)}
            made = study.begin(chosen, self.setup.checked(chosen.base(**given)), self.outputs)
            sweeping.start(made)
        except StudioError as error:
            return {self.notice: gr.update(value=wrong(error), visible=True), **self.look(here)}
        here.study, here.trial = made.name, None
        return {self.notice: _HIDDEN, **self.look(here)}

    def cancel(self, here: SweepsTab) -> Updates:
        """Stops the study that is shown."""
        return self._acting(here, lambda job: job.cancel())

    def go_on(self, here: SweepsTab) -> Updates:
        """Continues the study that is shown."""
        return self._acting(here, lambda job: job.resume())

    def _acting(self, here: SweepsTab, act: Any) -> Updates:
        notice: Any = _HIDDEN
        try:
            act(SweepingJob(study.find(here.study, self.outputs).folder))
        except StudioError as error:
            notice = gr.update(value=wrong(error), visible=True)
        return {self.notice: notice, **self.look(here)}

    def show(self, here: SweepsTab, name: str) -> Updates:
        """Shows another study."""
        here.study, here.trial, here.axis = name, None, ""
        return self.look(here)

    def along(self, here: SweepsTab, axis: str) -> Updates:
        """Draws the response along another axis."""
        here.axis = axis
        return self.look(here)

    def choose(self, here: SweepsTab, event: gr.EventData) -> Updates:
        """Chooses the trial that was pressed."""
        here.trial = int(event.trial)
        return {self.said: _HIDDEN, **self.look(here)}

    def kept(self, here: SweepsTab) -> Any:
        """Copies the run of the chosen trial to the other runs."""
        try:
            run = study.keep(study.find(here.study, self.outputs), here.trial or 0)
        except StudioError as error:
            return gr.update(value=wrong(error), visible=True)
        return gr.update(
            value=done(tr("{name} is now among the runs and in the library.", name=run.name)), visible=True
        )

    def used(self, here: SweepsTab, tabs: gr.Tabs) -> Updates:
        """Puts the settings of the chosen trial into the form of the Train page."""
        try:
            shown = study.find(here.study, self.outputs)
            trial = next(one for one in shown.noted() if one.number == here.trial)
            values = shown.sweep.chosen(trial.params)
        except StudioError as error:
            return {self.said: gr.update(value=wrong(error), visible=True)}
        told = done(
            tr("The settings of trial {number} of {name}.", number=trial.number, name=shown.name),
            tr("{settings}.", settings=results.described(trial)),
        )
        form = self.setup.form.fill(values)
        notice = gr.update(value=told, visible=True)
        return {tabs: gr.update(selected="train"), self.said: _HIDDEN, self.setup.notice: notice, **form}

    def tick(self, here: SweepsTab) -> Updates:
        """Draws what is new."""
        found = self._study(here)
        signature = status.signature(found) if found else None
        return {self.tab: here} if signature == here.seen else self.look(here)

    def look(self, here: SweepsTab) -> Updates:
        """Draws the study that is shown, or the latest."""
        found = self._study(here)
        if found is None:
            return {self.tab: here, self.study_card: _HIDDEN, self.blank: gr.update(visible=True)}
        here.study, here.seen = found.name, status.signature(found)
        job, names = SweepingJob(found.folder), [one.name for one in study.listed(self.outputs)]
        try:
            seen, sweep = job.view(), found.sweep
        except RunError as error:
            return {self.tab: here, self.state: wrong(error), self.study_card: gr.update(visible=True)}
        return {
            self.tab: here,
            self.study_card: gr.update(visible=True),
            self.studies: gr.update(choices=names, value=found.name),
            self.state: status.html(job, seen),
            self.stop: gr.update(visible=not seen.state.ended, interactive=not seen.stopping),
            self.resume: gr.update(visible=seen.can_resume),
            **self._results(here, sweep, seen.trials),
        }

    def _results(self, here: SweepsTab, sweep: Sweep, trials: list[Trial]) -> Updates:
        best = results.best(trials)
        measured = [one.number for one in trials if one.outcome]
        if here.trial not in measured:
            here.trial = best.trial.number if best else None
        here.axis = here.axis if here.axis in sweep.axes else next(iter(sweep.axes))
        chosen = next((one for one in trials if one.number == here.trial), None)
        return {
            self.blank: gr.update(visible=not trials),
            self.table_card: gr.update(visible=bool(trials)),
            self.finding: table.finding(best),
            self.table: table.html(sweep, trials, best, here.trial),
            self.chosen: table.actions(chosen),
            self.use: gr.update(visible=chosen is not None),
            self.keep: gr.update(visible=chosen is not None),
            self.charts_card: gr.update(visible=bool(measured)),
            self.parallel: charts.parallel(sweep, trials, here.trial),
            self.axis: gr.update(choices=[(SPECS[key].label, key) for key in sweep.axes], value=here.axis),
            self.response: charts.response(sweep, trials, here.axis, here.trial),
        }

    def _study(self, here: SweepsTab) -> Study | None:
        """The study that is shown, or the latest."""
        listed = study.listed(self.outputs)
        return next((one for one in listed if one.name == here.study), next(iter(listed), None))


def _empty() -> str:
    sentences = tr(
        "Choose what to vary and press {button}. It makes a short training run for each combination and judges what "
        "it draws. The table of all trials, and which of them cannot be told apart, appears here.",
        button=press(tr("Start the sweep")),
    )
    return blank("sweeps", tr("No sweep yet"), sentences)


def _sweeps() -> tuple[dict[str, Sweep], list[str]]:
    """The sweeps by name, and the errors of those that cannot be read, as HTML."""
    found: dict[str, Sweep] = {}
    damaged: list[str] = []
    for path in sorted(space.FOLDER.glob("*.toml")):
        try:
            found[path.stem] = space.read(path)
        except SettingsError as error:
            damaged.append(words.notice("wrong", error.what, error.where, error.do))
    return found, damaged
