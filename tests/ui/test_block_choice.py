"""Blocks of an adapter as a choice of what to train next."""

import gradio as gr
import pytest

from lora_studio.ui.pages.library.block_choice import BlockChoice, strongest

SHARES = {"text_encoder": 0.25, "ends": 0.1, "down_blocks.0": 0.25, "up_blocks.1": 0.4}


@pytest.mark.parametrize(
    ("percent", "chosen"),
    [(1, ["up_blocks.1"]), (65, ["text_encoder", "up_blocks.1"]), (100, list(SHARES)), (0, [])],
)
def test_the_fewest_blocks_that_hold_a_share(percent, chosen):
    assert strongest(SHARES, percent) == chosen


def test_what_is_analyzed_can_be_chosen_but_for_layers_that_never_train():
    with gr.Blocks():
        choice = BlockChoice()
    shown = choice.fill(SHARES)
    assert shown[choice.blocks]["choices"][0] == ("text_encoder · 25 %", "text_encoder")
    assert shown[choice.blocks]["value"] == ["text_encoder", "down_blocks.0", "up_blocks.1"]
    assert shown[choice.whole]["visible"] and not choice.fill({"ends": 1.0})[choice.whole]["visible"]


def test_the_unets_blocks_are_asked_for():
    with gr.Blocks():
        choice, tabs = BlockChoice(), gr.Tabs()
    told = choice.take(["text_encoder"], tabs, None)
    assert list(told) == [choice.said] and "No block of the UNet is chosen" in told[choice.said]["value"]
