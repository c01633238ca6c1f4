"""The Train page: the form on the left, the run on the right."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block

from lora_studio import files
from lora_studio.errors import StudioError
from lora_studio.jobs import control, judging, runner, view, warm
from lora_studio.jobs.control import Request
from lora_studio.language import tr
from lora_studio.runs import Run, branching, checkpoints, keeping
from lora_studio.ui import field_notes, folds, plots
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.runs import headline, health_line
from lora_studio.ui.pages.runs.panel import RunsPanel
from lora_studio.ui.pages.train import chosen, film_view, guide, live, said, saved
from lora_studio.ui.pages.train.live import PARTS, RunWatcher, TabState
from lora_studio.ui.pages.train.setup import QUIET, Setup
from lora_studio.ui.theme import html

EVERY = 2.0
"""Seconds between two looks at the runs' folders."""

_AFTER_START = f"""refusal => {{
  {field_notes.FOCUS}
  const wrong = /data-first="(\\w+)"/.exec(refusal)?.[1];
  if (wrong) focusSetting(wrong);
  if (refusal) return;
  const run = document.getElementById('run');
  if (window.innerWidth < 900 || run?.getBoundingClientRect().top < -100) run?.scrollIntoView({{behavior: 'smooth'}});
}}"""
"""After a start the run is in view, also where the button was pressed far down in the settings. After a refused one the
first setting to fix has the focus.
"""

_FORM_SCROLLS = """
const half = document.querySelector('.half:has(+ #run)');
half?.addEventListener('scroll', () => window.dispatchEvent(new Event('scroll')));
"""
"""Lists that are open follow their fields when the form scrolls by itself: gradio looks at the window alone."""

_SHOW_ADDRESSED = """
{
  const open = () => {
    const [tab, ...name] = location.hash.slice(1).split('/');
    if (!element.isConnected || tab !== 'run' || !name.length) return;
    history.replaceState(null, '', '#run');
    trigger('input', {run: decodeURIComponent(name.join('/'))});
  };
  window.addEventListener('hashchange', open);
  open();
}
"""
"""Asks to show the run that the address names, such as ``#run/ink``."""


def build(page: gr.Blocks, outputs: Path, pill: gr.HTML) -> Setup:
    """Places the page in ``page``. ``pill`` is where the header shows the active run. Returns the left half, where
    other pages open recipes.
    """
    watcher = RunWatcher(outputs)
    tab = gr.State(TabState())
    with gr.Row(elem_classes="halves", equal_height=False):
        with gr.Column(scale=5, min_width=330, elem_classes="half"):
            setup = Setup(outputs)
        with gr.Column(scale=8, min_width=330, elem_classes="half", elem_id="run"):
            panel = RunsPanel(watcher)
            parts = _place_run(setup)
    parts |= {"pill": pill, "start": setup.start}
    setup.wire(page)
    _wire_run(page, watcher, tab, parts, setup, panel)
    gr.api(watcher.summary, api_name="runs", queue=False)
    return setup


def _place_run(setup: Setup) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Column(elem_classes="card", visible=False) as parts["blank"]:  # until it is known that there is no run
        parts["guide"] = html(guide.html(setup.sample), js_on_load=guide.PRESS, elem_id="guide")
    with gr.Column(elem_classes="card", visible=False) as parts["run_card"]:
        parts |= headline.place()
        parts["state"] = html(js_on_load=_SHOW_ADDRESSED + _FORM_SCROLLS)
        parts["place"] = gr.Textbox(
            visible=False,
            max_lines=1,
            placeholder=tr("The path of the folder or file"),
            submit_btn=tr("Resume"),
            elem_id="place",
        )
        parts |= _place_controls()
        parts["health"] = html(elem_id="run-health")
        parts["result"] = html(visible=False)
        parts["warnings"] = html(visible=False, js_on_load=folds.STAY, elem_id="warnings")
    parts["said"] = html(said.html("", "", ""), js_on_load=said.TELL, elem_classes="unseen", elem_id="said")
    with gr.Column(elem_classes="card advised", visible=False) as parts["advice_card"]:
        parts["advice"] = html(js_on_load=saved.CHOOSE, elem_id="advice")
    with gr.Column(elem_classes="card", visible=False) as parts["film_card"]:
        parts["chosen"] = html(js_on_load=saved.CHOOSE + chosen.RETURN, elem_id="chosen")
        parts["pair"] = html(
            visible=False, js_on_load=chosen.SLIDE + chosen.CHOOSE_OTHER + saved.CHOOSE, elem_id="pair"
        )
        parts["film"] = html(html_template=film_view.template(), js_on_load=film_view.draw(), elem_id="film")
    with gr.Row(elem_classes="charts", equal_height=False):
        with gr.Column(elem_classes="card", visible=False, min_width=320) as parts["learned_card"]:
            parts["learned"] = html(js_on_load=saved.CHOOSE, elem_id="learned")
        with gr.Column(elem_classes="card", visible=False, min_width=320) as parts["loss_card"]:
            parts |= _place_loss()
    with gr.Column(elem_classes="card", visible=False) as parts["states_card"]:
        html(f"<h2>{tr('Saved states')}</h2>")
        parts["states"] = html(js_on_load=saved.CHOOSE, elem_id="saved-states")
        parts["drawn"] = html(visible=False, js_on_load=saved.CHOOSE, elem_id="drawn")
    return parts


def _place_controls() -> dict[str, Any]:
    with gr.Row(elem_classes="controls"):
        return {
            "pause": gr.Button(tr("Pause"), size="md", min_width=90, elem_id="pause"),
            "resume": gr.Button(tr("Resume"), size="md", min_width=90, variant="primary", elem_id="resume"),
            "apply": gr.Button(tr("Apply and resume"), size="md", min_width=120, variant="primary", elem_id="apply"),
            "stop": gr.Button(tr("Stop and keep"), size="md", min_width=120, elem_id="stop"),
            "preview": gr.Button(tr("Preview now"), size="md", min_width=110, elem_id="preview-now"),
            "tell": html(said.switch(), visible=False, js_on_load=said.remember(), elem_id="tell"),
        }


def _place_loss() -> dict[str, Any]:
    start = TabState().smoothing
    with gr.Row(elem_classes="headline"):
        html(f"<h2>{tr('Loss')}</h2>")
        smoothing = gr.Slider(
            0, 0.99, value=start, step=0.01, label=tr("Smoothing"), buttons=[], elem_id="smoothing", min_width=160
        )
    return {"smoothing": smoothing, "loss": html(js_on_load=plots.pointer(), elem_id="loss")}


def _wire_run(
    page: gr.Blocks,
    watcher: RunWatcher,
    tab: gr.State,
    parts: dict[str, Any],
    setup: Setup,
    panel: RunsPanel,
) -> None:
    shown: list[Block] = [tab, *(parts[name] for name in PARTS)]

    def tick(here: TabState) -> Updates:
        changed = live.tick(here, watcher)
        return {tab: here, **{parts[name]: update for name, update in changed.items()}}

    def smooth(here: TabState, weight: float) -> Updates:
        here.smoothing = weight
        return tick(here)

    def choose(here: TabState, event: gr.EventData) -> Updates:
        step = event.step
        here.prompt, here.step = int(event.prompt), int(step) if str(step).isdecimal() else here.step
        return tick(here)

    def compare(here: TabState, event: gr.EventData) -> Updates:
        here.comparing = True
        return choose(here, event)

    def against(here: TabState, event: gr.EventData) -> Updates:
        here.against = int(event.step) if str(event.step).isdecimal() else None
        return tick(here)

    def find(here: TabState, place: str) -> Updates:
        _note_place(here, place)
        return _acting(_resume, watcher, tick)(here)

    def show_addressed(here: TabState, event: gr.EventData) -> Updates:
        if run := watcher.find(event.run):
            here.show(run.name)
        return tick(here)

    gr.Timer(EVERY).tick(tick, tab, shown, **QUIET)
    page.load(tick, tab, shown, **QUIET)
    parts["state"].input(show_addressed, tab, shown, **QUIET)
    panel.wire(parts["all_runs"], tab, shown, show_addressed)
    health_line.wire(parts["health"], tab, watcher)
    parts["smoothing"].change(smooth, [tab, parts["smoothing"]], shown, trigger_mode="always_last", **QUIET)
    parts["film"].click(choose, tab, shown, **QUIET)
    parts["film"].select(compare, tab, shown, **QUIET)
    parts["pair"].select(against, tab, shown, **QUIET)
    parts["place"].submit(find, [tab, parts["place"]], shown, **QUIET)
    for name, act in _ACTIONS.items():
        parts[name].click(_acting(act, watcher, tick), tab, shown, **QUIET)
    _wire_start(setup, tab, shown, tick, parts["guide"])
    _wire_states(setup, watcher, tab, parts, shown, tick)


def _wire_start(
    setup: Setup, tab: gr.State, shown: list[Block], tick: Callable[[TabState], Updates], guided: gr.HTML
) -> None:
    def start(here: TabState, origin: str, kept: dict[str, Any]) -> Updates:
        return begin(here, setup.form.kept(kept["fields"]), origin)

    def sample(here: TabState) -> Updates:
        return begin(here, tuple(setup.form.initial.values()))

    def begin(here: TabState, values: tuple[Any, ...], origin: str = "") -> Updates:
        try:
            run = setup.begin(*values, origin=origin)
        except StudioError as error:
            return {**setup.refused(error, values), **tick(here)}
        here.show(run.name)
        hidden = gr.update(visible=False)
        gone = gr.update(value="", visible=False)
        return {setup.notice: gone, setup.refusal: gone, setup.origin: "", setup.branch: hidden, **tick(here)}

    outputs = [setup.notice, setup.refusal, setup.origin, setup.branch, *shown]
    setup.pressed.then(start, [tab, setup.origin, setup.draft], outputs, **QUIET).then(
        None, setup.refusal, js=_AFTER_START, **QUIET
    )
    guided.click(sample, tab, outputs, **QUIET)


def _wire_states(
    setup: Setup,
    watcher: RunWatcher,
    tab: gr.State,
    parts: dict[str, Any],
    shown: list[Block],
    tick: Callable[[TabState], Updates],
) -> None:
    branch = [setup.origin, setup.branch, setup.branch_from_line, *setup.form.components]

    def pressed(here: TabState, event: gr.EventData) -> Updates:
        """Does with a state what was pressed, or fills the form to branch from it."""
        run, step = watcher.find(here.run), int(event.step)
        filled: Updates = {}
        here.refused = here.refused_in = None
        try:
            if run and event.act == "branch":
                filled = setup.branch_from(run, branching.require_state(run, step))
            elif run and event.act in _WITH_STATE:
                _WITH_STATE[event.act](here, run, step)
        except StudioError as error:
            here.refused = error
        except OSError as error:
            here.refused = files.refusal(error, tr("That cannot be done"), run.folder if run else watcher.outputs)
        return filled | tick(here)

    def show(here: TabState, event: gr.EventData) -> Updates:
        here.step = int(event.step)
        return tick(here)

    for part in ("states", "learned", "drawn", "advice", "chosen", "pair"):
        pressing = parts[part].click(pressed, tab, [*branch, *shown], **QUIET)
        setup.looks(setup.keeps(pressing).then)
        parts[part].input(show, tab, shown, **QUIET)


def _judge(tab: TabState, run: Run, step: int) -> None:
    """Judges the states that were not judged. What was pressed twice, or in two tabs, is started once."""
    job = judging.of(run)
    if job is None or not job.alive:
        judging.start(run)


def _compare(tab: TabState, run: Run, step: int) -> None:
    tab.comparing = True


def _close(tab: TabState, run: Run, step: int) -> None:
    tab.comparing, tab.against = False, None


def _stop_judging(tab: TabState, run: Run, step: int) -> None:
    if job := judging.of(run):
        job.cancel()


_WITH_STATE: dict[str, Callable[[TabState, Run, int], object]] = {
    "keep": lambda tab, run, step: keeping.keep(run, step),
    "star": lambda tab, run, step: checkpoints.star(run, step),
    "unstar": lambda tab, run, step: checkpoints.star(run, step, on=False),
    "judge": _judge,
    "stop-judging": _stop_judging,
    chosen.COMPARE: _compare,
    chosen.CLOSE: _close,
}
"""What the buttons of states do."""


Action = Callable[[TabState, Run], None]


def _acting(act: Action, watcher: RunWatcher, tick: Callable[[TabState], Updates]) -> Callable[[TabState], Updates]:
    """A button's handler: applies ``act`` to the run that the tab shows, and shows its error if it fails."""

    def handler(here: TabState) -> Updates:
        here.refused = here.refused_in = None
        if run := watcher.find(here.run):
            try:
                act(here, run)
            except StudioError as error:
                here.refused = error
            except OSError as error:
                here.refused = files.refusal(error, tr("The request cannot be left for the run"), run.folder)
        return tick(here)

    return handler


def _note_place(tab: TabState, place: str) -> None:
    """Notes that what the last press did not find is now at ``place``."""
    if tab.lost and place.strip():
        tab.moved[tab.lost] = os.path.abspath(os.path.expanduser(place.strip()))


def _resume(tab: TabState, run: Run) -> None:
    """Resumes a paused run, or starts the worker of an ended one again. Where something has changed since its newest
    state was saved, the first press shows that and the second one resumes. What moved is looked for at its new place.
    """
    if not runner.alive(run) and not tab.unconfirmed:
        tab.unconfirmed = tuple(branching.changes(run, run.settings().changed(**tab.moved)))
        if tab.unconfirmed:
            return
    tab.unconfirmed = ()
    control.withdraw(run, Request.PAUSE)
    if not runner.alive(run):
        run = branching.with_changes(run, tab.moved, warm.require_possible)
        runner.start(run)
        tab.moved = {}
        tab.show(run.name)


def _apply_and_resume(tab: TabState, run: Run) -> None:
    """Applies the settings that a failure offers, and resumes the run with them."""
    failed = view.fold(run).failed
    if failed and failed.changes and not runner.alive(run):
        run = branching.with_changes(run, failed.changes)
        runner.start(run)
        tab.show(run.name)


def _asks(request: Request) -> Action:
    return lambda tab, run: control.ask(run, request)


_ACTIONS: dict[str, Action] = {
    "pause": _asks(Request.PAUSE),
    "resume": _resume,
    "apply": _apply_and_resume,
    "stop": _asks(Request.STOP),
    "preview": _asks(Request.PREVIEW),
}
