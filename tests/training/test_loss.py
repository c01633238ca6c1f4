"""The loss of one batch as numbers."""

import math
from types import SimpleNamespace

import pytest
import torch

from lora_studio.config.settings import Settings
from lora_studio.config.slices import LossSettings
from lora_studio.diffusion.edm import ContinuousVelocity
from lora_studio.diffusion.flow import RectifiedFlow
from lora_studio.diffusion.gaussian import Epsilon, Velocity
from lora_studio.diffusion.weighting import weight as weigh
from lora_studio.training import weights
from lora_studio.training.batches import Batch
from lora_studio.training.loss import losses
from tests.diffusion.test_gaussian import ZERO_SNR

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


def errors(*of: float) -> torch.Tensor:
    """The answer of a model that predicts ε = 1 with these errors."""
    return torch.tensor([1 + error for error in of]).view(2, 1, 1, 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"loss": "l1"}, [0.5, 2.0]),
        ({"loss": "mixed"}, [0.375, 3.0]),
        ({"loss": "mixed", "absolute_share": 0.25}, [0.75 * 0.25 + 0.25 * 0.5, 3.5]),
        ({"loss": "mixed", "absolute_share": 0}, [0.25, 4.0]),
        ({"loss": "logcosh", "huber_delta": 1}, [2 * math.log(math.cosh(0.5)), 2 * math.log(math.cosh(2))]),
        ({"loss": "logcosh", "huber_delta": 0.5}, [0.5 * math.log(math.cosh(1)), 0.5 * math.log(math.cosh(4))]),
        ({"loss": "huber", "huber_delta": 0.1, "huber_schedule": "snr"}, [0.25, 0.76]),
        ({"loss": "huber", "huber_delta": 0.25, "huber_schedule": "exponential"}, [0.25, 1.75]),
    ],
)
def test_losses_by_hand(settings, expected):
    """Errors of −0.5 and 2 at SNR 4 and ¼. δ of 0.1 by SNR is 0.9 / 1.5² + 0.1 = 0.5 and 0.9 / 3² + 0.1 = 0.2; δ of ¼
    falls exponentially to 1 and √¼ at the first and the second of two timesteps.
    """
    assert loss_of(Epsilon(SCHEDULE), errors(-0.5, 2.0), **settings) == pytest.approx(expected, abs=1e-6)


def test_small_errors_count_as_squared_ones_and_large_ones_are_finite():
    for loss in ("huber", "logcosh"):
        for schedule in ("constant", "snr", "exponential"):
            settings = {"loss": loss, "huber_schedule": schedule}
            near = loss_of(Epsilon(SCHEDULE), errors(5e-3, -1e-2), **settings)
            assert near == pytest.approx([2.5e-5, 1e-4], rel=1e-2), settings
            assert all(map(math.isfinite, loss_of(Epsilon(SCHEDULE), errors(1e4, -1e4), **settings)))


def test_a_constant_schedule_is_hubers_loss_to_the_bit():
    answer = torch.randn(2, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    expected = 2 * torch.nn.functional.huber_loss(answer, NOISE, reduction="none", delta=0.3).flatten()
    assert loss_of(Epsilon(SCHEDULE), answer, loss="huber", huber_delta=0.3) == expected.tolist()


@pytest.mark.parametrize(
    ("weighting", "of_epsilon", "of_v", "of_flow"),
    [
        ({"weighting": "min-snr", "min_snr_gamma": 1}, [1 / 4, 1], [1 / 5, 0.25 / 1.25], [1, 1]),
        ({"weighting": "min-snr", "min_snr_gamma": 0}, [1, 1], [1, 1], [1, 1]),
        ({"weighting": "debiased"}, [1 / 2, 2], [2 / 5, 0.5 / 1.25], [2 / 9, 0.5 * 4 / 9]),
        ({"weighting": "p2"}, [1 / 5, 1 / 1.25], [4 / 25, 0.25 / 1.25**2], [4 / 5 / 9, 0.2 * 4 / 9]),
        ({"weighting": "p2", "p2_k": 5, "p2_gamma": 0.5}, [1 / 3, 5.25**-0.5], [4 / 15, 0.2 / 5.25**0.5], None),
        ({"weighting": "p2", "p2_gamma": 0}, [1, 1], [4 / 5, 0.2], [4 / 9, 1 / 9]),
        ({"weighting": "x0"}, [1 / 4, 4], [1 / 5, 1 / 1.25], [1 / 9, 4 / 9]),
    ],
)
def test_weights_by_hand(weighting, of_epsilon, of_v, of_flow):
    """SNR 4 and ¼, for flows at s = ⅓ and ⅔. An error in x₀ is one in ε times √SNR, in v times √(SNR + 1), in a flow's
    direction by 1 / s.
    """
    settings = Settings(**weighting).loss
    for process, expected in ((Epsilon(SCHEDULE), of_epsilon), (Velocity(SCHEDULE), of_v)):
        found = weigh(process, torch.tensor([0, 1]), settings)
        assert ([1, 1] if found is None else found.tolist()) == pytest.approx(expected, rel=1e-5)
    if of_flow:
        found = weigh(RectifiedFlow({}), torch.tensor([1000 / 3, 2000 / 3]), settings)
        assert ([1, 1] if found is None else found.tolist()) == pytest.approx(of_flow, rel=1e-5)


@pytest.mark.parametrize("process", [Epsilon(ZERO_SNR), Velocity(ZERO_SNR), RectifiedFlow({}), ContinuousVelocity({})])
@pytest.mark.parametrize("weighting", ["debiased", "p2", "x0"])
def test_weights_are_finite_at_both_ends(process, weighting):
    """Debiased ones stop growing at SNR 1,000, as sd-scripts limits them."""
    found = weigh(process, torch.stack(process.ends()), Settings(weighting=weighting).loss)
    assert found.isfinite().all() and (found >= 0).all() and found.dtype == torch.float32
    if weighting == "debiased" and process.name == "epsilon":
        assert found.tolist() == pytest.approx([1000**-0.5, 1000**0.5])


def test_x0_weights_make_the_loss_that_of_the_clean_picture():
    process, t = Epsilon(SCHEDULE), torch.tensor([0, 1])
    noisy, answer = process.add_noise(X0, NOISE, t), errors(0.3, -0.7)
    expected = ((process.x0(answer, noisy, t) - X0) ** 2).flatten().tolist()
    assert loss_of(process, answer, weighting="x0") == pytest.approx(expected, rel=1e-4)


def test_settings_from_before_there_were_other_weights_mean_what_they_meant():
    assert Settings(min_snr_gamma=3).loss.weighting == "min-snr"
    assert loss_of(Epsilon(SCHEDULE), torch.full_like(X0, 3.0), min_snr_gamma=3) == pytest.approx([3.0, 4.0])


def test_the_model_sees_the_noisy_latents_and_its_timesteps():
    seen = []
    base = SimpleNamespace(process=Epsilon(SCHEDULE), predict=lambda *given: seen.append(given) or torch.zeros_like(X0))
    batch = Batch(X0, NOISE, torch.tensor([0, 1]), torch.zeros(2, 6), {}, [])
    losses(base, batch, {"hidden": X0}, Settings().loss)
    noisy, timesteps, text, sizes, inpainting = seen[0]
    assert noisy.flatten().tolist() == pytest.approx([2 * 0.8**0.5 + 0.2**0.5, 2 * 0.2**0.5 + 0.8**0.5])
    assert timesteps.tolist() == [0, 1] and text == {"hidden": X0} and sizes is batch.sizes and inpainting is None


@pytest.mark.parametrize("kind", [Epsilon, Velocity])
def test_the_input_alone_is_perturbed(kind):
    """It has ε + γ ξ, here 1 + 0.5, while the target keeps ε = 1 (Ning et al. 2023, algorithm 1)."""
    seen = []
    process, t = kind(SCHEDULE), torch.tensor([0, 1])
    target = process.target(X0, NOISE, t)
    base = SimpleNamespace(process=process, predict=lambda *given: seen.append(given[0]) or target)
    batch = Batch(X0, NOISE, t, torch.zeros(2, 6), {}, [], perturbation=torch.full_like(NOISE, 0.5))
    assert losses(base, batch, {}, Settings().loss).tolist() == [0, 0]
    assert seen[0].flatten().tolist() == pytest.approx([2 * 0.8**0.5 + 1.5 * 0.2**0.5, 2 * 0.2**0.5 + 1.5 * 0.8**0.5])


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
    )._replace(perturbation=shown)
    doubled = batch.replaced({name: tensor * 2 for name, tensor in batch.tensors().items()})
    assert torch.equal(doubled.weights, mask * 2) and torch.equal(doubled.inpainting, shown * 2)
    assert torch.equal(doubled.perturbation, shown * 2)
    assert batch._replace(weights=None).to(torch.device("cpu")).weights is None
    assert not {"weights", "inpainting"} & batch._replace(weights=None, inpainting=None).tensors().keys()


@pytest.mark.parametrize("process", [Epsilon(ZERO_SNR), RectifiedFlow({}), ContinuousVelocity({})])
def test_delta_falls_from_one_to_its_value_in_every_process(process):
    """At the ends an error of 10 counts 2 δ · 10 − δ²."""
    ends = torch.stack(process.ends())
    target = process.target(X0, NOISE, ends)
    for schedule in ("snr", "exponential"):
        settings = {"loss": "huber", "huber_delta": 0.25, "huber_schedule": schedule}
        found = loss_of(process, target + 10, timesteps=ends.tolist(), **settings)
        assert found == pytest.approx([19.0, 4.9375], rel=0.06), schedule
