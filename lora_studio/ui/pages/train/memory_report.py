"""The result of a memory check as HTML: while it runs, and when it has finished."""

from __future__ import annotations

from typing import Any

from lora_studio.config.settings import Settings
from lora_studio.config.slices import AugmentationSettings
from lora_studio.config.specs import SPECS
from lora_studio.dataset import augmentation
from lora_studio.jobs.view import RunView
from lora_studio.language import tr
from lora_studio.ui import form, words
from lora_studio.ui.icons import icon

PRESS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button) trigger('click', {act: button.dataset.act, option: button.dataset.option ?? ''});
});
"""
"""Reports which button was pressed; for ``gr.HTML(js_on_load=...)``."""
_CANCEL = '<button type="button" class="way" data-act="close">Cancel</button>'
_CLOSE = (
    f'<button type="button" class="out" data-act="close" title="Dismiss" aria-label="Dismiss">{icon("close")}</button>'
)


def running(view: RunView, estimated: dict[str, Any] | None = None) -> str:
    """A check that runs: its stage, and what was ``estimated`` before the trial."""
    return _panel(
        "running",
        f"<b>Checking memory</b> <span>· {words.text(_stage(view, estimated))}</span>",
        _CANCEL,
        _estimate(estimated) if estimated else "",
    )


def result(report: dict[str, Any], settings: Settings) -> str:
    """The outcome of a check: ``report`` is the object that ``train --dry-run --json`` ends with."""
    measured, memory = report["measured"], _memory(report)
    if measured is None:
        ran_out = f"<p>The trial ran out of {memory}.</p>"
        return _panel("failed", "<b>It does not fit.</b>", _CLOSE, ran_out + _options(report))
    libraries = ", Python and its libraries included" if _on_cpu(report) else ""
    used = f"<p>The trial used {_size(measured['peak'])} of {memory}{libraries}."
    if report["fits"]:
        return _panel(
            "finished",
            "<b>It fits.</b>",
            _CLOSE,
            used
            + _time(measured["step_seconds"], settings.run.steps)
            + _copies(measured, settings.augmentation)
            + "</p>",
        )
    what = tr("It does not fit.") if measured["previews"] else tr("Training fits, but a preview does not.")
    return _panel("failed", f"<b>{what}</b>", _CLOSE, used + "</p>" + _options(report))


def named(changes: dict[str, Any]) -> str:
    """A change of settings in words: ``Batch size: 1 · Gradient accumulation: 4``."""
    return " · ".join(
        f"{SPECS[key].label}: {form.value_title(key, value)}" for key, value in changes.items() if key in SPECS
    )


def _panel(state: str, sentence: str, button: str, more: str) -> str:
    head = f'<div class="head"><p class="sentence"><span class="dot"></span>{sentence}</p>{button}</div>'
    return f'<div class="check {state}" role="status">{head}{more}</div>'


def _time(step: float, steps: int) -> str:
    """How long a run of ``steps`` steps takes at ``step`` seconds each."""
    shown = f"{step:.2f} s" if step < 10 else words.duration(step)
    return tr(
        " A step takes about {shown}, so {steps:,} steps take about {duration}, without previews.",
        shown=shown,
        steps=steps,
        duration=words.duration(steps * step),
    )


def _copies(measured: dict[str, Any], settings: AugmentationSettings) -> str:
    """What mirrored pictures and altered copies took to encode; empty where there are none."""
    if not settings.flip and not augmentation.alters(settings):
        return ""
    return tr(
        " Its {copies:,} pictures and copies take {size} in the cache. Those that it lacked were "
        "encoded in {duration}.",
        copies=measured["copies"],
        size=_size(measured["cached"]),
        duration=words.duration(measured["encoding_seconds"]),
    )


def _stage(view: RunView, estimated: dict[str, Any] | None) -> str:
    if estimated is None:
        return "reading the base model"
    if view.started:
        done, total = view.last.step if view.last else 0, view.started.total_steps
        return "drawing a preview" if done == total else f"step {done + 1} of {total}"
    if not view.preparing:
        return "reading the pictures"
    done, total = view.preparing.done, view.preparing.total
    return view.preparing.stage + (f", {done:,} of {total:,}" if total > 1 else "")


def _estimate(report: dict[str, Any]) -> str:
    if report["estimate"] is None:
        return (
            "<p>How much memory this kind of base model takes cannot be estimated. "
            "A few steps and a preview will measure it.</p>"
        )
    peak, memory = _size(report["estimate"]["peak"]), _memory(report)
    if report["fits"]:
        return (
            f"<p>Estimate from the model's shapes: about {peak} of {memory}. It should fit. "
            "A few steps and a preview will confirm it.</p>"
        )
    return (
        f"<p>Estimate from the model's shapes: about {peak}, more than {memory}. It probably does not fit. "
        f"A few steps and a preview will show it.</p>{_options(report)}"
    )


def _options(report: dict[str, Any]) -> str:
    """The settings that would fit, each applied with one press."""
    options = report["would_fit"]
    if report["estimate"] is None:
        return "<p>Which settings would fit cannot be estimated for this kind of base model.</p>"
    if not options:
        return "<p>No setting saves enough memory. Use a smaller base model.</p>"
    buttons = "".join(
        f'<button type="button" class="way" data-act="apply" data-option="{number}">{_option(option)}</button>'
        for number, option in enumerate(options)
    )
    what = tr("Each of these changes") if len(options) > 1 else tr("This change")
    return f'<p>{what} should fit, by the estimate:</p><div class="ways">{buttons}</div>'


def _option(option: dict[str, Any]) -> str:
    return f"{words.text(named(option['changes']))} <span>about {_size(option['peak'])}</span>"


def _memory(report: dict[str, Any]) -> str:
    """The memory of the device, as in "4 GB of …"."""
    size = _size(report["limit"])
    return f"this computer's {size}" if _on_cpu(report) else f"the {size} of {words.text(report['device'])}"


def _on_cpu(report: dict[str, Any]) -> bool:
    return report["device"].startswith("CPU")


def _size(count: float) -> str:
    """``count`` bytes in binary gigabytes, as makers of cards count them.

    >>> _size(8 * 2**30), _size(3.3 * 2**30), _size(300 * 2**20)
    ('8.0 GB', '3.3 GB', '0.3 GB')
    """
    return f"{max(count / 2**30, 0.1):.1f} GB"
