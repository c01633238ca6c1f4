"""Texts of any length to features: chunks against diffusers' pipelines and transformers' encoders, chunk by chunk."""

import pytest
import torch

from lora_studio import models
from lora_studio.errors import SettingsError
from lora_studio.texts import chunks
from lora_studio.texts.chunks import LITERAL, Reading
from lora_studio.texts.prompts import Part
from lora_studio.texts.tokenizer import Tokenizer

WEIGHTS = Reading(weights=True)
LONG = ", ".join(f"tag number {index}" for index in range(40))


@pytest.fixture(scope="module")
def sd1(tiny_folder):
    return models.load(str(tiny_folder("sd1")))


@pytest.fixture(scope="module")
def sdxl(tiny_folder):
    return models.load(str(tiny_folder("sdxl")))


def ids(base, text, number=0):
    return base.tokenizers[number].clip(text, add_special_tokens=False, verbose=False).input_ids


def marked(tokens, pad=49407):
    return torch.tensor([[49406, *tokens, 49407, *[pad] * (75 - len(tokens))]])


def test_a_text_of_three_chunks_is_encoded_chunk_by_chunk(sd1):
    tokens = ids(sd1, LONG)
    assert 150 < len(tokens) < 225
    rows = torch.cat([marked(tokens[start : start + 75]) for start in (0, 75, 150)])
    with torch.no_grad():
        expected = sd1.text_encoders["text_encoder"](rows).last_hidden_state.reshape(1, 231, -1)
    assert torch.equal(sd1.encode_text([LONG])["hidden"], expected)


def test_sdxl_takes_the_summary_of_the_first_chunk_and_its_own_padding(sdxl):
    tokens, states = ids(sdxl, LONG)[:80], []
    text = "".join(LONG[slice(*span)] + " " for span in sdxl.tokenizers[0].spans(LONG)[:80])
    assert ids(sdxl, text) == tokens
    found = sdxl.encode_text([text])
    for (name, encoder), pad in zip(sdxl.text_encoders.items(), (49407, 0), strict=True):
        rows = torch.cat([marked(tokens[:75], pad), marked(tokens[75:], pad)])
        with torch.no_grad():
            out = encoder(rows, output_hidden_states=True)
        states.append(out.hidden_states[-2].reshape(1, 154, -1))
        if name == "text_encoder_2":
            assert torch.equal(found["pooled"], out.text_embeds[:1])
    assert torch.equal(found["hidden"], torch.cat(states, dim=-1))


def test_a_short_text_beside_a_long_one_is_filled_up_with_encoded_empty_chunks(sd1, sdxl):
    for base in (sd1, sdxl):
        alone, empty = base.encode_text(["ink"]), base.encode_text([" "])
        both = base.encode_text(["ink", LONG, ""])
        assert torch.allclose(both["hidden"][0, :77], alone["hidden"][0], atol=1e-5)
        assert torch.allclose(both["hidden"][0, 77:154], empty["hidden"][0], atol=1e-5)
        assert torch.equal(both["hidden"][0, 77:154], both["hidden"][0, 154:])
        assert empty["hidden"].any()
        assert base.encode_text(["ink"], length=3)["hidden"].shape == both["hidden"][:1].shape
    assert not both["hidden"][2].any() and not both["pooled"][2].any(), "SDXL's empty caption stays zero throughout"


def test_a_limit_is_in_whole_chunks_of_the_window():
    clip = Tokenizer.shipped()
    assert [Reading(tokens=count).most_chunks(clip) for count in (0, 1, 75, 76, 225)] == [0, 1, 1, 2, 3]
    words = "horse " * 200
    assert chunks.read(words, LITERAL, [clip]).length == 3
    assert chunks.read(words, Reading(tokens=150), [clip]).chunks == [clip.chunks([Part("horse " * 150)])]
    assert chunks.seen(words, Reading(tokens=150), [clip]) == "horse " * 150
    assert chunks.seen(words, LITERAL, [clip]) == chunks.seen(words, Reading(tokens=225), [clip]) == words


def test_the_starters_window_has_chunks_as_large_as_stable_diffusions():
    base = models.load("starter")
    assert [tokenizer.room for tokenizer in base.tokenizers] == [75]
    assert base.encode_text(["cat " * 75])["hidden"].shape[1] == 77
    assert base.encode_text(["cat " * 76])["hidden"].shape[1] == 154
    assert Reading(tokens=225).most_chunks(base.tokenizers[0]) == 3


def test_a_prompt_without_weights_is_read_bit_for_bit_as_it_is_written(sd1, sdxl):
    for base in (sd1, sdxl):
        for text in ("a cat: ink, red", LONG, ""):
            literal, weighed = base.encode_text([text]), base.encode_text([text], WEIGHTS)
            assert all(torch.equal(literal[name], weighed[name]) for name in literal)
            assert base.read(text, WEIGHTS).plain


def test_weights_multiply_states_and_restore_the_mean(sd1):
    """A1111's formula, written out."""
    plain = sd1.encode_text(["a red cat"])["hidden"]
    factors = torch.ones(77)
    factors[2], factors[3] = 1.5, 1 / 1.1
    changed = plain * factors[:, None]
    expected = changed * (plain.mean() / changed.mean())
    found = sd1.encode_text(["a (red:1.5) [cat]"], WEIGHTS)["hidden"]
    assert torch.allclose(found, expected, atol=1e-6) and not torch.allclose(found, plain, atol=1e-3)


def test_each_of_sdxls_encoders_keeps_its_own_mean_and_the_summary_has_no_weights(sdxl):
    plain, found = sdxl.encode_text(["a red cat"]), sdxl.encode_text(["a (red:1.5) cat"], WEIGHTS)
    factors = torch.ones(77, 1)
    factors[2] = 1.5
    for part in (slice(0, 32), slice(32, 96)):
        own = plain["hidden"][..., part]
        expected = own * factors * (own.mean() / (own * factors).mean())
        assert torch.allclose(found["hidden"][..., part], expected, atol=1e-5)
    assert torch.equal(found["pooled"], plain["pooled"])


def test_weights_do_not_depend_on_the_batch(sd1):
    alone = sd1.encode_text(["a (red:1.5) cat"], WEIGHTS)["hidden"]
    beside = sd1.encode_text(["a (red:1.5) cat", "(((x)))", LONG], WEIGHTS)["hidden"]
    assert torch.allclose(beside[0, :77], alone[0], atol=1e-5)


def test_break_begins_a_chunk_of_its_own(sd1):
    found = sd1.encode_text(["a cat BREAK a dog"], WEIGHTS)["hidden"][0]
    assert torch.allclose(found, sd1.encode_text(["a cat", "a dog"])["hidden"].flatten(0, 1), atol=1e-5)
    assert sd1.encode_text(["a cat BREAK a dog"])["hidden"].shape[1] == 77, "literal: a word like others"


@pytest.mark.parametrize(
    ("text", "match"), [("cat " * 3001, "longer than 3000 tokens"), ("(cat:999)", "weighs more than 100")]
)
def test_what_cannot_be_drawn_is_refused(sd1, text, match):
    with pytest.raises(SettingsError, match=match):
        sd1.encode_text([text], WEIGHTS)
