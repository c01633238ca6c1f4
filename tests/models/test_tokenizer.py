"""CLIP's vocabulary as it ships: the numbers that OpenAI's own tokenizer gives."""

import json

from lora_studio.models.tokenizer import SHIPPED, Tokenizer

ASTRONAUT = [320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496]
"""a photo of an astronaut riding a horse on mars"""


def test_known_numbers():
    found = Tokenizer.shipped()(["A photo of an  astronaut riding a horse on Mars"])[0].tolist()
    assert found == [49406, *ASTRONAUT, *[49407] * 66]


def test_the_vocabulary_is_whole():
    table = json.loads((SHIPPED / "vocab.json").read_text())
    assert sorted(table.values()) == list(range(49408))
    assert (table["!"], table["a</w>"], table["<|startoftext|>"], table["<|endoftext|>"]) == (0, 320, 49406, 49407)
    assert len((SHIPPED / "merges.txt").read_text().splitlines()) == 1 + 48894


def test_padding_with_an_exclamation_mark_leaves_those_of_the_prompt_alone():
    """SDXL's second encoder pads with token 0, the bare "!"; a "!" that ends a word is token 256, and must stay it."""
    found = Tokenizer.shipped(pad=0)(["horse!"])[0].tolist()
    assert found == [49406, 4558, 256, 49407, *[0] * 73]


def test_long_captions_are_cut_and_still_end():
    found = Tokenizer.shipped()(["horse " * 200, ""])
    assert found.shape == (2, 77)
    assert found[0, 0] == found[1, 0] == 49406 and found[0, -1] == found[1, 1] == 49407
