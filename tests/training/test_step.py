"""The loss of one batch as numbers."""

from types import SimpleNamespace

import pytest
import torch

from lora_studio.config.settings import Settings
from lora_studio.diffusion.prediction import Epsilon, V
from lora_studio.training import step


def base(prediction, answer):
    """A model of two timesteps (ᾱ = 0.8 and 0.2) that predicts ``answer`` whatever it sees."""
    return SimpleNamespace(
        alphas_cumprod=torch.tensor([0.8, 0.2]),
        prediction=prediction,
        predict=lambda noisy, timesteps, text, sizes: answer,
    )


X0, NOISE = torch.full((2, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1), 1.0)
T = torch.tensor([0, 1])


def test_noising_keeps_the_share_of_signal():
    """√0.8·2 + √0.2·1."""
    assert step.diffuse(X0[:1], NOISE[:1], torch.tensor([[[[0.8]]]])).item() == pytest.approx(0.8**0.5 * 2 + 0.2**0.5)


def test_the_epsilon_loss_compares_with_the_noise():
    losses = step.losses(base(Epsilon(), torch.full_like(X0, 3.0)), X0, NOISE, T, {}, None, Settings(min_snr_gamma=0))
    assert losses.tolist() == pytest.approx([4.0, 4.0])


def test_the_v_loss_compares_with_the_velocity():
    """v = √ᾱ ε − √(1−ᾱ) x₀, here √0.8 − 2√0.2 = 0 and √0.2 − 2√0.8."""
    losses = step.losses(base(V(), torch.zeros_like(X0)), X0, NOISE, T, {}, None, Settings(min_snr_gamma=0))
    assert losses.tolist() == pytest.approx([0.0, (0.2**0.5 - 2 * 0.8**0.5) ** 2], abs=1e-6)


def test_min_snr_holds_easy_timesteps_back():
    """SNR 4 and 0.25 with γ = 1: min(SNR, γ)/SNR = 1/4 and 1 for ε (Hang et al. 2023, eq. 4)."""
    losses = step.losses(base(Epsilon(), torch.full_like(X0, 3.0)), X0, NOISE, T, {}, None, Settings(min_snr_gamma=1))
    assert losses.tolist() == pytest.approx([1.0, 4.0])


def test_huber_is_mse_near_zero_and_linear_far_out():
    """δ = 0.5: error 0.1 counts 0.01; error 2 counts 2·0.5·(2 − 0.25) = 1.75."""
    settings = Settings(min_snr_gamma=0, loss="huber", huber_delta=0.5)
    losses = step.losses(base(Epsilon(), torch.tensor([1.1, 3.0]).view(2, 1, 1, 1)), X0, NOISE, T, {}, None, settings)
    assert losses.tolist() == pytest.approx([0.01, 1.75], abs=1e-6)


def test_noise_offset_moves_whole_channels():
    """The offset is one draw a channel: the spread within a channel stays that of the noise."""
    noise = step.draw_noise(torch.Size((1, 4, 64, 64)), 0.5, step.generator(1))
    assert noise.mean(dim=(2, 3)).abs().max() > 0.2
    assert noise.std(dim=(2, 3)).flatten().tolist() == pytest.approx([1.0] * 4, abs=0.05)


def test_streams_of_different_purposes_differ_and_repeat():
    first = torch.randn(3, generator=step.generator(7, step.NOISE, 5))
    assert torch.equal(first, torch.randn(3, generator=step.generator(7, step.NOISE, 5)))
    assert not torch.equal(first, torch.randn(3, generator=step.generator(7, step.VALIDATION, 5)))
    assert not torch.equal(first, torch.randn(3, generator=step.generator(7, step.NOISE, 6)))
