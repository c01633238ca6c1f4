"""The loss of one batch as numbers."""

from types import SimpleNamespace

import pytest
import torch

from lora_studio.config.settings import Settings
from lora_studio.diffusion.flow import RectifiedFlow
from lora_studio.diffusion.gaussian import Epsilon, Velocity
from lora_studio.training.batches import Batch
from lora_studio.training.loss import losses

SCHEDULE = {"num_train_timesteps": 2, "trained_betas": [0.2, 0.75]}
"""Two timesteps, ᾱ = 0.8 and 0.2."""
X0, NOISE = torch.full((2, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1), 1.0)


def loss_of(process, answer, timesteps=(0, 1), **settings):
    """The losses of a model that predicts ``answer`` whatever it sees."""
    base = SimpleNamespace(process=process, predict=lambda *given: answer)
    batch = Batch(X0, NOISE, torch.tensor(timesteps), torch.zeros(2, 6), {}, [])
    return losses(base, batch, {}, Settings(**{"min_snr_gamma": 0, **settings}).loss).tolist()


def test_the_epsilon_loss_compares_with_the_noise():
    assert loss_of(Epsilon(SCHEDULE), torch.full_like(X0, 3.0)) == pytest.approx([4.0, 4.0])


def test_the_v_loss_compares_with_the_velocity():
    """v = √ᾱ ε − √(1−ᾱ) x₀, here √0.8 − 2√0.2 = 0 and √0.2 − 2√0.8."""
    expected = [0.0, (0.2**0.5 - 2 * 0.8**0.5) ** 2]
    assert loss_of(Velocity(SCHEDULE), torch.zeros_like(X0)) == pytest.approx(expected, abs=1e-6)


def test_the_flow_loss_compares_with_the_direction():
    """v = ε − x₀ = −1, whatever the timestep."""
    assert loss_of(RectifiedFlow({}), torch.full_like(X0, 1.0), timesteps=(100.0, 900.0)) == pytest.approx([4.0, 4.0])


def test_min_snr_holds_easy_timesteps_back():
    """SNR 4 and 0.25 with γ = 1: min(SNR, γ)/SNR = 1/4 and 1 for ε (Hang et al. 2023, eq. 4)."""
    assert loss_of(Epsilon(SCHEDULE), torch.full_like(X0, 3.0), min_snr_gamma=1) == pytest.approx([1.0, 4.0])


def test_huber_is_mse_near_zero_and_linear_far_out():
    """δ = 0.5: error 0.1 counts 0.01; error 2 counts 2·0.5·(2 − 0.25) = 1.75."""
    found = loss_of(Epsilon(SCHEDULE), torch.tensor([1.1, 3.0]).view(2, 1, 1, 1), loss="huber", huber_delta=0.5)
    assert found == pytest.approx([0.01, 1.75], abs=1e-6)


def test_the_model_sees_the_noisy_latents_and_its_timesteps():
    seen = []
    base = SimpleNamespace(process=Epsilon(SCHEDULE), predict=lambda *given: seen.append(given) or torch.zeros_like(X0))
    batch = Batch(X0, NOISE, torch.tensor([0, 1]), torch.zeros(2, 6), {}, [])
    losses(base, batch, {"hidden": X0}, Settings().loss)
    noisy, timesteps, text, sizes, inpainting = seen[0]
    assert noisy.flatten().tolist() == pytest.approx([2 * 0.8**0.5 + 0.2**0.5, 2 * 0.2**0.5 + 0.8**0.5])
    assert timesteps.tolist() == [0, 1] and text == {"hidden": X0} and sizes is batch.sizes and inpainting is None


def test_a_mask_weights_each_element_and_the_mean_is_over_all():
    """Errors of 2 everywhere: squared 4, times masks whose means are 0.5 and 0.1."""
    process, answer = Epsilon(SCHEDULE), torch.full((2, 3, 1, 2), 3.0)
    base = SimpleNamespace(process=process, predict=lambda *given: answer)
    mask = torch.tensor([[1.0, 0.0], [0.2, 0.0]]).view(2, 1, 1, 2)
    batch = Batch(answer - 1, answer - 2, torch.tensor([0, 1]), torch.zeros(2, 6), {}, [], mask=mask)
    plain = Settings(min_snr_gamma=0).loss
    assert losses(base, batch, {}, plain).tolist() == pytest.approx([2.0, 0.4])
    assert losses(base, batch._replace(mask=torch.ones_like(mask)), {}, plain).tolist() == [4.0, 4.0]


def test_a_mask_moves_with_its_batch():
    """As every tensor that a CUDA graph reads."""
    mask, shown = torch.rand(2, 1, 1, 1), torch.rand(2, 2, 1, 1)
    batch = Batch(X0, NOISE, torch.tensor([0, 1]), torch.zeros(2, 6), {"hidden": X0}, [], mask=mask, inpainting=shown)
    doubled = batch.replaced({name: tensor * 2 for name, tensor in batch.tensors().items()})
    assert torch.equal(doubled.mask, mask * 2) and torch.equal(doubled.inpainting, shown * 2)
    assert batch._replace(mask=None).to(torch.device("cpu")).mask is None
    assert not {"mask", "inpainting"} & batch._replace(mask=None, inpainting=None).tensors().keys()
