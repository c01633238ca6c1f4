"""The average of a run's saved states, looked at and saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio import runs
from lora_studio.adapters.averaging import WIDTH, spread
from lora_studio.errors import RunError
from lora_studio.jobs import command
from lora_studio.language import declared, tr
from lora_studio.runs import keeping
from lora_studio.ui import outcome, words
from lora_studio.ui.outcome import WORK
from lora_studio.ui.pages.mix import saving
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

_ABOUT = tr(
    "An average of the states that a run saved is smoother than its last state. A wide one "
    "counts early states too. The changes themselves are averaged, and the result is trimmed "
    "to the run's rank."
)


class StatesForm:
    """The run, the width of the average, and what comes of it."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        with gr.Accordion(tr("Average of states"), open=False, elem_id="mix-states"):
            html(f'<p class="blurb">{words.text(_ABOUT)}</p>')
            with gr.Column(elem_classes="fields"):
                self.run = gr.Dropdown(
                    [], label=tr("Run"), info=tr("Those with two states or more."), elem_id="states-run"
                )
                self.width = gr.Number(
                    WIDTH.default,
                    label=declared(WIDTH.label),
                    info=declared(WIDTH.help),
                    step=WIDTH.step,
                    elem_id="states-width",
                )
            with gr.Row(elem_classes="controls"):
                self.look = gr.Button(tr("Show what it keeps"), size="md", min_width=130, elem_id="states-look")
                self.save = gr.Button(
                    tr("Save to the library"), variant="primary", size="md", min_width=130, elem_id="states-save"
                )
            self.said = html(visible=False, elem_id="states-said")

    def wire(self, tab: gr.Tab) -> None:
        """Binds everything; ``tab`` is the page's own."""
        tab.select(self.offer, None, self.run, **QUIET)
        for button, act in ((self.look, self.shown), (self.save, self.saved)):
            button.click(act, [self.run, self.width], self.said, **WORK)

    def offer(self) -> dict[str, Any]:
        """The runs to choose from, the latest first."""
        found = [run.name for run in runs.existing(self.outputs) if len(keeping.states(run)) > 1]
        return gr.update(choices=found)

    def shown(self, run: str | None, width: float | None) -> Iterator[Any]:
        """Which states count how much, and what trimming loses."""
        yield from outcome.told(tr("Averaging…"), lambda: told(command.run("blend", *self._asked(run, width))))

    def saved(self, run: str | None, width: float | None) -> Iterator[Any]:
        """Saves the average as an adapter of the library."""

        def act() -> str:
            options = self._asked(run, width)
            return saving.written(options, f"{run} average {options[3]}", self.outputs)

        yield from outcome.told(tr("Averaging, saving and proving…"), act)

    def _asked(self, run: str | None, width: float | None) -> list[str]:
        """The average as arguments of the command ``blend``.

        Raises:
            RunError: no run is chosen.
            SettingsError: the width is out of range.
        """
        if not run:
            raise RunError(
                tr("No run is chosen."), where=tr("Run"), do=tr("Choose a run with two saved states or more.")
            )
        return ["--states", run, "--width", f"{WIDTH.check(width):g}", "--outputs", str(self.outputs)]


def told(result: dict[str, Any]) -> str:
    """A result of ``blend --states`` as HTML."""
    parts = result["recipe"]["ingredients"]
    steps, weights = [int(one["name"].rpartition("-")[2]) for one in parts], [one["weight"] for one in parts]
    mean, width = spread(steps, weights)
    shares = ", ".join(
        tr("{step:,}: {share:.0f} %", step=step, share=100 * weight)
        for step, weight in zip(steps, weights, strict=True)
        if weight >= 0.005
    )
    step = tr("step {mean:,.0f} on average", mean=mean)
    about = (step, tr("width {width:.2f} of these states", width=width), *saving.cost(result))
    return f"{words.facts(about)}<p>{words.text(shares)}</p>"
