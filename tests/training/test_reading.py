"""How a run reads captions and prompts: the cache's features are the text encoders' own, also of texts of unequal
lengths.
"""

from pathlib import Path

import pytest
import torch
from PIL import Image

from lora_studio import models
from lora_studio.config.settings import Settings
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.folder import scan
from lora_studio.dataset.items import Bucket, Dataset, Draw, Picture, Sample
from lora_studio.texts.chunks import Reading
from lora_studio.training import reading
from lora_studio.training.batches import Batches
from tests.models import tiny

LONG = ", ".join(f"tag number {index}" for index in range(40))
"""Three chunks."""


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    return models.load(str(tiny.folder(tmp_path_factory.mktemp("base") / "sdxl", "sdxl")))


def texts_only(folder, base, settings, *captions) -> Cache:
    """A cache of texts without pictures."""
    made = Cache(folder, reading.RunEncoder(base, settings), [], prompts=["a (cat:1.3)", LONG])
    made._latents, made.samples = (
        {},
        [
            Sample(Picture(Path(f"{caption[:9]}.png"), caption, 1, 64, 64, ""), Bucket(64, 64), [caption])
            for caption in captions
        ],
    )
    made._captions |= made._entries(captions)
    made._texts |= {entry.path: entry for entry in made._captions.values()}
    list(made.fill())
    return made


@pytest.mark.parametrize("limit", [75, 150, 225])
def test_cached_features_are_the_encoders_own(tmp_path, sdxl, limit):
    settings = Settings(caption_tokens=limit)
    made = texts_only(tmp_path, sdxl, settings, "a (cat:1.3)", LONG)
    draws = [Draw(0), Draw(1), Draw(0, drop_caption=True)]
    expected = sdxl.encode_text(["a (cat:1.3)", LONG, ""], Reading(tokens=limit))
    found = made.text(draws)
    assert found["hidden"].shape == (3, 77 * limit // 75, 96) and made.length(made.captions(draws)) == limit // 75
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)
    prompts, expected = made.features(["a (cat:1.3)"], 3), sdxl.encode_text(["a (cat:1.3)"], Reading(True), 3)
    assert all(torch.allclose(prompts[name], expected[name], atol=1e-5) for name in expected)
    assert not torch.allclose(prompts["hidden"][0, :77], found["hidden"][0, :77], atol=1e-3), "captions have no weights"


def test_every_part_of_a_batch_has_the_length_of_the_whole(tmp_path, sdxl, monkeypatch):
    """As on several GPUs, of which each takes a part."""
    made = texts_only(tmp_path, sdxl, Settings(), "ink", LONG)
    monkeypatch.setattr(Cache, "latents", lambda cache, draws, source: torch.zeros(len(draws), 4, 8, 8))
    monkeypatch.setattr(Cache, "sizes", lambda cache, draws: torch.zeros(len(draws), 6))

    class Both:
        def draw(self, number):
            return [Draw(0), Draw(1)]

    for live_text in (False, True):
        whole = Batches(made, Both(), sdxl.process, 0, live_text=live_text).draw(0)
        part = Batches(made, Both(), sdxl.process, 0, live_text=live_text, part=slice(0, 1)).draw(0)
        assert part.captions == ["ink"] and whole.captions == ["ink", LONG]
        assert whole.length == part.length == (3 if live_text else 0)
        assert all(torch.equal(part.text[name], whole.text[name][:1]) for name in whole.text)


def test_keys_of_texts_of_one_chunk_are_those_of_earlier_versions(sdxl):
    encoder = reading.RunEncoder(sdxl, Settings())
    assert encoder.reading("a (cat:1.3)") == encoder.reading("a cat", prompts=True) == encoder.reading("") == ()
    assert encoder.reading("a (cat:1.3)", prompts=True) == ("weights", 1)
    assert encoder.reading(LONG) == encoder.reading(LONG, prompts=True) == (3,)
    assert reading.RunEncoder(sdxl, Settings(caption_tokens=75)).reading(LONG) == ()
    assert reading.RunEncoder(sdxl, Settings(prompt_weights=False)).reading("a (cat:1.3)", prompts=True) == ()


def dataset_of(tmp_path, *captions) -> Dataset:
    for index, caption in enumerate(captions):
        Image.new("RGB", (64, 64), (40 * index, 90, 20)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(caption)
    return scan(tmp_path)


HORSES = ", ".join(["horse"] * 37)
"""73 tokens."""


def test_what_is_cut_is_counted_and_named_with_the_words_that_are_lost(tmp_path, sdxl):
    dataset = dataset_of(tmp_path, f"{HORSES}, lighthouse at night", "ink", f"{HORSES}, zyzzyva by day", HORSES)
    [problem] = reading.cut_captions(dataset, Settings(caption_tokens=75), sdxl.tokenizers)
    assert problem.what == ("2 captions are longer than 75 tokens and read only so far. Lost in 0.png: “at night”.")
    assert problem.do == "Set caption_tokens to 150, or write the most important words first."
    assert problem.severity == "warning" and problem.files == ("0.png", "2.png")
    assert not reading.cut_captions(dataset, Settings(), sdxl.tokenizers)
    [problem] = reading.cut_captions(dataset, Settings(caption_tokens=75, trigger="inkstyle"), sdxl.tokenizers)
    assert problem.files == ("0.png", "2.png", "3.png"), "the trigger word takes tokens too"


def test_a_word_that_is_read_in_part_counts_as_lost(tmp_path, sdxl):
    dataset = dataset_of(tmp_path, f"{HORSES}, zyzzyva")
    [problem] = reading.cut_captions(dataset, Settings(caption_tokens=75), sdxl.tokenizers)
    assert problem.what.startswith("1 caption is longer") and "“zyzzyva”" in problem.what


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("inkstyle", ["inkstyle"]),
        ("inkstyle, a cat, ink", ["inkstyle", "a cat", "ink"]),
        (f"{HORSES}, fox, owl", ["horse"] * 37 + ["fox"]),
        (f"{HORSES}, fox at night", ["horse"] * 37),
        (f"{HORSES}, zyzzyva", ["horse"] * 37),
        ("", []),
    ],
)
def test_only_tags_that_are_read_whole_are_seen(sdxl, text, tags):
    assert reading.tags_seen(text, Settings(caption_tokens=75), sdxl.tokenizers) == tags
