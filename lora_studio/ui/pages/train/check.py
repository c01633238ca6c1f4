"""*Check memory*: estimates what a run needs, then measures a few steps and a preview in a separate process. Settings
that would fit are offered as buttons.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections import deque
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
from lora_studio.jobs.command import CommandProcess
from lora_studio.jobs.view import RunView
from lora_studio.language import tr
from lora_studio.ui import outcome, words
from lora_studio.ui.form import Form
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.train import cost, memory_report
from lora_studio.ui.pages.train.cost import MeasuredPace
from lora_studio.ui.theme import html

_HIDDEN = gr.update(value="", visible=False)
_AGAIN = 1.0
"""Seconds between two looks at a check that is at work."""
_STALE = tr("The settings have changed since this check.")
_BUSY_DEVICE = tr(
    "A check now would measure both, slow the run down, and could make it run out of memory. "
    "Wait for the run to end, or press Check anyway."
)


@dataclass
class CheckState:
    """The last memory check of one browser tab."""

    values: tuple[Any, ...] | None = None
    """The form's values that were checked; None while no result is shown."""
    shown: Any = None
    """The update that shows the result."""
    button: Any = None
    """The update of the button."""
    working: bool = False
    """Whether the check is at work."""
    options: list[dict[str, Any]] = field(default_factory=list)
    """The changes of settings that are offered, in the order of their buttons."""
    stale: bool = False
    """Whether the form has changed since."""
    work: CommandProcess | None = None
    """The process that checks."""
    warned: bool = False
    """Whether the tab was warned that a run uses the device: the next press checks anyway."""


class Check:
    """The button and its result. The studio runs one check at a time: a new one cancels the one before."""

    def __init__(
        self,
        outputs: Path,
        form: Form,
        settings: Callable[[tuple[Any, ...]], Settings],
        measured: dict[tuple[object, ...], MeasuredPace] | None = None,
    ):
        """``settings`` makes Settings of the form's values, and raises StudioError where they are invalid. What is
        measured is noted in ``measured``, by the ``cost.pace`` of the settings.
        """
        self.outputs, self.form, self.settings = outputs, form, settings
        self.measured = {} if measured is None else measured
        self.tells: Callable[[tuple[Any, ...]], Updates] = lambda values: {}
        """What else the page shows of the form's values once they were checked."""
        self.told: list[Any] = []
        """The components that it changes."""
        self._newest: CommandProcess | None = None
        self._lock = threading.Lock()

    def place(self) -> None:
        """Places the result."""
        self.seen = gr.State(CheckState())
        self.outcome = html(visible=False, js_on_load=memory_report.PRESS, elem_id="check")
        self.stale = html(visible=False)
        self.again = gr.Timer(_AGAIN, active=False)

    def place_button(self) -> None:
        """Places the button."""
        self.button = gr.Button(tr("Check memory"), size="lg", min_width=130, elem_id="check-memory")

    def wire(self, pressed: Any, draft: gr.BrowserState, start: gr.Button, quiet: dict[str, Any]) -> None:
        """Binds the handlers. After ``pressed``, the press on the button, ``draft`` holds the form. ``start`` cancels a
        check: both would compete for the device.
        """
        fields = self.form.components
        shown = [self.seen, self.outcome, self.stale, self.button, self.again, *self.told]

        def begin(seen: CheckState, kept: dict[str, Any]) -> Updates:
            return self.begin(seen, *self.form.kept(kept["fields"]))

        pressed.then(begin, [self.seen, draft], shown, **quiet)
        self.again.tick(self.now, self.seen, shown[1:], **quiet)
        self.outcome.click(self.pressed, self.seen, [self.seen, self.outcome, self.stale, *fields], **quiet)
        start.click(self.close, self.seen, [self.seen, self.outcome, self.stale], **quiet)

    def begin(self, seen: CheckState, *values: Any) -> Updates:
        """Starts to check the memory for the form's ``values``, and shows that. The timer shows the rest: an answer
        that reports at length would compete with the timer's.
        """
        answers = self.run(seen, *values)
        first = next(answers)
        threading.Thread(target=deque(maxlen=0).extend, args=[answers], daemon=True).start()
        return first

    def run(self, seen: CheckState, *values: Any) -> Iterator[Updates]:
        """Checks the memory for the form's ``values``; what the page shows as results arrive."""
        seen.values = values
        try:
            settings = self.settings(values)
            if not seen.warned and (name := self._run_on_device(settings.machine.device)):
                seen.warned, seen.values = True, None
                notice = words.notice("warned", tr("{name} trains on this device.", name=name), do=_BUSY_DEVICE)
                seen.shown = gr.update(value=notice, visible=True)
                yield self._answer(seen, tr("Check anyway"))
                return
            seen.warned, seen.options, seen.stale = False, [], False
            for shown in self._checked(seen, settings):
                if seen.values is not values:  # it was cancelled, or another was begun
                    break
                seen.shown = gr.update(value=shown, visible=True)
                yield self._answer(seen, tr("Checking…"), working=True)
        except (StudioError, OSError) as error:
            if seen.values is values:
                seen.values, seen.shown = None, gr.update(value=outcome.wrong(error), visible=True)
                yield self._answer(seen, tr("Check memory"))
            return
        if seen.values is values:
            yield self._answer(seen, tr("Check memory"))

    def _answer(self, seen: CheckState, label: str, working: bool = False) -> Updates:
        seen.button, seen.working = gr.update(value=label, interactive=not working), working
        return {self.seen: seen, **self.now(seen)}

    def now(self, seen: CheckState) -> Updates:
        """What the page shows of the check now."""
        about = {self.outcome: seen.shown, self.stale: self._stale(seen), self.button: seen.button}
        told = self.tells(seen.values) if seen.values is not None and not seen.working else {}
        return {**about, self.again: gr.update(active=seen.working), **told}

    def _checked(self, seen: CheckState, settings: Settings) -> Iterator[str]:
        """What the page shows of the check, as it proceeds."""
        view, estimated = RunView(), None
        yield memory_report.running(view)
        with tempfile.TemporaryDirectory(prefix="lora-studio-") as folder:
            preset = Path(folder, "settings.toml")
            preset.write_text(tomli_w.dumps({"settings": settings.flat()}), "utf-8")
            work = seen.work = self._begin(preset)
            try:
                for report in work.objects():
                    if seen.work is not work or seen.values is None:
                        return
                    if "kind" in report:
                        view.apply(events.parse(json.dumps(report)))
                    elif "estimated" in report:
                        estimated = report["estimated"]
                        seen.options = [option["changes"] for option in estimated["would_fit"]]
                    else:
                        seen.options = [option["changes"] for option in report["would_fit"]]
                        self._note(report, settings)
                        yield memory_report.result(report, settings)
                        return
                    yield memory_report.running(view, estimated)
            finally:
                work.end()
                files.sweep(runs.trials_folder(self.outputs), lives=psutil.pid_exists)
        if seen.values is not None:  # another tab's check has replaced this one
            self.close(seen)

    def _note(self, report: dict[str, Any], settings: Settings) -> None:
        if found := report["measured"]:
            measured = MeasuredPace(found["step_seconds"], found["peak"], report["limit"], report["fits"])
            self.measured[cost.pace(settings)] = measured

    def _begin(self, preset: Path) -> CommandProcess:
        with self._lock:
            if self._newest:
                self._newest.end()
            self._newest = CommandProcess("train", "--preset", preset, "--dry-run", "--outputs", self.outputs)
            return self._newest

    def _run_on_device(self, device: str) -> str:
        """The name of the run that trains on the device that the setting ``device`` means; empty if none does."""
        for run in runner.at_work(self.outputs)[:1]:
            theirs = run.settings().machine.device
            if "auto" in (theirs, device) or theirs == device:
                return run.name
        return ""

    def pressed(self, seen: CheckState, event: gr.EventData) -> Updates:
        """Applies an offered change to the form, or cancels or dismisses the check."""
        applies = event.act == "apply" and 0 <= int(event.option) < len(seen.options)
        changes = seen.options[int(event.option)] if applies else {}
        updates = self.close(seen)
        if applies:
            message = outcome.done(
                tr("Applied: {changes}.", changes=memory_report.named(changes)),
                tr("Check again to measure it, or start training."),
            )
            seen.shown = updates[self.outcome] = gr.update(value=message, visible=True)
        return updates | self.form.fill(changes)

    def close(self, seen: CheckState) -> Updates:
        """Cancels the tab's check and hides its result."""
        seen.values, seen.shown = None, _HIDDEN
        self._answer(seen, tr("Check memory"))
        if seen.work:
            seen.work.end()
        return {self.seen: seen, self.outcome: seen.shown, self.stale: _HIDDEN}

    def changed(self, seen: CheckState, values: tuple[Any, ...]) -> Any:
        """An update of the line that says that the result is of other settings than the form's ``values``."""
        seen.stale = values != seen.values
        return self._stale(seen)

    def _stale(self, seen: CheckState) -> Any:
        return gr.update(value=f'<p class="hint">{_STALE}</p>', visible=seen.stale and seen.values is not None)
