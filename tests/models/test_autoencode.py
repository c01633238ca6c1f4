"""The VAE in little memory, and in float32 whatever the rest computes in."""

import pytest
import torch

from lora_studio import models
from lora_studio.models import autoencode


@pytest.fixture(scope="module")
def base(tiny_folder):
    return models.load(str(tiny_folder("sdxl")), dtype=torch.float16)


def pixels(count=1, side=64):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def short(base, monkeypatch):
    """Makes memory short for batches of more than ``most`` pixels or latents; returns the sizes that were tried."""

    def limit(most: int) -> list[tuple[int, ...]]:
        tried = []
        for name in ("encoder", "decoder"):
            part = getattr(base.vae, name)

            def forward(x, *rest, real=part.forward):
                tried.append(tuple(x.shape))
                if x[:, 0].numel() > most:
                    raise torch.OutOfMemoryError("no room")
                return real(x, *rest)

            monkeypatch.setattr(part, "forward", forward)
        return tried

    return limit


def test_a_batch_that_does_not_fit_is_encoded_one_by_one_with_the_same_result(base, short):
    expected = base.encode_images(pixels(3))
    tried = short(64 * 64)
    found = base.encode_images(pixels(3))
    assert [shape[0] for shape in tried] == [3, 1, 1, 1]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(expected, found, strict=True))
    assert not base.vae.use_tiling


def test_a_picture_that_does_not_fit_is_encoded_and_decoded_in_tiles(base, short, monkeypatch):
    """Of the right size; afterwards the VAE is as it was."""
    monkeypatch.setattr(autoencode, "TILE", 64)
    latents = base.encode_images(pixels(2, 128))[0]
    tried = short(64 * 64)
    found, _ = base.encode_images(pixels(2, 128))
    assert (
        found.shape == latents.shape and tried[0][2:] == (128, 128) and max(max(shape[2:]) for shape in tried[2:]) <= 64
    )
    tried.clear()
    short(8 * 8)
    drawn = base.decode(latents)
    assert drawn.shape == (2, 3, 128, 128) and drawn.isfinite().all()
    assert not base.vae.use_tiling and base.vae.tile_sample_min_size != 64


def test_where_tiles_do_not_fit_smaller_ones_do(base, short, monkeypatch):
    monkeypatch.setattr(autoencode, "TILE", 128)
    monkeypatch.setattr(autoencode, "SMALL", 64)
    tried = short(64 * 64)
    found, _ = base.encode_images(pixels(1, 256))
    assert (
        found.shape == (1, 4, 32, 32)
        and tried[0][2:] == (256, 256)
        and tried[1][2:] == (128, 128)
        and max(max(shape[2:]) for shape in tried[2:]) <= 64
    )


def test_tiles_that_are_asked_for_do_not_wait_for_memory_to_run_out(base, short, monkeypatch):
    """And they have another fingerprint, since what is cached differs."""
    monkeypatch.setattr(autoencode, "TILE", 64)
    monkeypatch.setattr(base, "tiled", True)
    tried = short(10**9)
    base.encode_images(pixels(1, 128))
    assert tried and max(max(shape[2:]) for shape in tried) <= 64
    before = base.fingerprint
    del base.__dict__["fingerprint"]
    base.tiled = False
    assert base.fingerprint != before


def test_what_overflows_in_fp16_does_not_here(tiny_folder):
    """SDXL's own VAE answers with NaN in fp16: its activations pass 65504. So do these, made large on purpose; under
    fp16 autocast too.
    """
    base = models.load(str(tiny_folder("sdxl")), dtype=torch.float16)
    assert {parameter.dtype for parameter in base.vae.parameters()} == {
        torch.float32
    } and base.unet.dtype == torch.float16
    with torch.no_grad():
        base.vae.decoder.conv_in.weight *= 1e6
        base.vae.encoder.conv_in.weight *= 1e6
        inside = []
        handle = base.vae.decoder.conv_in.register_forward_hook(
            lambda _module, _inputs, output: inside.append(output.abs().max().item())
        )
        with torch.autocast("cpu", torch.float16):
            mean, deviation = base.encode_images(pixels())
            drawn = base.decode(torch.randn(1, 4, 8, 8))
        handle.remove()
        broken = base.vae.half().decoder.conv_in(torch.randn(1, 4, 8, 8).half())
    assert inside[0] > 65504 and not broken.isfinite().all()
    assert mean.dtype == deviation.dtype == drawn.dtype == torch.float32
    assert mean.isfinite().all() and deviation.isfinite().all() and drawn.isfinite().all()


def test_a_trained_vaes_tiles_come_near_the_whole_picture(monkeypatch):
    """On the starter, whose VAE has learned: a smooth picture of 128 pixels in tiles of 64, half of what it was trained
    on. Swapped or shifted tiles are far off.
    """
    monkeypatch.setattr(autoencode, "TILE", 64)
    starter = models.load("starter")
    ramp = torch.linspace(-0.8, 0.8, 128)
    picture = torch.stack([ramp.expand(128, 128), ramp[:, None].expand(128, 128), torch.zeros(128, 128)])[None]
    drawn = {}
    for starter.tiled in (False, True):
        drawn[starter.tiled] = starter.decode(starter.encode_images(picture)[0])
    assert 0 < (drawn[True] - drawn[False]).abs().mean() < 0.15
