"""The starter that ships: it loads offline, has Stable Diffusion 1.5's names, takes any text, and paints."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_studio import starter


@pytest.fixture(scope="module")
def pipe():
    """The pipeline in float32, on the CPU, without a network."""
    pytest.importorskip("torch")
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(starter.MODEL, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def tokenizer():
    """The tokenizer alone, as transformers loads it."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(starter.MODEL / "tokenizer", local_files_only=True)


def attention_names() -> set[str]:
    """The 128 attention projections of Stable Diffusion 1.5's UNet, by rule."""
    homes = [f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)]
    homes += ["mid_block.attentions.0"] + [f"up_blocks.{i}.attentions.{j}" for i in range(1, 4) for j in range(3)]
    ends = ("to_q", "to_k", "to_v", "to_out.0")
    return {f"{home}.transformer_blocks.0.attn{k}.{end}" for home in homes for k in (1, 2) for end in ends}


def test_importing_the_paths_loads_nothing_heavy():
    """The page asks for the sample folders before torch is there."""
    code = (
        "import sys, lora_studio.starter as s; s.sample_styles(); print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )


def test_the_model_stays_under_forty_megabytes():
    """It travels inside the package."""
    assert sum(f.stat().st_size for f in starter.MODEL.rglob("*") if f.is_file()) <= 40_000_000


def test_only_safe_formats_ship():
    """No pickles: weights are safetensors, all else is text."""
    assert {f.suffix for f in starter.MODEL.rglob("*") if f.is_file()} == {".safetensors", ".json", ".txt"}


def test_attention_is_named_as_in_stable_diffusion(pipe):
    """A LoRA's keys must be those of Stable Diffusion 1.5, name for name."""
    found = {name for name, _ in pipe.unet.named_modules() if re.search(r"\.(to_[qkv]|to_out\.0)$", name)}
    assert found == attention_names() and len(found) == 128


def test_plain_loading_gives_one_dtype():
    """transformers took the half-precision text encoder as it was while diffusers made the UNet float32."""
    torch = pytest.importorskip("torch")
    from transformers import CLIPTextModel

    assert CLIPTextModel.from_pretrained(starter.MODEL / "text_encoder", local_files_only=True).dtype == torch.float32


def test_the_scheduler_says_what_the_model_predicts(pipe):
    """A trainer reads the prediction type and the betas from here."""
    config = json.loads((starter.MODEL / "scheduler" / "scheduler_config.json").read_text())
    assert config["prediction_type"] == "v_prediction" and config["beta_schedule"] == "scaled_linear"
    assert pipe.vae.config.scaling_factor == 0.18215


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_has_tokens(tokenizer, text):
    """An unknown word falls apart into letters; it is never an error, and every id has its embedding."""
    ids = tokenizer(text, padding="max_length", truncation=True)["input_ids"]
    assert len(ids) == tokenizer.model_max_length == 77
    assert ids[0] == tokenizer.bos_token_id and tokenizer.eos_token_id in ids and max(ids) < len(tokenizer)


@pytest.mark.parametrize("word", ["apple", "cat", "house", "rocket", "background", "style"])
def test_a_common_word_is_one_token(tokenizer, word):
    """The captions' words stand in the vocabulary whole."""
    assert tokenizer.tokenize(word) == [f"{word}</w>"]


def test_text_comes_back_in_lower_case(tokenizer):
    """Decoding gives the words again, which shows that no letter is lost."""
    assert (
        tokenizer.decode(tokenizer("A Zyzzyva, 42!")["input_ids"], skip_special_tokens=True).replace(" ", "")
        == "azyzzyva,42!"
    )


def test_a_few_steps_paint_a_picture(pipe):
    """Finite, not grey, red where the apple is, and white around it."""
    torch = pytest.importorskip("torch")
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    picture = pipe(
        "apple, flat style", latents=noise, num_inference_steps=8, guidance_scale=4.0, output_type="pt"
    ).images[0]
    assert picture.shape == (3, 128, 128) and torch.isfinite(picture).all() and picture.std() > 0.1
    red, green, blue = picture[:, 48:96, 40:88].mean((1, 2))
    assert red > green + 0.2 and red > blue + 0.2
    assert picture[:, :6, :6].min() > 0.8


@pytest.mark.parametrize(("style", "least"), [("blueprint", 25), ("ink-icons", 32)])
def test_the_autoencoder_keeps_pictures(style, least, pipe):
    """Colours and thin lines of samples in styles that it never saw survive the way there and back (it washed the
    colours out once); mean PSNR in dB.
    """
    torch = pytest.importorskip("torch")
    import numpy as np
    from PIL import Image

    def read(file):
        return np.array(Image.open(file).convert("RGB").resize((128, 128), Image.Resampling.LANCZOS))

    files = sorted((starter.SAMPLES / style).glob("*.png"))[:8]
    x = torch.stack([torch.from_numpy(read(file)) for file in files]).float().permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        out = pipe.vae.decode(pipe.vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
    assert (10 * torch.log10(4 / (out - x).square().mean((1, 2, 3)))).mean() > least
    assert (out.mean((0, 2, 3)) - x.mean((0, 2, 3))).abs().max() < 0.05


def test_two_sample_styles_ship():
    """The names that the studio shows."""
    assert [folder.name for folder in starter.sample_styles()] == ["blueprint", "ink-icons"]


@pytest.mark.parametrize("folder", starter.sample_styles(), ids=lambda f: f.name)
def test_every_sample_has_its_caption(folder: Path):
    """24 to 40 pictures, a caption beside each, none of the subjects that show the style on, and a licence."""
    from PIL import Image

    from lora_studio.starter.make.names import COMMON

    pictures = sorted(folder.glob("*.png"))
    assert 24 <= len(pictures) <= 40
    assert {p.stem for p in folder.glob("*.txt")} == {p.stem for p in pictures}
    for p in pictures:
        words = p.with_suffix(".txt").read_text().strip()
        assert words and not set(words.split()) & set(COMMON) and "style" not in words
        assert Image.open(p).size == (256, 256)
    assert "MIT License" in (folder / "LICENCE.md").read_text()
