"""The noise that pictures are trained with."""

import pytest
import torch

from lora_studio.config.slices import NoiseSettings
from lora_studio.diffusion import noise

SHAPE = torch.Size((2, 4, 64, 48))


def drawn(shape=SHAPE, seed=1, **settings):
    return noise.draw(shape, NoiseSettings(**settings), torch.Generator().manual_seed(seed))


def coarse(found: torch.Tensor) -> float:
    """The standard deviation of means over 16 × 16 pixels: 1 / 16 for plain noise."""
    return torch.nn.functional.avg_pool2d(found, 16).std().item()


def test_plain_noise_is_torchs_to_the_bit():
    assert torch.equal(drawn(), torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))


def test_noise_offset_moves_whole_channels():
    """The offset is one draw a channel after the noise: the spread within a channel stays that of the noise."""
    source = torch.Generator().manual_seed(1)
    expected = torch.randn(SHAPE, generator=source) + 0.5 * torch.randn((2, 4, 1, 1), generator=source)
    assert torch.equal(drawn(noise_offset=0.5), expected)


def test_multi_resolution_noise_by_hand():
    """Of 4 × 2 pixels the only coarser scale, 2 to 4 times smaller, is a single pixel."""
    source = torch.Generator().manual_seed(3)
    plain = torch.randn((1, 1, 4, 2), generator=source)
    torch.rand((), generator=source)
    whole = plain + 0.5 * torch.randn((1, 1, 1, 1), generator=source)
    assert torch.allclose(drawn((1, 1, 4, 2), 3, multires_discount=0.5), whole / whole.std(), atol=1e-6)


def test_multi_resolution_noise_has_more_at_coarse_scales_and_each_picture_the_same_spread():
    few, many = drawn(multires_discount=0.3), drawn(multires_discount=0.8)
    assert few.std((1, 2, 3)).tolist() == pytest.approx([1, 1]) and many.std((1, 2, 3)).tolist() == pytest.approx(
        [1, 1]
    )
    assert coarse(drawn()) == pytest.approx(0.0625, rel=0.25) and coarse(few) > 0.073 and coarse(many) > 0.3


def test_input_perturbation_is_noise_of_its_own_strength():
    settings = NoiseSettings(input_perturbation=0.1)
    found = noise.perturbation(SHAPE, settings, torch.Generator().manual_seed(1))
    assert torch.equal(found, 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    assert noise.perturbation(SHAPE, NoiseSettings(), torch.Generator()) is None
