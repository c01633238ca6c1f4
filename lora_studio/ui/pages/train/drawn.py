"""What a run has drawn and measured, as a tick updates it: the film and the charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from lora_studio.jobs.view import RunView
from lora_studio.runs import Run
from lora_studio.ui import plots, rate_plot
from lora_studio.ui.pages.train import chosen, judged_parts, previews
from lora_studio.ui.pages.train.judged import Evaluation


class FilmLook(Protocol):
    """What a tab has chosen to see of the film."""

    step: int | None
    prompt: int
    comparing: bool
    against: int | None


def charts(smoothing: float, view: RunView, found: Evaluation) -> dict[str, dict[str, Any]]:
    """The loss, further measures, and where the learning rate was looked for. ``smoothing`` is of the loss."""
    total = 0 if view.state.ended or not view.started else view.started.total_steps
    chart = plots.loss(
        [(one.step, one.loss) for one in view.steps],
        [(one.step, one.value) for one in view.validations],
        total,
        smoothing,
        found.proposed,
    )
    for name, values in view.measures.items():
        if name != "validation":
            chart += plots.measure(values, total)
    if view.rate:
        chart += rate_plot.chart(view.rate)
    return {"loss_card": {"visible": bool(view.steps or view.rate)}, "loss": {"value": chart, "visible": True}}


def film(
    tab: FilmLook, run: Run, view: RunView, found: Evaluation, step: int | None, outputs: Path
) -> dict[str, dict[str, Any]]:
    """The film with its head, and the chosen frame large where it is compared; nothing before the first preview. Where
    ``tab`` has chosen a prompt that the run does not draw, it gets the first one. ``step`` is the chosen one.
    """
    strip = previews.filmstrip(view)
    if not strip.prompts:
        return {}
    if tab.prompt not in strip.prompts:
        tab.prompt = min(strip.prompts)
    settings = judged_parts.settings(run)
    trigger = settings.run.trigger if settings else ""
    to_come = [] if view.state.ended else previews.planned(settings, view)
    lowest = min(view.validations, key=lambda one: one.value).step if view.validations else None
    awaits = judged_parts.awaited(view, found, settings)
    frames = previews.data(run, strip, step, tab.prompt, outputs, found, lowest, to_come, trigger, awaits)
    moving = tab.step is None and not view.state.ended
    head = chosen.head(run, strip, step, tab.prompt, outputs, found, tab.comparing, moving, trigger)
    pair = chosen.pair(run, strip, step, tab.prompt, outputs, tab.against) if tab.comparing else ""
    return {
        "film_card": {"visible": True},
        "chosen": {"value": head, "visible": True},
        "pair": {"value": pair, "visible": bool(pair)},
        "film": {"value": frames, "visible": True},
    }
