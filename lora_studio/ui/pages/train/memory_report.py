"""The result of a memory check as HTML: while it runs, and when it has finished."""

from __future__ import annotations

from typing import Any

from lora_studio.config.settings import Settings
from lora_studio.config.slices import AugmentationSettings
from lora_studio.config.specs import SPECS
from lora_studio.dataset import augmentation
from lora_studio.jobs.view import RunView
from lora_studio.language import number, tr
from lora_studio.ui import form, words
from lora_studio.ui.icons import icon
from lora_studio.ui.pages.train import status

PRESS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button) trigger('click', {act: button.dataset.act, option: button.dataset.option ?? ''});
});
"""
"""Reports which button was pressed; for ``gr.HTML(js_on_load=...)``."""


def running(view: RunView, estimated: dict[str, Any] | None = None) -> str:
    """A check that runs: its stage, and what was ``estimated`` before the trial."""
    return _panel(
        "running",
        f"<b>{tr('Checking memory')}</b> <span>· {words.text(_stage(view, estimated))}</span>",
        f'<button type="button" class="way" data-act="close">{tr("Cancel")}</button>',
        _estimate(estimated) if estimated else "",
    )


def result(report: dict[str, Any], settings: Settings) -> str:
    """The outcome of a check: ``report`` is the object that ``train --dry-run --json`` ends with."""
    measured, memory = report["measured"], _memory(report)
    if measured is None:
        ran_out = f"<p>{tr('The trial ran out of {memory}.', memory=memory)}</p>"
        return _panel("failed", f"<b>{tr('It does not fit.')}</b>", _close(), ran_out + _options(report))
    used = _used(_size(measured["peak"]), memory, _on_cpu(report))
    if report["fits"]:
        steps, copies = _time(measured["step_seconds"], settings.run.steps), _copies(measured, settings.augmentation)
        told = " ".join(filter(None, (used, steps, copies)))
        return _panel("finished", f"<b>{tr('It fits.')}</b>", _close(), f"<p>{told}</p>")
    what = tr("It does not fit.") if measured["previews"] else tr("Training fits, but a preview does not.")
    return _panel("failed", f"<b>{what}</b>", _close(), f"<p>{used}</p>{_options(report)}")


def _close() -> str:
    """The button that hides the result."""
    label = f'title="{tr("Dismiss")}" aria-label="{tr("Dismiss")}"'
    return f'<button type="button" class="out" data-act="close" {label}>{icon("close")}</button>'


def _used(peak: str, memory: str, on_cpu: bool) -> str:
    if on_cpu:
        return tr("The trial used {peak} of {memory}, Python and its libraries included.", peak=peak, memory=memory)
    return tr("The trial used {peak} of {memory}.", peak=peak, memory=memory)


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
    shown = tr("{seconds:.2f} s", seconds=step) if step < 10 else words.duration(step)
    return tr(
        "A step takes about {step}, so {steps:,} steps take about {duration}, without previews.",
        step=shown,
        steps=steps,
        duration=words.duration(steps * step),
    )


def _copies(measured: dict[str, Any], settings: AugmentationSettings) -> str:
    """What mirrored pictures and altered copies took to encode; empty where there are none."""
    if not settings.flip and not augmentation.alters(settings):
        return ""
    return tr(
        "Its {copies:,} pictures and copies take {size} in the cache. Those that it lacked were encoded in {duration}.",
        copies=measured["copies"],
        size=_size(measured["cached"]),
        duration=words.duration(measured["encoding_seconds"]),
    )


def _stage(view: RunView, estimated: dict[str, Any] | None) -> str:
    if estimated is None:
        return tr("reading the base model")
    if view.started:
        done, total = view.last.step if view.last else 0, view.started.total_steps
        return tr("drawing a preview") if done == total else tr("step {step} of {total}", step=done + 1, total=total)
    return status.stage(view.preparing) if view.preparing else tr("reading the pictures")


def _estimate(report: dict[str, Any]) -> str:
    if report["estimate"] is None:
        what = tr(
            "How much memory this kind of base model takes cannot be estimated. A few steps and a preview will measure "
            "it."
        )
        return f"<p>{what}</p>"
    peak, memory = _size(report["estimate"]["peak"]), _memory(report)
    if report["fits"]:
        fits = tr(
            "Estimate from the model's shapes: about {peak} of {memory}. It should fit. A few steps and a preview will "
            "confirm it.",
            peak=peak,
            memory=memory,
        )
        return f"<p>{fits}</p>"
    exceeds = tr(
        "Estimate from the model's shapes: about {peak}, more than {memory}. It probably does not fit. A few steps and "
        "a preview will show it.",
        peak=peak,
        memory=memory,
    )
    return f"<p>{exceeds}</p>{_options(report)}"


def _options(report: dict[str, Any]) -> str:
    """The settings that would fit, each applied with one press."""
    options = report["would_fit"]
    if report["estimate"] is None:
        return f"<p>{tr('Which settings would fit cannot be estimated for this kind of base model.')}</p>"
    if not options:
        return f"<p>{tr('No setting saves enough memory. Use a smaller base model.')}</p>"
    buttons = "".join(
        f'<button type="button" class="way" data-act="apply" data-option="{number}">{_option(option)}</button>'
        for number, option in enumerate(options)
    )
    each, one = tr("Each of these changes should fit, by the estimate:"), tr("This change should fit, by the estimate:")
    return f'<p>{each if len(options) > 1 else one}</p><div class="ways">{buttons}</div>'


def _option(option: dict[str, Any]) -> str:
    about = tr("about {size}", size=_size(option["peak"]))
    return f"{words.text(named(option['changes']))} <span>{about}</span>"


def _memory(report: dict[str, Any]) -> str:
    """The memory of the device as HTML, as in "4 GB of …"."""
    size = _size(report["limit"])
    if _on_cpu(report):
        return tr("this computer's {size}", size=size)
    return tr("the {size} of {device}", size=size, device=words.text(report["device"]))


def _on_cpu(report: dict[str, Any]) -> bool:
    return report["device"].startswith("CPU")


def _size(count: float) -> str:
    """``count`` bytes in binary gigabytes, as makers of cards count them.

    >>> _size(8 * 2**30), _size(3.3 * 2**30), _size(300 * 2**20)
    ('8.0 GB', '3.3 GB', '0.3 GB')
    """
    return f"{number(max(count / 2**30, 0.1), '.1f')} GB"
