"""CLIP's vocabulary as it ships: the numbers that OpenAI's own tokenizer gives."""

import json

from lora_studio.texts.prompts import Part
from lora_studio.texts.tokenizer import SHIPPED, Tokenizer

ASTRONAUT = [320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496]
"""a photo of an astronaut riding a horse on mars"""


def test_known_numbers():
    [found] = Tokenizer.shipped().chunks([Part("A photo of an  astronaut riding a horse on Mars")])
    assert found.tokens == [49406, *ASTRONAUT, *[49407] * 66]


def test_the_vocabulary_is_whole():
    table = json.loads((SHIPPED / "vocab.json").read_text())
    assert sorted(table.values()) == list(range(49408))
    assert (table["!"], table["a</w>"], table["<|startoftext|>"], table["<|endoftext|>"]) == (0, 320, 49406, 49407)
    assert len((SHIPPED / "merges.txt").read_text().splitlines()) == 1 + 48894


def test_padding_with_an_exclamation_mark_leaves_those_of_the_prompt_alone():
    """SDXL's second encoder pads with token 0, the bare "!"; a "!" that ends a word is token 256, and must stay it."""
    [found] = Tokenizer.shipped(pad=0).chunks([Part("horse!")])
    assert found.tokens == [49406, 4558, 256, 49407, *[0] * 73]


def test_a_long_caption_is_divided_into_chunks_that_begin_and_end():
    clip = Tokenizer.shipped()
    *full, last = [chunk.tokens for chunk in clip.chunks([Part("horse " * 200)])]
    assert full == [[49406, *[4558] * 75, 49407]] * 2 and last == [49406, *[4558] * 50, *[49407] * 26]
    assert [clip.empty] == clip.chunks([Part("")]) and clip.empty.tokens == [49406, *[49407] * 76]


def test_weights_are_of_their_own_tokens():
    [found] = Tokenizer.shipped().chunks([Part("a "), Part("horse", 1.2), Part(", ink", 0.5)])
    assert found.tokens[:6] == [49406, 320, 4558, 267, 967, 49407]
    assert found.weights == [1, 1, 1.2, 0.5, 0.5, *[1] * 72]
