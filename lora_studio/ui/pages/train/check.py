"""Will it fit? What a run would take is reckoned, then tried with a few steps and a preview, in a process of its own;
settings that would fit are one press away.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import psutil
import tomli_w

from lora_studio import events, files, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import StudioError
from lora_studio.jobs import runner
from lora_studio.jobs.command import Command
from lora_studio.jobs.view import RunView
from lora_studio.ui import outcome, words
from lora_studio.ui.form import Form
from lora_studio.ui.pages.train import verdict
from lora_studio.ui.theme import html

_HIDDEN = gr.update(value="", visible=False)
_STALE = '<p class="hint">The settings have changed since this check.</p>'
_BESIDE = "Beside it a check would measure too much, slow it down, and could fill its memory. Wait for its end, or press Check all the same."


@dataclass
class Seen:
    """What one tab's last check was about, and found."""

    values: tuple[Any, ...] | None = None
    """The form's values; None where nothing of it is shown any more."""
    shown: Any = None
    """The update that shows it. Each answer holds it anew: of two that come at once the page heeds the later alone."""
    ways: list[dict[str, Any]] = field(default_factory=list)
    """The changes that are offered, in their order."""
    stale: bool = False
    """That the form has changed since."""
    work: Command | None = None
    warned: bool = False
    """That a run trains on the device: the next press checks all the same."""


class Check:
    """The button, and what it finds. One check at a time in the whole studio: a new one ends the one before."""

    def __init__(self, outputs: Path, form: Form, settings: Callable[[tuple[Any, ...]], Settings]):
        """``settings``: those that the form's values mean; raises StudioError where something is wrong with them."""
        self.outputs, self.form, self.settings = outputs, form, settings
        self._newest: Command | None = None
        self._lock = threading.Lock()

    def place(self) -> None:
        """Places what it finds."""
        self.seen = gr.State(Seen())
        self.outcome = html(visible=False, js_on_load=verdict.PRESS, elem_id="check")
        self.stale = html(visible=False)

    def place_button(self) -> None:
        """Places the button."""
        self.button = gr.Button("Check memory", size="lg", min_width=130, elem_id="check-memory")

    def wire(self, start: gr.Button, quiet: dict[str, Any]) -> None:
        """Binds everything. ``start`` ends a check: it and the run would be in each other's way."""
        fields = self.form.components
        self.button.click(
            self.run,
            [self.seen, *fields],
            [self.seen, self.outcome, self.stale, self.button],
            concurrency_limit=None,
            **outcome.WORK,
        )
        self.outcome.click(self.pressed, self.seen, [self.seen, self.outcome, self.stale, *fields], **quiet)
        start.click(self.close, self.seen, [self.seen, self.outcome, self.stale], **quiet)

    def run(self, seen: Seen, *values: Any) -> Iterator[list[Any]]:
        """Checks the memory for the form's ``values``; updates of ``seen``, of what was found, of the line below it and
        of the button.
        """
        try:
            settings = self.settings(values)
            if not seen.warned and (name := self._at_work(settings)):
                seen.warned, seen.values = True, None
                seen.shown = gr.update(
                    value=words.notice("warned", f"{name} trains on this device.", do=_BESIDE), visible=True
                )
                yield self._answer(seen, "Check all the same")
                return
            seen.warned, seen.values, seen.ways, seen.stale, seen.shown = (
                False,
                values,
                [],
                False,
                gr.update(value=verdict.busy(RunView()), visible=True),
            )
            yield self._answer(seen, "Checking…", interactive=False)
            for shown in self._checked(seen, settings):
                seen.shown = gr.update(value=shown, visible=True)
                yield self._answer(seen, "Checking…", interactive=False)
        except (StudioError, OSError) as error:
            seen.values, seen.shown = None, gr.update(value=outcome.wrong(error), visible=True)
        yield self._answer(seen, "Check memory")

    def _answer(self, seen: Seen, label: str, interactive: bool = True) -> list[Any]:
        return [seen, seen.shown, self._stale(seen), gr.update(value=label, interactive=interactive)]

    def _checked(self, seen: Seen, settings: Settings) -> Iterator[str]:
        """What is to be shown, as it is found."""
        view, reckoned = RunView(), None
        with tempfile.TemporaryDirectory(prefix="lora-studio-") as folder:
            preset = Path(folder, "settings.toml")
            preset.write_text(tomli_w.dumps({"settings": settings.flat()}), "utf-8")
            work = seen.work = self._begin(preset)
            try:
                for told in work.objects():
                    if seen.work is not work or seen.values is None:
                        return
                    if "kind" in told:
                        view.apply(events.parse(json.dumps(told)))
                        yield verdict.busy(view, reckoned)
                    elif "reckoned" in told:
                        reckoned = told["reckoned"]
                        seen.ways = [way["changes"] for way in reckoned["would_fit"]]
                        yield verdict.busy(view, reckoned)
                    else:
                        seen.ways = [way["changes"] for way in told["would_fit"]]
                        yield verdict.found(told, settings)
                        return
            finally:
                work.end()
                files.sweep(runs.trials_folder(self.outputs), lives=psutil.pid_exists)
        if seen.values is not None:  # another tab's check has taken its place
            self.close(seen)

    def _begin(self, preset: Path) -> Command:
        with self._lock:
            if self._newest:
                self._newest.end()
            self._newest = Command("train", "--preset", preset, "--dry-run", "--outputs", self.outputs)
            return self._newest

    def _at_work(self, settings: Settings) -> str:
        """The name of the run that trains on the device that ``settings`` ask for."""
        for run in runner.at_work(self.outputs)[:1]:
            theirs = run.settings().machine.device
            if "auto" in (theirs, settings.machine.device) or theirs == settings.machine.device:
                return run.name
        return ""

    def pressed(self, seen: Seen, event: gr.EventData) -> list[Any]:
        """A change that was found is taken into the form, or the check is ended or put away."""
        taken = event.act == "take" and 0 <= int(event.way) < len(seen.ways)
        changes = seen.ways[int(event.way)] if taken else {}
        self.close(seen)
        if taken:
            seen.shown = gr.update(
                value=outcome.done(f"Taken: {verdict.named(changes)}.", "Check again to measure it, or start."),
                visible=True,
            )
        return [seen, seen.shown, _HIDDEN, *self.form.filled(changes)]

    def close(self, seen: Seen) -> list[Any]:
        """Ends the tab's check, and takes what it found off the page."""
        seen.values, seen.shown = None, _HIDDEN
        if seen.work:
            seen.work.end()
        return [seen, seen.shown, _HIDDEN]

    def changed(self, seen: Seen, values: tuple[Any, ...]) -> Any:
        """An update of the line that says that what was found is not about the form's ``values``."""
        seen.stale = values != seen.values
        return self._stale(seen)

    def _stale(self, seen: Seen) -> Any:
        return gr.update(value=_STALE, visible=seen.stale and seen.values is not None)
