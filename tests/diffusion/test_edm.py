"""Velocity in continuous time: the formulas by hand, and against diffusers' EDM schedulers."""

import diffusers
import pytest
import torch

from lora_studio.diffusion.edm import ContinuousVelocity

EDM = ContinuousVelocity({"sigma_min": 0.002, "sigma_max": 120.0})
T = torch.tensor([0.0, 0.25]) * torch.tensor(3.0).log()
"""¼ ln σ of σ = 1 and 3."""
X0, NOISE = torch.full((2, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1), -1.0)


def drawn(count=3):
    source = torch.Generator().manual_seed(0)
    return [torch.randn(count, 4, 3, 3, generator=source) for _ in range(2)]


def test_by_hand():
    """(x₀ + σ ε) / √(1 + σ²) and (ε − σ x₀) / √(1 + σ²)."""
    noisy, velocity = EDM.add_noise(X0, NOISE, T), EDM.target(X0, NOISE, T)
    assert noisy.flatten().tolist() == pytest.approx([1 / 2**0.5, -1 / 10**0.5], abs=1e-6)
    assert velocity.flatten().tolist() == pytest.approx([-3 / 2**0.5, -7 / 10**0.5], abs=1e-6)
    assert EDM.x0(velocity, noisy, T).flatten().tolist() == pytest.approx([2, 2], abs=1e-5)
    assert EDM.alpha_bar(T).tolist() == pytest.approx([1 / 2, 1 / 10])
    assert EDM.weight(T, 5.0).tolist() == pytest.approx([1 / 2, 1 / 10], abs=1e-6), "SNR / (SNR + 1) of 1 and 1/9"


def test_its_denoised_latents_are_those_of_diffusers():
    """c_skip x + c_out F of the sampler's x = √(1 + σ²) x_t."""
    theirs = diffusers.EDMEulerScheduler.from_config(EDM.configuration("EDMEulerScheduler"))
    (x, answer), sigma = drawn(), 7.0
    when = 0.25 * torch.tensor([sigma]).log()
    assert torch.allclose(theirs.precondition_noise(torch.tensor([sigma])), when)
    ours = EDM.x0(answer, theirs.precondition_inputs(x, torch.tensor(sigma)), when)
    assert torch.allclose(ours, theirs.precondition_outputs(x, answer, torch.tensor(sigma)), atol=1e-5)


def test_draws_are_a_cosine_schedules_between_the_ends():
    """u = 2 / π atan σ is uniform; its middle is σ = 1."""
    sigmas = (4 * EDM.draw(50_000, torch.Generator().manual_seed(0))).exp()
    assert sigmas.dtype == torch.float32 and 0.002 <= sigmas.min() and sigmas.max() <= 120.01
    quarters = sigmas.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    assert quarters == pytest.approx([0.41421, 1.0, 2.41421], rel=0.03), "tan of π/8, π/4 and 3π/8"
    assert (4 * EDM.evenly(1)).exp().item() == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("sampler", ContinuousVelocity.samplers)
def test_samplers_arrive_at_the_data(sampler):
    """With the true velocity as the answer, from pure noise on."""
    x0, noise = drawn(1)[0][:1], drawn(1)[1][:1]
    scheduler = EDM.scheduler(sampler, 12, "cpu")
    latents = EDM.first(scheduler, noise)
    assert latents.std() > 100 and scheduler.timesteps[0].item() == pytest.approx(0.25 * 4.787492, abs=1e-4)
    for t in scheduler.timesteps:
        given = EDM.model_input(scheduler, latents, t)
        alpha_bar = EDM.alpha_bar(t)
        true = (given - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()
        answer = alpha_bar.sqrt() * true - (1 - alpha_bar).sqrt() * x0
        latents = scheduler.step(answer, t, latents, return_dict=False)[0]
    assert torch.allclose(latents, x0, atol=1e-3)


def test_what_others_read():
    assert (EDM.name, EDM.written, EDM.zero_snr, EDM.guidance_rescale) == ("edm", "v", False, 0)


def test_timesteps_are_moved_into_parts_of_the_process():
    """The upper half of its cosine schedule begins near σ = 1; half of that at σ = tan 3π/8."""
    drawn = EDM.draw(1000, torch.Generator().manual_seed(0))
    low, high = torch.full((1000,), 0.5, dtype=torch.float64), torch.ones(1000, dtype=torch.float64)
    assert torch.equal(EDM.within(drawn, low - 0.5, high), drawn)
    moved = EDM.within(drawn, low, high)
    sigmas = (4 * moved).exp()
    assert moved.dtype == torch.float32 and sigmas.min() >= 0.993 and sigmas.max() <= 120.1
    assert sigmas.median().item() == pytest.approx(2.41421, rel=0.1)
    assert torch.equal(moved.argsort(), drawn.argsort())
