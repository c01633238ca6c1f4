"""Lines that give blocks a rank, an alpha and a rate of their own."""

import pytest

from lora_studio.config import by_block
from lora_studio.config.settings import check
from lora_studio.errors import SettingsError

KEY = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"


def test_a_line_is_read():
    assert by_block.read("up_blocks.1 rank=32 rate=0.5") == ("up_blocks.1", 32, None, 0.5)
    assert by_block.read("OUT04  alpha=8") == ("OUT04", None, 8, None)


def test_the_smallest_block_counts_value_by_value():
    lines = ["up_blocks.1.attentions.0 rate=2", "up_blocks.1 rank=8 rate=0.5", "up_blocks.2 alpha=1"]
    assert by_block.at(lines, KEY) == ("", 8, None, 2)
    assert by_block.at(lines, "unet.mid_block.attentions.0.proj_in") == ("", None, None, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("up_blocks.1", "'up_blocks.1' must be a block and its values, such as up_blocks.1 rank=32"),
        ("rank=8", "'rank=8' must be a block and its values, such as up_blocks.1 rank=32"),
        ("up_blocks.1 rank 8", "'8' in 'up_blocks.1 rank 8' is none of rank, alpha and rate"),
        ("mid_block speed=8", "'speed' in 'mid_block speed=8' is none of rank, alpha and rate"),
        ("mid_block rank=8 rank=4", "'mid_block rank=8 rank=4' gives one value twice"),
        ("mid_block rank=1.5", "rank in 'mid_block rank=1.5' must be a whole number above 0 and at most 1,024"),
        ("mid_block rate=0", "rate in 'mid_block rate=0' must be a number above 0 and at most 100"),
        ("mid_block alpha=nan", "alpha in 'mid_block alpha=nan' must be a number above 0 and at most 4,096"),
    ],
)
def test_a_line_that_is_none_is_refused_where_settings_are(line, said):
    with pytest.raises(SettingsError) as caught:
        check({"by_block": [line]})
    assert caught.value.what == f"by_block: {said}." and caught.value.where == "by_block"
