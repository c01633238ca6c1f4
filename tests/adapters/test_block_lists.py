"""Lists of block weights against the extension's own names and order, and there and back."""

from __future__ import annotations

import pytest

from lora_studio.adapters import block_lists, block_names, keys
from lora_studio.adapters.block_lists import IDS
from lora_studio.errors import SettingsError
from tests.adapters.adapter_samples import golden

LAST = "transformer_blocks.0.attn1.to_q"


def paths(family: str) -> list[str]:
    return list(keys.collect(golden(family))[0])


def attention(family: str) -> list[str]:
    return [path for path in paths(family) if ".attentions." in path or path.startswith("text_encoder")]


def test_the_lists_are_the_extensions():
    """Its README's table of 17, and the count of each."""
    assert ",".join(IDS[17]) == (
        "BASE,IN01,IN02,IN04,IN05,IN07,IN08,M00,OUT03,OUT04,OUT05,OUT06,OUT07,OUT08,OUT09,OUT10,OUT11"
    )
    assert ",".join(IDS[12]) == "BASE,IN04,IN05,IN07,IN08,M00,OUT00,OUT01,OUT02,OUT03,OUT04,OUT05"
    assert all(len(ids) == length for length, ids in IDS.items())


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_blocks_are_numbered_as_in_the_original_layout(family):
    """The extension finds ``input_blocks_4_`` in a key: the same number as in this family's own names."""
    names = {"input": "IN", "middle": "M", "output": "OUT"}
    for path in paths(family):
        if path.startswith("unet."):
            side, _, number = keys.to_ldm(path.removeprefix("unet."), family).partition("_block")
            number = "0" if side == "middle" else number.removeprefix("s.").partition(".")[0]
            assert block_lists.id_of(path) == f"{names[side]}{int(number):02}", path


@pytest.mark.parametrize(("path", "block"), [
    ("unet.down_blocks.1.downsamplers.0.conv", "IN06"), ("unet.up_blocks.0.upsamplers.0.conv", "OUT02"),
    ("unet.conv_in", "IN00"), ("unet.time_embedding.linear_1", ""), ("unet.conv_out", ""),
    ("unet.down_blocks.3.resnets.1.conv1", "IN11"), ("text_encoder_2.text_projection", "BASE"),
])  # fmt: skip
def test_convolutions_and_ends(path, block):
    assert block_lists.id_of(path) == block


@pytest.mark.parametrize(("family", "length"), [("sd1", 17), ("sd2", 17), ("sdxl", 12)])
def test_a_list_comes_back_as_it_was_read(family, length):
    text = ",".join(f"{number / 10:g}" for number in range(length))
    own = attention(family)
    found = block_lists.factors(f"MINE:{text}", own)
    assert found == {block: number / 10 for number, block in enumerate(IDS[length]) if number != 10}
    assert block_lists.written(own, lambda path: block_names.block_factor(found, path)) == text
    for number, block in enumerate(IDS[length]):
        one = next(path for path in own if block_lists.id_of(path) == block)
        assert block_names.block_factor(found, one) == number / 10


def test_convolutions_need_the_long_list_and_a_short_one_turns_them_off():
    own = [*attention("sd1"), "unet.down_blocks.1.downsamplers.0.conv"]
    found = block_lists.factors("ALL", own)
    assert found == {"IN06": 0.0}, "what a list does not name gets 0"
    assert block_lists.written(own, lambda path: block_names.block_factor(found, path)) == ",".join(
        "0" if block == "IN06" else "1" for block in IDS[26]
    )
    wide = [*attention("sdxl"), "unet.down_blocks.0.resnets.0.conv1"]
    assert block_lists.written(wide, lambda path: 0.5).count(",") == 19


def test_presets_and_spaces():
    own = attention("sd1")
    assert block_lists.PRESETS["MIDD"] == "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0"
    assert block_lists.PRESETS["OUTS"] == "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1"
    assert block_lists.factors(" outs ", own) == block_lists.factors("OUTS:" + block_lists.PRESETS["OUTS"], own)
    assert block_lists.factors("1, 1 ,1,1,1,1,1,1,1,1,1,1,1,1,1,1,-.5", own) == {"OUT11": -0.5}


@pytest.mark.parametrize(("text", "said"), [
    ("1,1,1", "cannot have 3 numbers"), ("", "no block weight"), ("NOSUCH", "no block weight"),
    ("1,R" + ",1" * 15, "'R' is no block weight.*random"), ("nan" + ",1" * 16, "'nan'"), ("99" + ",1" * 16, "'99'"),
])  # fmt: skip
def test_what_is_no_list_is_refused(text, said):
    with pytest.raises(SettingsError, match=said):
        block_lists.factors(text, attention("sd1"))


def test_what_a_list_cannot_say_is_refused():
    own = [*attention("sd1"), "unet.conv_out"]
    with pytest.raises(SettingsError, match="first and last layers"):
        block_lists.written(own, lambda path: 0.0)
    finer = {"down_blocks.0.attentions.0.proj_in": 0.5}
    with pytest.raises(SettingsError, match=r"one weight for IN01; here it is 0\.5 to 1"):
        block_lists.written(own, lambda path: block_names.block_factor(finer, path))


def test_a_lists_block_is_finer_than_a_level_and_coarser_than_a_layer():
    path = f"unet.down_blocks.0.attentions.0.{LAST}"
    assert block_names.block_factor({"down_blocks.0": 0.1, "IN01": 0.2}, path) == 0.2
    assert block_names.block_factor({"IN01": 0.2, "unet.down_blocks.0.attentions.0": 0.3}, path) == 0.3
    assert block_names.block_factor({"IN02": 0.2}, path) == 1.0
    text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    assert block_names.block_factor({"BASE": 0.1, "text_encoder": 0.2}, text) == 0.2
