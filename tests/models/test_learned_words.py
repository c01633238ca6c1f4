"""Learned words in text encoders: what they read, that nothing else changes, and which adapter's word is meant."""

import pytest
import torch

from lora_studio import models
from lora_studio.adapters.adapter import Adapter
from lora_studio.adapters.embedding import Embedding
from lora_studio.errors import AdapterError
from lora_studio.models import inject
from lora_studio.models.learned_words import start_from
from lora_studio.sampling.axes import Cell
from lora_studio.sampling.generate import generate
from lora_studio.sampling.grid import render
from lora_studio.sampling.image_settings import ImageSettings

SMALL = ImageSettings(steps=1, guidance=3.0, width=64, height=64)


def vectors(base, words: str, count: int) -> dict[str, torch.Tensor]:
    pairs = zip(base.text_encoders.items(), base.tokenizers, strict=True)
    return {part: start_from(encoder, tokenizer, words, count) for (part, encoder), tokenizer in pairs}


def of_word(base, word: str, words: str, count: int = 1, in_front: bool = False, file: str = "") -> Adapter:
    """An adapter whose ``word`` is read as the first tokens of ``words``."""
    return Adapter({}, file=file, embeddings={word: Embedding(word, vectors(base, words, count), in_front)})


def equal(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_word_is_read_as_its_vectors_are(tiny_folder, family):
    """A word whose vectors are those of "red cat" is read as "red cat", in SDXL's pooled summary too."""
    base = models.load(str(tiny_folder(family)))
    plain = base.encode_text(["ink", "a red cat", "a dog"])
    inject.load_adapters(base, [(of_word(base, "ink", "red cat", 2), 0.5)])
    learned = base.encode_text(["ink", "a ink", "a dog"])
    assert equal({name: rows[1:] for name, rows in learned.items()}, {name: rows[1:] for name, rows in plain.items()})
    assert not torch.equal(learned["hidden"][0], plain["hidden"][0])
    with inject.without_adapter(base):
        assert equal(base.encode_text(["ink", "a red cat", "a dog"]), plain)
    assert not torch.equal(base.encode_text(["ink"])["hidden"][0], plain["hidden"][0])
    inject.unload_adapters(base)
    assert equal(base.encode_text(["ink", "a red cat", "a dog"]), plain)


def test_a_weight_of_zero_is_without_its_words_sample_by_sample(base):
    plain = base.encode_text(["a ink", "a ink"])["hidden"]
    inject.load_adapters(base, [(of_word(base, "ink", "cat"), 1.0), (of_word(base, "bo", "dog"), 1.0)])
    inject.set_weights(base, [(0.0, 1.0), (2.0, 0.0)])
    first, second = base.encode_text(["a ink", "a ink"])["hidden"]
    assert torch.equal(first, plain[0]) and not torch.equal(second, plain[1])


def test_two_adapters_that_know_the_same_word_are_told_apart_or_refused(base):
    one, other = of_word(base, "ink", "cat", file="a.safetensors"), of_word(base, "INK", "dog", file="b.safetensors")
    with pytest.raises(AdapterError, match=r"a\.safetensors and b\.safetensors have both learned the word 'INK'"):
        inject.load_adapters(base, [(one, 1.0), (other, 0.5)])
    assert base.loaded is None
    inject.load_adapters(base, [(one, 1.0), (one, 1.0)])  # the same file twice
    inject.load_adapters(base, [(one, 1.0), (other, 0.0)])
    with pytest.raises(AdapterError, match="both learned"):
        inject.set_weights(base, (1.0, 1.0))


def test_vectors_of_another_width_and_too_many_are_refused(base, tiny_folder):
    with pytest.raises(AdapterError, match="are 768 wide; the base model's text encoder reads 32"):
        wide = Embedding("ink", {"text_encoder": torch.zeros(1, 768)})
        inject.load_adapters(base, [(Adapter({}, embeddings={"ink": wide}), 1.0)])
    with pytest.raises(AdapterError, match="has 80 vectors; a text encoder reads 75"):
        inject.load_adapters(base, [(of_word(base, "ink", "cat", 80), 1.0)])


def test_a_word_in_front_goes_before_prompts_and_not_before_negative_ones(base):
    plain = generate(base, ["cat, a house"], [1], SMALL.changed(negative="blue"))
    inject.load_adapters(base, [(of_word(base, "ink", "cat", in_front=True), 1.0)])
    found = generate(base, ["a house"], [1], SMALL.changed(negative="blue"))
    assert found[0].tobytes() == plain[0].tobytes()
    assert base.words.fronted("a house of INK") == "a house of INK" and base.words.fronted("") == ""


def test_a_sheet_knows_in_each_cell_the_words_of_its_own_adapters(base):
    cat, dog = of_word(base, "ink", "cat", file="a"), of_word(base, "ink", "dog", file="b")
    cells = [Cell("a ink", 3, weights, 3.0, 1) for weights in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0))]
    drawn = render(base, [cat, dog], cells, SMALL)
    alone = [generate(base, [prompt], [3], SMALL)[0] for prompt in ("a cat", "a dog", "a ink")]
    differences = [
        (
            torch.frombuffer(bytearray(one.tobytes()), dtype=torch.uint8).int()
            - torch.frombuffer(bytearray(other.tobytes()), dtype=torch.uint8).int()
        )
        .abs()
        .max()
        for one, other in zip(drawn, alone, strict=True)
    ]
    assert max(differences) <= 1
