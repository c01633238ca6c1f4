"""What a base model does sooner while it stays in memory, and that it draws the same."""

import numpy as np
import pytest
import torch

from lora_studio import models
from lora_studio.models import autoencode
from lora_studio.sampling import generate as generating
from lora_studio.sampling import kept_texts, replay, shortcuts
from lora_studio.sampling.generate import decoded, generate
from lora_studio.sampling.image_settings import ImageSettings
from tests.models import tiny

SMALL = ImageSettings(sampler="ddim", steps=2, guidance=1.0, width=64, height=64)


@pytest.fixture
def base(tiny_folder):
    loaded = models.load(str(tiny_folder(tiny.SHALLOW)))
    yield loaded
    replay.disable(loaded)


def seen_by_the_decoder(base, monkeypatch) -> list[tuple[int, ...]]:
    shapes, real = [], base.decode
    monkeypatch.setattr(base, "decode", lambda latents: shapes.append(tuple(latents.shape)) or real(latents))
    return shapes


def test_on_a_cpu_only_texts_are_kept(base):
    shortcuts.take(base)
    assert base in kept_texts._OF and base not in replay._OF and base.decode_at_once == 0
    assert {one.dtype for one in base.vae.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype, decodes_in", [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)])
def test_on_a_gpu_steps_are_recorded_and_bf16_is_decoded_in_bf16(base, monkeypatch, dtype, decodes_in):
    """In fp16 SDXL's VAE overflows: it stays in float32."""
    monkeypatch.setattr(base, "device", torch.device("cuda"))
    monkeypatch.setattr(base, "dtype", dtype)
    shortcuts.take(base)
    kept = replay._OF[base]
    shortcuts.take(base)
    assert replay._OF[base] is kept, "taken again, recordings stay"
    assert base.decode_at_once == 2**20
    assert {one.dtype for one in base.vae.decoder.parameters()} == {decodes_in}
    assert {one.dtype for one in base.vae.encoder.parameters()} == {torch.float32}
    shortcuts.save_memory(base)
    assert base not in replay._OF and base.decode_at_once == 0


def test_pictures_are_decoded_together_in_their_order(base, monkeypatch):
    """As far as they fill what is decoded at once; one always is."""
    alone = generate(base, ["a cat"] * 5, range(5), SMALL)
    shapes = seen_by_the_decoder(base, monkeypatch)
    for pixels, sizes in ((2 * 64 * 64, [2, 2, 1]), (5 * 64 * 64 - 1, [4, 1]), (1, [1] * 5)):
        shapes.clear()
        monkeypatch.setattr(base, "decode_at_once", pixels)
        together = generate(base, ["a cat"] * 5, range(5), SMALL)
        assert [shape[0] for shape in shapes] == sizes
        assert apart(together, alone) <= 1


def test_a_picture_that_overflows_is_refused_among_others(base, monkeypatch):
    monkeypatch.setattr(base, "decode_at_once", 2**20)
    monkeypatch.setattr(base, "decode", lambda latents: torch.full((2, 3, 64, 64), torch.nan))
    with pytest.raises(generating.overflow.ModelError, match="overflowed"):
        decoded(base, torch.zeros(2, 4, 8, 8))


def test_the_starter_decodes_in_bf16_as_in_float32():
    """Its VAE has learned: 40 dB are a hundredth of the range."""
    starter = models.load("starter")
    ramp = torch.linspace(-0.8, 0.8, 128)
    picture = torch.stack([ramp.expand(128, 128), ramp[:, None].expand(128, 128), torch.zeros(128, 128)])[None]
    latents = starter.encode_images(picture)[0]
    exact = starter.decode(latents)
    autoencode.narrow_decoder(starter.vae, torch.bfloat16)
    narrow = starter.decode(latents)
    assert narrow.dtype == torch.float32
    assert 40 < -10 * (narrow - exact).square().mean().log10()
    assert torch.equal(starter.encode_images(picture)[0], latents), "it encodes as before"


def apart(some, others) -> int:
    """The largest difference in 8 bits."""
    return max(np.abs(np.asarray(a, int) - np.asarray(b, int)).max() for a, b in zip(some, others, strict=True))
