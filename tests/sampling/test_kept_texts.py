"""Texts that were encoded before are not encoded again, and what is drawn with them is the same."""

import pytest
import torch

from lora_studio import models
from lora_studio.adapters import Adapter, Factors
from lora_studio.models import inject, modules
from lora_studio.sampling import kept_texts
from lora_studio.sampling.axes import Cell
from lora_studio.sampling.generate import generate
from lora_studio.sampling.grid import render
from lora_studio.sampling.image_settings import ImageSettings
from lora_studio.texts.chunks import LITERAL, Reading
from tests.ui.small_adapters import small_adapter

SMALL = ImageSettings(sampler="ddim", steps=2, guidance=5.0, width=64, height=64, negative="blurry")


@pytest.fixture(scope="module")
def base(tiny_folder):
    return models.load(str(tiny_folder("sdxl")))


@pytest.fixture
def encoded(base, monkeypatch):
    """The texts that are encoded, call by call; ``base`` keeps them."""
    calls, real = [], base.encode_text
    monkeypatch.setattr(base, "encode_text", lambda texts, *rest: calls.append(list(texts)) or real(texts, *rest))
    kept_texts.enable(base)
    yield calls
    kept_texts.disable(base)
    inject.unload_adapters(base)


def of_texts(base, seed=0) -> Adapter:
    """An adapter of the text encoders alone."""
    source, factors = torch.Generator().manual_seed(seed), {}
    for path, module in modules.adaptable(base.models).items():
        if path.startswith("text_encoder") and path.endswith("q_proj"):
            out, into = module.weight.shape
            up, down = torch.randn(out, 2, generator=source), torch.randn(2, into, generator=source)
            factors[path] = Factors(down, up, 2.0)
    return Adapter(factors)


def test_a_text_is_encoded_once(base, encoded):
    """Prompt by prompt, in the order of the prompts; another chunk's length, reading or clip skip is another text."""
    first = kept_texts.encode(base, ["a cat", "a dog", "a cat"], LITERAL, 1)
    assert encoded == [["a cat", "a dog"]]
    again = kept_texts.encode(base, ["a dog", "a bird", "a cat"], LITERAL, 1)
    assert encoded == [["a cat", "a dog"], ["a bird"]]
    for name in ("hidden", "pooled"):
        assert torch.equal(first[name][0], first[name][2])
        assert torch.equal(again[name][[0, 2]], first[name][[1, 0]])
    kept_texts.encode(base, ["a cat"], LITERAL, 2)
    kept_texts.encode(base, ["a cat"], Reading(weights=True), 1)
    assert encoded[2:] == [["a cat"], ["a cat"]]


def test_the_features_are_those_of_the_encoders(base, encoded):
    wanted = base.encode_text(["a cat", "a dog"], LITERAL, 1)
    found = kept_texts.encode(base, ["a cat", "a dog"], LITERAL, 1)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_oldest_are_forgotten(base, encoded, monkeypatch):
    monkeypatch.setattr(kept_texts, "MOST", 2)
    for text in ("a", "b", "a", "c", "a", "b"):
        kept_texts.encode(base, [text], LITERAL, 1)
    assert encoded == [["a"], ["b"], ["c"], ["b"]]


def test_adapters_of_the_text_encoders_have_texts_of_their_own(base, encoded):
    """A moved weight draws the words as they were."""
    plain = kept_texts.encode(base, ["a cat"], LITERAL, 1)["pooled"]
    inject.load_adapters(base, [(of_texts(base), 1.0)])
    seen = []
    for weight in (1.0, 0.5, 1.0):
        inject.set_weights(base, [weight])
        seen.append(kept_texts.encode(base, ["a cat"], LITERAL, 1)["pooled"])
    assert len(encoded) == 3 and torch.equal(seen[0], seen[2])
    assert not torch.allclose(seen[0], seen[1]) and not torch.allclose(seen[0], plain)
    inject.set_weights(base, [[1.0], [0.5]])
    both = kept_texts.encode(base, ["a cat", "a cat"], LITERAL, 1)["pooled"]
    assert torch.allclose(both, torch.cat(seen[:2]), atol=1e-5)
    inject.load_adapters(base, [(of_texts(base, seed=1), 1.0)])
    assert not torch.allclose(kept_texts.encode(base, ["a cat"], LITERAL, 1)["pooled"], seen[0])
    inject.unload_adapters(base)
    assert torch.equal(kept_texts.encode(base, ["a cat"], LITERAL, 1)["pooled"], plain)


def test_adapters_of_the_denoiser_alone_leave_texts_as_they_are(base, encoded):
    kept_texts.encode(base, ["a cat"], LITERAL, 1)
    inject.load_adapters(base, [(small_adapter(base, 1), 1.0)])
    kept_texts.encode(base, ["a cat"], LITERAL, 1)
    assert encoded == [["a cat"]]


def test_pictures_of_kept_texts_are_the_same(base, encoded):
    prompts, seeds = ["a dog", "a cat"], [1, 2]
    cells = [Cell(prompt, seed, (0.5,), 5.0, 2) for prompt, seed in zip(prompts, seeds, strict=True)]
    style = small_adapter(base, 1)
    first = generate(base, prompts, seeds, SMALL), render(base, [style], cells, SMALL)
    assert encoded == [["blurry"], prompts]
    again = generate(base, prompts[::-1], seeds[::-1], SMALL), render(base, [style], cells[::-1], SMALL)
    assert encoded == [["blurry"], prompts]
    assert all(here == there[::-1] for here, there in zip(first, again, strict=True))
    kept_texts.disable(base)
    assert generate(base, prompts, seeds, SMALL) == first[0]
