"""Names of blocks, as every part of the studio reads them."""

import pytest

from lora_studio.adapters import block_names
from lora_studio.families import registry

STYLE = "unet.up_blocks.0.attentions.1.transformer_blocks.9.attn2.to_k"
WORDS = "text_encoder.text_model.encoder.layers.8.mlp.fc1"


@pytest.mark.parametrize(
    ("block", "path", "held"),
    [
        ("up_blocks.0", STYLE, True),
        ("up_blocks.0.attentions.1", STYLE, True),
        ("unet.up_blocks.0.attentions.1", STYLE, True),
        ("up_blocks.0.attentions.10", STYLE, False),
        ("up_blocks.*.attentions.1", STYLE, True),
        ("up_blocks.0.attentions.0-1", STYLE, True),
        ("up_blocks.0.attentions.2-9", STYLE, False),
        ("*.attn2", STYLE, True),
        ("*.attn1", STYLE, False),
        ("OUT01", STYLE, True),
        ("OUT0*", STYLE, True),
        ("IN*", STYLE, False),
        ("text_encoder", WORDS, True),
        ("text_encoder.layers.8", WORDS, True),
        ("text_encoder.layers.6-11", WORDS, True),
        ("text_encoder.layers.0-7.mlp", WORDS, False),
        ("text_encoder_2.layers.8", WORDS, False),
        ("BASE", WORDS, True),
    ],
)
def test_a_name_holds_a_layer(block, path, held):
    assert block_names.contains(block, path) is held


def test_a_part_of_which_nothing_is_named_is_whole():
    assert block_names.within([], STYLE) and block_names.within(["text_encoder.layers.1"], STYLE)
    assert not block_names.within(["text_encoder.layers.1"], WORDS)
    assert block_names.within(["mid_block"], WORDS) and not block_names.within(["mid_block"], STYLE)
    assert block_names.within(["mid_block"], "text_encoder_2.text_model.encoder.layers.0.mlp.fc1")
    assert block_names.within(["BASE"], STYLE) and block_names.within(["BASE"], WORDS)


def test_style_content_and_layout_stand_for_a_familys_blocks():
    sdxl = registry.named("sdxl")
    lines = ["style", "layout rank=4", "mid_block"]
    assert sdxl is not None and sdxl.named_blocks(lines) == [
        "unet.up_blocks.0.attentions.1",
        "unet.down_blocks.2.attentions.1 rank=4",
        "mid_block",
    ]


def test_a_name_with_two_ranges_is_no_flood():
    """Names come from files of unknown origin too."""
    assert not block_names.contains("unet.1-999." * 9, STYLE)
