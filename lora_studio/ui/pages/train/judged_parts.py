"""The parts of the page that show a run's states, as a tick updates them: saved ones and judged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_studio.config.settings import Settings
from lora_studio.errors import RunError, SettingsError
from lora_studio.jobs.view import RunView
from lora_studio.language import tr
from lora_studio.runs import Run, checkpoints
from lora_studio.ui import outcome, tabs
from lora_studio.ui.pages.train import judged_advice, judged_curves, judged_pictures, saved
from lora_studio.ui.pages.train.judged import Evaluation
from lora_studio.ui.pages.train.judged_curves import Highlight

PARTS = ("advice_card", "advice", "states_card", "learned_card", "learned", "states", "drawn")

_HINT = tr(
    "Style: how far pictures moved from the base model's towards yours, which are 100 %. Subjects: how well they show "
    "their prompts; below the dashed line, the value of your own pictures, they fade. Drift: how far pictures without "
    "the trigger word moved; 0 is unchanged, 1 is another seed."
)


def updates(run: Run, view: RunView, found: Evaluation, step: int | None, outputs: Path) -> dict[str, dict[str, Any]]:
    """What ``PARTS`` show of ``run``; nothing for those that stay hidden. ``step`` is the state that the user chose."""
    read = settings(run)
    shown = _saved(run, read, found, step) | _advice(run, view, found, read, outputs)
    if one := found.at(found.shown(step)):
        data = Path(read.run.data) if read else None
        pictures = judged_pictures.html(run, one, found, data, outputs)
        shown["learned_card"] = {"visible": True}
        shown["learned"] = {"value": curves(view, found, one.step), "visible": True}
        shown["drawn"] = {"value": pictures, "visible": True}
    elif awaited(view, found, read):
        none = f'<h2>{tr("What it learned")}</h2><p class="hint">{tr("No state was judged yet")}</p>'
        shown |= {"learned_card": {"visible": True}, "learned": {"value": none, "visible": True}}
    return shown


def awaited(view: RunView, found: Evaluation, settings: Settings | None) -> bool:
    """Whether the first state will be judged, or is. What is shown then has its place before, so that nothing jumps."""
    every = settings is not None and settings.evaluation.evaluate_every and not settings.run.has_pairs
    planned = bool(view.started and every and not view.state.ended)
    return not found.states and (found.works or planned)


def _advice(
    run: Run, view: RunView, found: Evaluation, settings: Settings | None, outputs: Path
) -> dict[str, dict[str, Any]]:
    try:
        advice = judged_advice.html(run, view, found, settings, outputs)
    except OSError as error:  # the download of a kept state
        advice = outcome.wrong(error)
    return {"advice_card": {"visible": True}, "advice": {"value": advice, "visible": True}} if advice else {}


def _saved(run: Run, settings: Settings | None, found: Evaluation, step: int | None) -> dict[str, dict[str, Any]]:
    try:
        states, damaged = checkpoints.listed(run), checkpoints.damaged(run, quick=True)
        rows, most = states or damaged or found.steps, settings.saving.keep_previewed if settings else 0
        shown = saved.html(states, damaged, found, found.shown(step), most) if rows else ""
        if len({*found.saved, *found.steps}) > 1:
            sheet = tabs.link("draw", f"sheet:{run.name}", tr("Contact sheet"))
            shown += f'<div class="ways">{sheet}</div>'
    except RunError as error:
        shown = outcome.wrong(error)
    return {"states_card": {"visible": True}, "states": {"value": shown, "visible": True}} if shown else {}


def curves(view: RunView, found: Evaluation, shown: int) -> str:
    """The charts of what the states learned, side by side."""
    total = view.started.total_steps if view.started and not view.state.ended else 0
    highlight = Highlight(found.proposed, shown)
    style, subjects = (chart(found.states, total, highlight) for chart in (judged_curves.style, judged_curves.subjects))
    return f'<h2>{tr("What it learned")}</h2><div class="curves">{style}{subjects}</div><p class="hint">{_HINT}</p>'


def announcement(found: Evaluation, before: frozenset[int] | None) -> str:
    """What a screen reader says once states were judged that were not ``before``."""
    new = sorted({one.step for one in found.states} - (before or frozenset())) if before is not None else []
    one = found.at(new[-1]) if new else None
    return (
        tr("Step {step:,} judged: style {percent}.", step=one.step, percent=judged_curves.percent(one.style))
        if one
        else ""
    )


def settings(run: Run) -> Settings | None:
    """The run's settings; None where they cannot be read."""
    try:
        return run.settings()
    except SettingsError:  # the state says so
        return None
