"""Embeddings of the library that a prompt names, and their cards."""

import pytest
import torch
from safetensors.torch import save_file

from lora_studio.errors import AdapterError
from lora_studio.runs import library
from lora_studio.ui.pages.draw import named, order, sizes
from lora_studio.ui.pages.library import cards
from lora_studio.ui.scene.mixture import Mix


@pytest.fixture
def entries(tmp_path):
    folder = tmp_path / "library"
    folder.mkdir()
    save_file({"emb_params": torch.ones(2, 768)}, folder / "ink.safetensors")
    save_file({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}, folder / "EasyNo.safetensors")
    save_file({"emb_params": torch.ones(1, 32)}, folder / "wash.safetensors")
    return library.entries(tmp_path)


def words(texts, entries, **how) -> list[str]:
    return [one.entry.words[0] for one in named.embeddings_in(texts, entries, **how)]


def test_words_are_found_plainly_and_with_comfyuis_prefix(entries):
    assert sorted(words(["a cat, INK", "embedding:easyno.safetensors, blurry"], entries)) == ["EasyNo", "ink"]
    assert words(["a pink cat, inkling"], entries) == []
    assert words(["ink"], entries, fits=lambda entry: entry.family == "sdxl") == []
    path = next(entry.path for entry in entries if entry.words == ("ink",))
    assert words(["embedding:ink"], entries, taken=[path]) == [], "it is drawn with anyway"
    with pytest.raises(AdapterError, match="no embedding named gone for this base model"):
        words(["embedding:gone, ink"], entries)


def test_an_order_takes_those_that_fit_the_base_model(entries, tmp_path):
    fields = order.DrawFields("wash of a house, ink", negative="easyno")
    assert sizes.family_of("starter") == "starter"
    made = order.order(fields, Mix(), tmp_path)
    assert [(one.name, one.weight) for one in made.spec.adapters] == [("wash", 1.0)]
    assert made.spec.prompt == "wash of a house, ink"


def test_a_card_says_that_it_is_an_embedding(entries):
    (entry,) = [entry for entry in entries if entry.words == ("ink",)]
    assert "embedding" in cards.facts(entry) and "rank" not in cards.facts(entry)
