"""Rectified flow: the formulas by hand, and against diffusers' flow-matching scheduler."""

import diffusers
import pytest
import torch

from lora_studio.diffusion.flow import RectifiedFlow

FLOW = RectifiedFlow({"num_train_timesteps": 1000, "shift": 3.0})
T = torch.tensor([250.0, 1000.0])
X0, NOISE = torch.full((2, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1), -1.0)


def test_by_hand():
    """A quarter of the way, and at its end."""
    assert FLOW.add_noise(X0, NOISE, T).flatten().tolist() == [0.75 * 2 - 0.25, -1]
    assert FLOW.target(X0, NOISE, T).flatten().tolist() == [-3, -3]
    assert FLOW.x0(torch.full_like(X0, -3.0), FLOW.add_noise(X0, NOISE, T), T).flatten().tolist() == [2, 2]
    assert FLOW.weight(T, 5.0).tolist() == [1, 1]


def test_noise_is_that_of_diffusers():
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    source = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(3, 4, 3, 3, generator=source), torch.randn(3, 4, 3, 3, generator=source)
    timesteps = theirs.timesteps[[10, 500, 999]]
    assert torch.allclose(FLOW.add_noise(x0, noise, timesteps), theirs.scale_noise(x0, timesteps, noise), atol=1e-6)


def test_the_shift_is_that_of_diffusers():
    """Its 1,000 timesteps are even ones, shifted towards the noise: 3 · ½ / (1 + 2 · ½) = ¾."""
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    even = torch.arange(1000, 0, -1) / 1000
    assert torch.allclose(FLOW._shifted(even), theirs.timesteps, rtol=1e-5)
    assert FLOW.evenly(1).tolist() == [750.0]


@pytest.mark.parametrize("logit_normal", [True, False])
def test_draws_are_logit_normal_or_uniform_before_the_shift(logit_normal):
    process = RectifiedFlow({}, logit_normal)
    drawn = process.draw(50_000, torch.Generator().manual_seed(0)) / 1000
    assert drawn.dtype == torch.float32 and 0 < drawn.min() and drawn.max() < 1
    quarters = drawn.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    low = torch.tensor(-0.67449).sigmoid().item() if logit_normal else 0.25
    assert quarters == pytest.approx([low, 0.5, 1 - low], abs=0.01)
    again = RectifiedFlow({"shift": 3.0}, logit_normal).draw(50_000, torch.Generator().manual_seed(0)) / 1000
    assert torch.allclose(again, 3 * drawn / (1 + 2 * drawn), atol=1e-6)


@pytest.mark.parametrize("sampler", RectifiedFlow.samplers)
def test_samplers_follow_a_straight_line_to_its_data(sampler):
    """With the true direction as the answer, every sampler arrives at x₀, in any number of steps. DPM-Solver++ counts
    from s = 0.9997, where its logarithms are finite.
    """
    source = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(1, 4, 3, 3, generator=source), torch.randn(1, 4, 3, 3, generator=source)
    scheduler = FLOW.scheduler(sampler, 4, "cpu")
    latents = FLOW.first(scheduler, noise)
    assert torch.equal(latents, noise) and len(scheduler.timesteps) == 4
    for t in scheduler.timesteps:
        assert torch.equal(FLOW.model_input(scheduler, latents, t), latents)
        latents = scheduler.step(noise - x0, t, latents, return_dict=False)[0]
    assert torch.allclose(latents, x0, atol=2e-3)


def test_euler_takes_the_steps_of_diffusers():
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(5)
    assert torch.equal(FLOW.scheduler("euler", 5, "cpu").sigmas, theirs.sigmas)


def test_timesteps_are_moved_into_parts_of_the_process():
    drawn = FLOW.draw(1000, torch.Generator().manual_seed(0))
    whole, part = torch.zeros(1000, dtype=torch.float64), torch.full((1000,), 0.75, dtype=torch.float64)
    assert torch.equal(FLOW.within(drawn, whole, whole + 1), drawn)
    moved = FLOW.within(drawn, part, whole + 1)
    assert moved.dtype == torch.float32 and torch.allclose(moved, 750 + drawn / 4)
