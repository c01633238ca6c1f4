"""The loss of one batch as numbers."""

from types import SimpleNamespace

import pytest
import torch

from lora_studio.config.settings import Settings
from lora_studio.config.slices import LossSettings
from lora_studio.diffusion.flow import RectifiedFlow
from lora_studio.diffusion.gaussian import Epsilon, Velocity
from lora_studio.training import weights
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


def test_each_elements_loss_is_weighted_and_the_mean_is_over_all():
    """Errors of 2 everywhere: squared 4, times weights whose means are 0.5 and 0.1."""
    process, answer = Epsilon(SCHEDULE), torch.full((2, 3, 1, 2), 3.0)
    base = SimpleNamespace(process=process, predict=lambda *given: answer)
    given = torch.tensor([[1.0, 0.0], [0.2, 0.0]]).view(2, 1, 1, 2)
    batch = Batch(answer - 1, answer - 2, torch.tensor([0, 1]), torch.zeros(2, 6), {}, [], weights=given)
    plain = Settings(min_snr_gamma=0).loss
    assert losses(base, batch, {}, plain).tolist() == pytest.approx([2.0, 0.4])
    assert losses(base, batch._replace(weights=torch.ones_like(given)), {}, plain).tolist() == [4.0, 4.0]
    of_pictures = torch.tensor([0.5, 2.0]).view(2, 1, 1, 1)
    assert losses(base, batch._replace(weights=of_pictures), {}, plain).tolist() == [2.0, 8.0]


def mask_of(*rows: list[float]) -> torch.Tensor:
    """Masks of one row each: (B, 1, 1, w)."""
    return torch.tensor(rows)[:, None, None]


@pytest.mark.parametrize(
    ("outside", "balance", "average", "expected"),
    [
        (0.0, "area", 1.0, [[1, 0, 0, 0.5]]),
        (0.2, "area", 1.0, [[1, 0.2, 0.2, 0.6]]),
        (0.0, "area", 0.5, [[2, 0, 0, 1]]),
        (1.0, "area", 1.0, [[1, 1, 1, 1]]),
        (0.0, "picture", 0.5, [[1 / 0.375, 0, 0, 0.5 / 0.375]]),
        (0.2, "picture", 0.5, [[2, 0.4, 0.4, 1.2]]),
    ],
)
def test_what_a_mask_makes_count(outside, balance, average, expected):
    """By area on average over all pictures, or each picture alone."""
    settings = LossSettings(mask_outside=outside, mask_balance=balance)
    found = weights.of_masks(mask_of([1.0, 0.0, 0.0, 0.5]), settings, average)
    assert found[:, 0, 0].tolist() == [pytest.approx(row) for row in expected]


@pytest.mark.parametrize("outside", [0.0, 0.1, 1 / 3])
@pytest.mark.parametrize("balance", ["area", "picture"])
def test_masks_of_ones_change_no_bit(outside, balance):
    masks = torch.ones(3, 1, 37, 41)
    assert torch.equal(weights.of_masks(masks, LossSettings(mask_outside=outside, mask_balance=balance), 1.0), masks)


def test_a_picture_of_which_little_is_learned_counts_less_and_a_black_one_nothing():
    """32 elements: one of them is half of ``LEAST_AREA``."""
    little, black = [1.0] + [0.0] * 31, [0.0] * 32
    found = weights.of_masks(mask_of(little, black), LossSettings(mask_balance="picture"), 1.0)
    assert found.mean(dim=(1, 2, 3)).tolist() == [0.5, 0.0] and found.max() == 1 / weights.LEAST_AREA
    assert weights.of_masks(mask_of(black), LossSettings(), 0.0).sum() == 0


def test_a_mask_moves_with_its_batch():
    """As every tensor that a CUDA graph reads."""
    mask, shown = torch.rand(2, 1, 1, 1), torch.rand(2, 2, 1, 1)
    batch = Batch(
        X0, NOISE, torch.tensor([0, 1]), torch.zeros(2, 6), {"hidden": X0}, [], weights=mask, inpainting=shown
    )
    doubled = batch.replaced({name: tensor * 2 for name, tensor in batch.tensors().items()})
    assert torch.equal(doubled.weights, mask * 2) and torch.equal(doubled.inpainting, shown * 2)
    assert batch._replace(weights=None).to(torch.device("cpu")).weights is None
    assert not {"weights", "inpainting"} & batch._replace(weights=None, inpainting=None).tensors().keys()
