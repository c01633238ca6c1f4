"""Learned words in files: every layout that programs write, and ours as A1111 and ComfyUI read it."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lora_studio import adapters
from lora_studio.adapters import analysis, blend, formats, proof, recipe, resize
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.adapters.embedding import Embedding
from lora_studio.adapters.metadata import Privacy
from lora_studio.cli.inspect import inspect
from lora_studio.errors import AdapterError
from lora_studio.runs import library

Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"


def rows(count: int, width: int, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + count * width, dtype=torch.float32).reshape(count, width) / 1000


def lora(*words: Embedding) -> Adapter:
    factors = {Q: Factors(torch.ones(2, 320), torch.ones(320, 2), 2.0)}
    return Adapter(factors, {}, embeddings={one.word: one for one in words})


@pytest.mark.parametrize(
    ("name", "tensors", "word", "family"),
    [
        ("ink", {"emb_params": rows(2, 768)}, "ink", "sd1"),
        ("ink", {"emp_params": rows(2, 768)}, "ink", "sd1"),
        ("learned_embeds", {"<cat-toy>": rows(1, 768)[0]}, "<cat-toy>", "sd1"),
        ("ink", {"emb_params": rows(2, 1024)}, "ink", "sd2"),
        ("ink", {"clip_l": rows(2, 768), "clip_g": rows(2, 1280)}, "ink", "sdxl"),
    ],
)
def test_files_that_hold_a_word_alone_are_read(tmp_path, name, tensors, word, family):
    path = tmp_path / f"{name}.safetensors"
    save_file(tensors, path)
    found, listed = adapters.read(path), adapters.summary(path)
    assert (list(found.embeddings), found.factors, found.family, found.kind.name) == ([word], {}, family, "embedding")
    assert (listed.words, listed.method, listed.family, listed.rank, listed.modules) == (
        (word,),
        "embedding",
        family,
        0,
        0,
    )
    held = list(found.embeddings[word].vectors.values())
    assert all(
        torch.equal(one, given.reshape(-1, given.shape[-1])) for one, given in zip(held, tensors.values(), strict=True)
    )


@pytest.mark.parametrize(
    "tensors",
    [
        {"bundle_emb.ink.string_to_param.*": rows(2, 768)},
        {"bundle_emb.ink.emb_params": rows(2, 768)},
        {"bundle_emb.ink.clip_l": rows(2, 768)},
    ],
)
def test_words_bundled_with_an_adapter_are_read(tmp_path, tensors):
    path = formats.write(lora(), tmp_path / "a.safetensors")
    held, _ = formats.load(path)
    save_file(held | tensors, path)
    found = adapters.read(path)
    assert list(found.factors) == [Q] and torch.equal(found.embeddings["ink"].vectors["text_encoder"], rows(2, 768))
    assert (adapters.summary(path).words, adapters.summary(path).method) == (("ink",), "lora")


def test_an_embedding_is_written_as_a1111_and_comfyui_read_it(tmp_path):
    one = Embedding("ink", {"text_encoder": rows(2, 768)})
    path = formats.write(Adapter({}, embeddings={"ink": one}), tmp_path / "other.safetensors", privacy=Privacy.NONE)
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["emb_params"]
        texts = file.metadata()
    assert (texts["modelspec.architecture"], texts["lora_studio.word"]) == (
        "stable-diffusion-v1/textual-inversion",
        "ink",
    )
    assert not any(key.startswith("ss_network") for key in texts)
    assert list(adapters.read(path).embeddings) == ["ink"], "whatever the file is called"
    both = Embedding("ink", {"text_encoder": rows(2, 768), "text_encoder_2": rows(2, 1280)})
    path = formats.write(Adapter({}, embeddings={"ink": both}), tmp_path / "xl.safetensors")
    with safe_open(path, "pt") as file:
        assert {key: file.get_slice(key).get_shape() for key in file.keys()} == {
            "clip_l": [2, 768],
            "clip_g": [2, 1280],
        }


def test_a_bundle_has_the_keys_that_a1111_and_comfyui_look_for(tmp_path):
    single = Embedding("ink", {"text_encoder": rows(2, 768)}, in_front=True)
    path = formats.write(lora(single), tmp_path / "a.safetensors", dtype=torch.float16)
    with safe_open(path, "pt") as file:
        assert file.get_tensor("bundle_emb.ink.string_to_param.*").dtype == torch.float16
        assert json.loads(file.metadata()["lora_studio.in_front"]) == ["ink"]
        assert "lora_studio.word" not in file.metadata()
    again = adapters.read(path)
    assert again.embeddings["ink"].in_front and again.parameters == 2 * 640 + 2 * 768
    both = Embedding("ink", {"text_encoder": rows(2, 768), "text_encoder_2": rows(2, 1280)})
    with safe_open(formats.write(lora(both), tmp_path / "b.safetensors"), "pt") as file:
        assert {key for key in file.keys() if "bundle" in key} == {"bundle_emb.ink.clip_l", "bundle_emb.ink.clip_g"}


@pytest.mark.parametrize("dialect", ["diffusers", "peft"])
def test_dialects_without_a_place_for_words_lose_none_silently(tmp_path, dialect):
    with pytest.raises(AdapterError, match="has learned the word 'ink', which cannot be written for"):
        formats.write(lora(Embedding("ink", {"text_encoder": rows(2, 768)})), tmp_path / "a", dialect=dialect)


@pytest.mark.parametrize("word", ["two words", "a.b", "(ana)", "", "x" * 101])
def test_words_that_no_program_could_call_are_not_written(tmp_path, word):
    with pytest.raises(AdapterError, match="cannot be a learned word"):
        formats.write(
            Adapter({}, embeddings={word: Embedding(word, {"text_encoder": rows(1, 768)})}), tmp_path / "a.safetensors"
        )


def test_vectors_that_fit_no_encoder_or_each_other_are_refused(tmp_path):
    path = tmp_path / "llm.safetensors"
    save_file({"emb_params": rows(2, 4096)}, path)
    for look in (adapters.read, adapters.summary):
        with pytest.raises(AdapterError, match="no text encoder of the studio's base models"):
            look(path)
    with pytest.raises(AdapterError, match="do not fit each other"):
        Embedding("ink", {"text_encoder": rows(2, 768), "text_encoder_2": rows(3, 1280)})
    save_file({"emb_params": torch.full((1, 768), float("nan"))}, path)
    with pytest.raises(AdapterError, match="NaN"):
        adapters.read(path)


def test_the_library_lists_embeddings_and_finds_them_by_their_word(tmp_path):
    save_file({"emb_params": rows(2, 768)}, tmp_path / "ink.safetensors")
    library.add(tmp_path / "ink.safetensors", tmp_path / "outputs")
    (entry,) = library.entries(tmp_path / "outputs")
    assert (entry.words, entry.method, entry.trigger) == (("ink",), "embedding", "ink")
    assert library.search([entry], "embedding ink") == [entry]


@pytest.mark.parametrize("widths", [{"text_encoder": 768}, {"text_encoder": 768, "text_encoder_2": 1280}], ids=str)
def test_exports_are_proved_as_programs_read_them(tmp_path, widths):
    one = Embedding("ink", {part: rows(2, width) for part, width in widths.items()})
    claims = {"ss_base_model_version": "sdxl_base_v1-0" if len(widths) > 1 else "sd_v1"}
    alone = Adapter({}, claims, embeddings={"ink": one})
    made = proof.export(alone, tmp_path / "ink.safetensors", dtype=torch.float16)
    assert [row.passed for row in made.proof.rows] == [True] * len(made.proof.rows) and len(made.proof.rows) >= 3
    assert all(row.note.startswith("The word ink arrives.") for row in made.proof.rows)
    whole = Adapter(lora().factors, claims, embeddings={"ink": one})
    made = proof.export(whole, tmp_path / "a.safetensors")
    assert {row.target for row in made.proof.rows} >= {"comfyui", "forge"}
    assert "diffusers" not in {row.target for row in made.proof.rows}
    with pytest.raises(AdapterError, match="diffusers refuses a LoRA's file with bundled words"):
        proof.export(whole, tmp_path / "b.safetensors", targets=("diffusers",))
    assert not (tmp_path / "b.safetensors").exists()


def test_a_word_that_arrives_changed_is_no_proof(tmp_path):
    one = Embedding("ink", {"text_encoder": rows(2, 768)})
    path = formats.write(lora(one), tmp_path / "a.safetensors")
    other = lora(Embedding("ink", {"text_encoder": rows(2, 768, 1)}))
    assert [row.note for row in proof.prove(path, other, ("forge", "comfyui")).rows] == [
        "The word 'ink' would be read otherwise."
    ] * 2


def test_operations_that_would_lose_words_refuse_or_keep_them(tmp_path):
    one = lora(Embedding("ink", {"text_encoder": rows(2, 768)}))
    assert list(resize.to_rank(one, 1).adapter.embeddings) == ["ink"]
    chosen = recipe.blend(ingredients=[blend.ingredient(name, 1.0, one) for name in "ab"])
    with pytest.raises(AdapterError, match="has learned the word 'ink', which cannot be blended"):
        blend.blend(chosen, [one, one])


def test_commands_say_that_a_file_holds_a_word_alone(tmp_path, capsys):
    path = tmp_path / "ink.safetensors"
    save_file({"emb_params": rows(2, 768)}, path)
    inspect(path, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["words"], told["unknown"], told["blocks"], told["method"]) == (["ink"], [], {}, "embedding")
    for act in (lambda one: analysis.analyze(one), lambda one: resize.to_rank(one, 1)):
        with pytest.raises(AdapterError, match="holds the learned word ink alone, which cannot be"):
            act(adapters.read(path))
