"""What a check of the memory says, as HTML: while it is at work, and in the end."""

from __future__ import annotations

from typing import Any

from lora_studio.config.settings import SPECS, Settings
from lora_studio.jobs.view import RunView
from lora_studio.ui import form, words

PRESS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button) trigger('click', {act: button.dataset.act, way: button.dataset.way ?? ''});
});
"""
"""Tells which button was pressed; for ``gr.HTML(js_on_load=...)``."""
_CANCEL = '<button type="button" class="way" data-act="close">Cancel</button>'
_CLOSE = '<button type="button" class="out" data-act="close" title="Put it away" aria-label="Put it away">×</button>'


def busy(view: RunView, reckoned: dict[str, Any] | None = None) -> str:
    """That it is at work: how far, and what was ``reckoned`` before."""
    return _panel(
        "running",
        f"<b>Checking the memory</b> <span>· {words.text(_stage(view, reckoned))}</span>",
        _CANCEL,
        _expected(reckoned) if reckoned else "",
    )


def found(told: dict[str, Any], settings: Settings) -> str:
    """What the trial found."""
    measured, place = told["measured"], _place(told)
    if measured is None:
        return _panel("failed", "<b>It does not fit.</b>", _CLOSE, f"<p>{_capital(place)} ran out.</p>" + _ways(told))
    libraries = ", Python and its libraries included" if _on_cpu(told) else ""
    took = f"<p>The trial took {_size(measured['peak'])} of {place}{libraries}."
    if told["fits"]:
        seconds = measured["step_seconds"]
        step = f"{seconds:.2f} s" if seconds < 10 else words.duration(seconds)
        time = f" A step takes about {step}, so {settings.run.steps:,} steps take about {words.duration(settings.run.steps * seconds)}, previews not counted."
        return _panel("finished", "<b>It fits.</b>", _CLOSE, took + time + "</p>")
    what = "It does not fit." if measured["previews"] else "Training fits, but a preview does not."
    return _panel("failed", f"<b>{what}</b>", _CLOSE, took + "</p>" + _ways(told))


def named(changes: dict[str, Any]) -> str:
    """A change of settings in words: ``Batch: 1 · Accumulation: 4``."""
    return " · ".join(f"{SPECS[key].label}: {form.named(key, value)}" for key, value in changes.items() if key in SPECS)


def _panel(state: str, sentence: str, button: str, more: str) -> str:
    return f'<div class="check {state}" role="status"><div class="head"><p class="sentence"><span class="dot"></span>{sentence}</p>{button}</div>{more}</div>'


def _stage(view: RunView, reckoned: dict[str, Any] | None) -> str:
    if reckoned is None:
        return "looking at the base model"
    if view.last:
        return (
            "drawing a preview"
            if view.last.step == view.started.total_steps
            else f"step {view.last.step + 1} of {view.started.total_steps}"
        )
    if view.started:
        return f"step 1 of {view.started.total_steps}"
    if not view.preparing:
        return "looking at the pictures"
    return view.preparing.stage + (
        f", {view.preparing.done:,} of {view.preparing.total:,}" if view.preparing.total > 1 else ""
    )


def _expected(reckoned: dict[str, Any]) -> str:
    peak, place = _size(reckoned["estimate"]["peak"]), _place(reckoned)
    if reckoned["fits"]:
        return f"<p>Reckoned from the model's shapes: about {peak} of {place}. It should fit; a few steps and a preview show whether it does.</p>"
    return (
        f"<p>Reckoned from the model's shapes: about {peak}, more than {place}. It will hardly fit; it is tried all the same.</p>"
        + _ways(reckoned)
    )


def _ways(told: dict[str, Any]) -> str:
    """What would fit, each to be taken with one press."""
    ways = told["would_fit"]
    if not ways:
        return "<p>No setting brings it down far enough; a smaller base model would.</p>"
    buttons = "".join(
        f'<button type="button" class="way" data-act="take" data-way="{number}">{_way(way)}</button>'
        for number, way in enumerate(ways)
    )
    return f'<p>{"One of these" if len(ways) > 1 else "This"} would fit, by the reckoning:</p><div class="ways">{buttons}</div>'


def _way(way: dict[str, Any]) -> str:
    return f"{words.text(named(way['changes']))} <span>about {_size(way['peak'])}</span>"


def _place(told: dict[str, Any]) -> str:
    memory = _size(told["limit"])
    return f"this computer's {memory}" if _on_cpu(told) else f"the {memory} of {words.text(told['device'])}"


def _on_cpu(told: dict[str, Any]) -> bool:
    return told["device"].startswith("CPU")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _size(count: float) -> str:
    """Memory as makers of cards count it.

    >>> _size(8 * 2**30), _size(3.3 * 2**30), _size(300 * 2**20)
    ('8.0 GB', '3.3 GB', '0.3 GB')
    """
    return f"{max(count / 2**30, 0.1):.1f} GB"
