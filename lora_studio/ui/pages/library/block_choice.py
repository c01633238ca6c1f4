"""Which blocks to train next, chosen from what an adapter changes in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gradio as gr

from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates, done
from lora_studio.ui.pages.train.setup import QUIET, Setup
from lora_studio.ui.theme import html

_HELD = 80.0
"""Percent of the change that the blocks chosen at first hold."""
_NO_BLOCK = "ends"
"""The first and last layers, which are never trained."""


def strongest(shares: Mapping[str, float], percent: float) -> list[str]:
    """The fewest blocks that together hold ``percent`` of the change, in the order of ``shares``.

    >>> strongest({"down_blocks.0": 0.2, "mid_block": 0.5, "up_blocks.1": 0.3}, 75)
    ['mid_block', 'up_blocks.1']
    """
    chosen: set[str] = set()
    for block in sorted(shares, key=lambda block: -shares[block]):
        if 100 * sum(shares[one] for one in chosen) >= percent - 1e-6:
            break
        chosen.add(block)
    return [block for block in shares if block in chosen]


class BlockChoice:
    """The blocks with their shares, a field that chooses the strongest, and a button that takes them to Train."""

    def __init__(self) -> None:
        self.shares = gr.State({})
        with gr.Column(visible=False, elem_id="block-choice") as self.whole:
            self.blocks = gr.CheckboxGroup(
                [], label=tr("Blocks"), info=tr("With each block's share of the change."), elem_id="blocks"
            )
            with gr.Column(elem_classes="fields"):
                self.percent = gr.Number(
                    _HELD,
                    label=tr("Strongest that hold (%)"),
                    minimum=1,
                    maximum=100,
                    elem_id="strongest",
                )
            with gr.Row(elem_classes="controls"):
                self.train = gr.Button(tr("Train only these"), size="md", min_width=130, elem_id="train-blocks")
            self.said = html(visible=False)

    @property
    def filled(self) -> list[gr.blocks.Block]:
        """What ``fill`` and ``hide`` change."""
        return [self.whole, self.shares, self.blocks, self.percent, self.said]

    def wire(self, tabs: gr.Tabs, setup: Setup) -> None:
        """Binds the handlers; ``setup`` is the form of the Train page."""
        self.percent.input(self.choose, [self.shares, self.percent], self.blocks, **QUIET)
        fields = [setup.form.fields[key] for key in ("blocks", "train_text")]
        self.train.click(
            lambda chosen: self.take(chosen, tabs, setup),
            self.blocks,
            [tabs, setup.notice, self.said, *fields],
            **QUIET,
        )

    def fill(self, shares: Mapping[str, float]) -> Updates:
        """What is shown of another adapter, whose blocks have these shares of its change."""
        known = {block: share for block, share in shares.items() if block != _NO_BLOCK}
        choices = [
            (tr("{block} · {share:.0f} %", block=block, share=100 * share), block) for block, share in known.items()
        ]
        return {
            self.whole: gr.update(visible=bool(known)),
            self.shares: known,
            self.blocks: gr.update(choices=choices, value=strongest(known, _HELD)),
            self.percent: _HELD,
            self.said: gr.update(visible=False),
        }

    def hide(self) -> Updates:
        """Before anything was analyzed."""
        return {self.whole: gr.update(visible=False)}

    def choose(self, shares: Mapping[str, float], percent: float | None) -> list[str]:
        """The strongest blocks that hold ``percent`` of the change."""
        return strongest(shares, percent or 0)

    def take(self, chosen: Sequence[str], tabs: gr.Tabs, setup: Setup) -> Updates:
        """Puts the chosen blocks into the form of the Train page."""
        text = any(block.startswith("text_encoder") for block in chosen)
        if all(block.startswith("text_encoder") for block in chosen):
            advice = tr("The UNet always trains: choose which of its blocks.")
            return {
                self.said: gr.update(
                    value=words.notice("wrong", tr("No block of the UNet is chosen."), do=advice), visible=True
                )
            }
        told = done(
            tr("The form now trains these blocks only."),
            tr("{blocks}. See All settings, Adapter.", blocks=list(chosen)),
        )
        return {
            tabs: gr.update(selected="train"),
            setup.notice: gr.update(value=told, visible=True),
            self.said: gr.update(visible=False),
            **setup.form.fill({"blocks": list(chosen), "train_text": text}),
        }
