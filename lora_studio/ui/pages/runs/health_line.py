"""Memory, load and temperature of what computes, as one quiet line at the card of the run that is at work."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from lora_studio.errors import SettingsError
from lora_studio.jobs import queue
from lora_studio.jobs.health import EVERY, DeviceHealth, HealthMonitor
from lora_studio.language import tr
from lora_studio.runs import Run
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.train.live import RunWatcher, TabState
from lora_studio.ui.pages.train.setup import QUIET

_CPU = "CPU"
"""How the names of devices begin that are no card."""


def wire(line: gr.HTML, tab: gr.State, watcher: RunWatcher) -> None:
    """Keeps the ``line`` of a tab up to date while the run that it shows is at work."""
    monitor = HealthMonitor()

    def look(here: TabState) -> Updates:
        run = watcher.find(here.run)
        shown = html(run, _device(run, watcher), monitor, watcher.outputs) if run else ""
        new = here.unsent({"health": {"value": shown}})
        return {tab: here, **({line: new["health"]} if new else {})}

    gr.Timer(EVERY).tick(look, tab, [tab, line], **QUIET)


def _device(run: Run, watcher: RunWatcher) -> str:
    """Where the run trains, for people; empty while that is not known."""
    with watcher.view(run) as view:
        return view.started.device if view.started else _CPU if _on_cpu(run) else ""


def _on_cpu(run: Run) -> bool:
    try:
        return run.settings().machine.device == "cpu"
    except SettingsError:
        return False


def html(run: Run | None, device: str, monitor: HealthMonitor, outputs: Path) -> str:
    """The line for ``run``, which the page shows; empty unless it is at work.

    Args:
        device: where it trains, for people; empty while that is not known.
    """
    first = next(iter(queue.line(outputs)), None)
    if run is None or first is None or first.folder != run.folder:
        return ""
    cards = [] if device.startswith(_CPU) else monitor.cards()
    told = [_told(one, number if len(cards) > 1 else None) for number, one in enumerate(cards)]
    return words.facts(told or [_told(monitor.computer())])


def _told(one: DeviceHealth, number: int | None = None) -> str:
    """One card, or the computer, in a few words.

    >>> _told(DeviceHealth("RTX 4090", 12 * 2**30, 24 * 2**30, 97.0, 66.0))
    'RTX 4090: 12.9 of 25.8 GB, 97 % busy, 66 °C'
    """
    name = one.name or tr("This computer")
    parts = []
    if one.used is not None and one.total is not None:
        parts.append(tr("{used:.1f} of {total:.1f} GB", used=one.used / 1e9, total=one.total / 1e9))
    parts += [tr("{load:.0f} % busy", load=one.load)] if one.load is not None else []
    parts += [f"{one.temperature:.0f} °C"] if one.temperature is not None else []
    return f"{name if number is None else f'{number}: {name}'}: {', '.join(parts) or tr('not told')}"
