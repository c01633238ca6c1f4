"""The Train page: set up on the left, watch on the right. Bound together here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.errors import StudioError
from lora_studio.jobs import control, runner, view
from lora_studio.jobs.control import Request
from lora_studio.runs import Run, branching, checkpoints
from lora_studio.ui import plots
from lora_studio.ui.pages.train import live, previews, saved, status
from lora_studio.ui.pages.train.live import PARTS, Tab, Watch
from lora_studio.ui.pages.train.setup import QUIET, Setup
from lora_studio.ui.theme import html

EVERY = 2.0
"""Seconds between two looks at the runs' folders."""

_TO_THE_RUN = (
    "() => { if (window.innerWidth < 900) document.getElementById('run')?.scrollIntoView({behavior: 'smooth'}) }"
)


def build(page: gr.Blocks, outputs: Path, pill: gr.HTML) -> Setup:
    """Places the page in ``page``; ``pill`` is where the head shows the run at work. Gives its left half, where other
    pages open recipes.
    """
    watch = Watch(outputs)
    tab = gr.State(Tab())
    with gr.Row(elem_classes="halves", equal_height=False):
        with gr.Column(scale=5, min_width=330, elem_classes="half"):
            setup = Setup(outputs)
        with gr.Column(scale=8, min_width=330, elem_classes="half", elem_id="run"):
            parts = _place_run()
    parts |= {"pill": pill, "start": setup.start}
    setup.wire(page)
    _wire_run(page, watch, tab, parts, setup)
    gr.api(watch.summary, api_name="runs", queue=False)
    return setup


def _place_run() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Column(elem_classes="card") as parts["blank"]:
        html(status.EMPTY)
    with gr.Column(elem_classes="card", visible=False) as parts["run_card"]:
        with gr.Row(elem_classes="headline"):
            parts["runs"] = gr.Dropdown(
                [], show_label=False, container=False, filterable=False, elem_id="runs", min_width=160
            )
        parts["state"] = html()
        with gr.Row(elem_classes="controls"):
            parts["pause"] = gr.Button("Pause", size="md", min_width=90, elem_id="pause")
            parts["go_on"] = gr.Button("Go on", size="md", min_width=90, variant="primary", elem_id="go-on")
            parts["mend"] = gr.Button("Take it and go on", size="md", min_width=120, variant="primary", elem_id="mend")
            parts["stop"] = gr.Button("Stop and keep", size="md", min_width=120, elem_id="stop")
            parts["preview"] = gr.Button("Preview now", size="md", min_width=110, elem_id="preview-now")
    with gr.Column(elem_classes="card made", visible=False) as parts["result_card"]:
        parts["result"] = html()
    with gr.Column(elem_classes="card", visible=False) as parts["film_card"]:
        html("<h2>Previews</h2>")
        with gr.Row(elem_classes="screen", equal_height=False):
            with gr.Column(scale=2, min_width=260):
                parts["pair"] = html(js_on_load=previews.SLIDE, elem_id="pair")
            with gr.Column(scale=3, min_width=260):
                parts["film"] = html(js_on_load=previews.CHOOSE, elem_id="film")
    with gr.Column(elem_classes="card", visible=False) as parts["states_card"]:
        html("<h2>Saved states</h2>")
        parts["states"] = html(js_on_load=saved.CHOOSE, elem_id="states")
    with gr.Column(elem_classes="card", visible=False) as parts["loss_card"]:
        with gr.Row(elem_classes="headline"):
            html("<h2>Loss</h2>")
            parts["smoothing"] = gr.Slider(
                0,
                0.99,
                value=Tab().smoothing,
                step=0.01,
                label="Smoothing",
                buttons=[],
                elem_id="smoothing",
                min_width=160,
            )
        parts["loss"] = html(js_on_load=plots.POINTER, elem_id="loss")
    return parts


def _wire_run(page: gr.Blocks, watch: Watch, tab: gr.State, parts: dict[str, Any], setup: Setup) -> None:
    shown = [tab, *(parts[name] for name in PARTS)]

    def tick(here: Tab) -> list[Any]:
        return [here, *live.tick(here, watch)]

    def look_at(here: Tab, name: str) -> list[Any]:
        here.look_at(name)
        return tick(here)

    def smooth(here: Tab, weight: float) -> list[Any]:
        here.smoothing = weight
        return tick(here)

    def choose(here: Tab, event: gr.EventData) -> list[Any]:
        step = event.step
        here.prompt, here.step = int(event.prompt), int(step) if str(step).isdigit() else here.step
        return tick(here)

    def start(here: Tab, origin: str, *values: Any) -> list[Any]:
        run, notice = setup.begin(*values, origin=origin)
        if run:
            here.look_at(run.name)
        return [notice, "" if run else origin, gr.update(visible=False) if run else gr.skip(), *tick(here)]

    def at_state(here: Tab, event: gr.EventData) -> list[Any]:
        """A star put on or taken off a saved state, or a branch from it begun in the form."""
        run, step, filled = watch.find(here.run), int(event.step), [gr.skip()] * (3 + len(setup.form.components))
        try:
            if run and event.act == "branch":
                filled = setup.branch_from(run, checkpoints.find(run, step).step)
            elif run:
                checkpoints.star(run, step, event.act == "star")
        except StudioError as error:
            gr.Warning(str(error))
        return [*filled, *tick(here)]

    gr.Timer(EVERY).tick(tick, tab, shown, **QUIET)
    page.load(tick, tab, shown, **QUIET)
    parts["runs"].input(look_at, [tab, parts["runs"]], shown, **QUIET)
    parts["smoothing"].change(smooth, [tab, parts["smoothing"]], shown, trigger_mode="always_last", **QUIET)
    parts["film"].click(choose, tab, shown, **QUIET)
    branch = [setup.origin, setup.branch, setup.branch_from_line, *setup.form.components]
    data = setup.form.fields["data"]
    parts["states"].click(at_state, tab, [*branch, *shown], **QUIET).then(
        setup.look, data, [data, setup.report], **QUIET
    )
    setup.start.click(
        start, [tab, setup.origin, *setup.form.components], [setup.notice, setup.origin, setup.branch, *shown], **QUIET
    ).then(None, js=_TO_THE_RUN, **QUIET)
    for name, act in _ACTIONS.items():
        parts[name].click(_acting(act, watch, tick), tab, shown, **QUIET)


def _acting(act: Any, watch: Watch, tick: Any) -> Any:
    """A button's handler: does ``act`` to the run that the tab shows, and says what is wrong if it cannot."""

    def handler(here: Tab) -> list[Any]:
        if run := watch.find(here.run):
            try:
                act(here, run)
            except StudioError as error:
                gr.Warning(str(error))
        return tick(here)

    return handler


def _go_on(tab: Tab, run: Run) -> None:
    """Lets a paused run go on, or starts the worker of one that is over again; where something changed meanwhile, only
    at a second press.
    """
    if not runner.alive(run) and not tab.asked:
        tab.asked = tuple(branching.changes(run))
        if tab.asked:
            return
    tab.asked = ()
    control.withdraw(run, Request.PAUSE)
    runner.start(run)


def _mend(tab: Tab, run: Run) -> None:
    """Takes the settings that would have kept the run from failing, and goes on with them."""
    failed = view.fold(run).failed
    if failed and failed.changes and not runner.alive(run):
        run = branching.with_changes(run, failed.changes)
        runner.start(run)
        tab.look_at(run.name)


def _asks(request: Request) -> Any:
    return lambda tab, run: control.ask(run, request)


_ACTIONS = {
    "pause": _asks(Request.PAUSE),
    "go_on": _go_on,
    "mend": _mend,
    "stop": _asks(Request.STOP),
    "preview": _asks(Request.PREVIEW),
}
