"""What a model predicts: the formulas, on numbers small enough to check by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.diffusion.prediction import EPSILON, VELOCITY, named
from lora_studio.errors import SettingsError

KINDS = [EPSILON, VELOCITY]


def test_targets_by_hand():
    """ᾱ = 0.36 gives √ᾱ = 0.6 and √(1−ᾱ) = 0.8."""
    x0, noise, alpha_bar = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0), torch.tensor([0.36])
    assert EPSILON.target(x0, noise, alpha_bar).item() == -1
    assert VELOCITY.target(x0, noise, alpha_bar).item() == pytest.approx(0.6 * -1 - 0.8 * 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_answer_gives_the_clean_latents_back(kind):
    torch.manual_seed(0)
    x0, noise, alpha_bar = torch.randn(5, 4, 3, 3), torch.randn(5, 4, 3, 3), torch.tensor([0.999, 0.7, 0.5, 0.1, 0.005])
    a = alpha_bar.view(-1, 1, 1, 1)
    noisy = a.sqrt() * x0 + (1 - a).sqrt() * noise
    assert torch.allclose(kind.x0(kind.target(x0, noise, alpha_bar), noisy, alpha_bar), x0, atol=1e-4)
    assert torch.equal(kind.target(x0, noise, alpha_bar), kind.target(x0, noise, a)), "ᾱ may come shaped or not"


def test_min_snr_weights_by_hand():
    """SNR 0.5, 5 and 20 at γ = 5; the + 1 of the v form is what implementations forget."""
    snr = torch.tensor([0.5, 5.0, 20.0])
    assert torch.allclose(EPSILON.weight(snr, 5), torch.tensor([1.0, 1.0, 0.25]))
    assert torch.allclose(VELOCITY.weight(snr, 5), torch.tensor([0.5 / 1.5, 5 / 6, 5 / 21]))


@pytest.mark.parametrize("kind", KINDS)
@given(alpha_bar=st.floats(0.01, 0.99), error=st.floats(-3, 3), gamma=st.floats(0.5, 20))
def test_every_kind_weighs_the_same_error_in_x0_alike(kind, alpha_bar, error, gamma):
    """The weights exist to make the loss min(SNR, γ) · ‖x₀ error‖², whatever is predicted."""
    a, noisy, answer = torch.tensor([alpha_bar]), torch.tensor([[[[0.3]]]]), torch.tensor([[[[0.7]]]])
    snr = a / (1 - a)
    error_in_x0 = kind.x0(answer + error, noisy, a) - kind.x0(answer, noisy, a)
    assert (kind.weight(snr, gamma) * error**2).item() == pytest.approx(
        (snr.clamp(max=gamma) * error_in_x0**2).item(), rel=1e-3, abs=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gamma_zero_switches_weighting_off(kind):
    assert torch.equal(kind.weight(torch.tensor([0.1, 9.0]), 0), torch.ones(2))


def test_pure_noise_has_no_weight_in_v():
    """A schedule that ends in pure noise has SNR 0 there: no division by it."""
    assert VELOCITY.weight(torch.zeros(1), 5).item() == 0


def test_names():
    assert (named("epsilon"), named("v"), named("v_prediction")) == (EPSILON, VELOCITY, VELOCITY)
    with pytest.raises(SettingsError, match="sample"):
        named("sample")
