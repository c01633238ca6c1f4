"""Gaussian diffusion: the formulas, on numbers small enough to check by hand, and against diffusers' schedulers."""

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.diffusion.gaussian import Epsilon, Velocity
from lora_studio.diffusion.samplers import DECLARED, SAMPLERS
from lora_studio.errors import SettingsError

PROCESSES = [Epsilon, Velocity]
REAL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
ZERO_SNR = REAL | {"rescale_betas_zero_snr": True}
PAIR = {"num_train_timesteps": 2, "trained_betas": [0.64, 1 - 0.04 / 0.36]}
"""ᾱ = 0.36 and 0.04: √ᾱ = 0.6 and 0.2, √(1−ᾱ) = 0.8 and √0.96."""
X0, NOISE = torch.full((2, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1), -1.0)
T = torch.tensor([0, 1])


def drawn(count=5):
    source = torch.Generator().manual_seed(0)
    return [torch.randn(count, 4, 3, 3, generator=source) for _ in range(2)]


def test_by_hand():
    noisy = Epsilon(PAIR).add_noise(X0, NOISE, T).flatten().tolist()
    assert noisy == pytest.approx([0.6 * 2 - 0.8, 0.2 * 2 - 0.96**0.5], abs=1e-6)
    assert Epsilon(PAIR).target(X0, NOISE, T).flatten().tolist() == [-1, -1]
    velocity = Velocity(PAIR).target(X0, NOISE, T).flatten().tolist()
    assert velocity == pytest.approx([-0.6 - 0.8 * 2, -0.2 - 0.96**0.5 * 2], abs=1e-6)


def test_min_snr_weights_by_hand():
    """SNR 0.5, 5 and 20 at γ = 5; the + 1 of the v form is what implementations forget."""
    snr = torch.tensor([0.5, 5.0, 20.0])
    assert torch.allclose(Epsilon(PAIR).min_snr(snr, 5), torch.tensor([1.0, 1.0, 0.25]))
    assert torch.allclose(Velocity(PAIR).min_snr(snr, 5), torch.tensor([0.5 / 1.5, 5 / 6, 5 / 21]))
    """SNR of ᾱ = 0.36 and 0.04 is 0.5625 and 0.041667."""
    assert Epsilon(PAIR).weight(T, 0.1).tolist() == pytest.approx([0.1 / 0.5625, 1.0])
    assert Velocity(PAIR).weight(T, 0.1).tolist() == pytest.approx([0.1 * 0.64, 0.04])


@pytest.mark.parametrize("schedule", [REAL, ZERO_SNR])
def test_noise_and_velocity_are_those_of_diffusers(schedule):
    theirs = diffusers.DDIMScheduler.from_config(schedule)
    x0, noise = drawn()
    timesteps = torch.tensor([0, 10, 500, 998, 999])
    assert torch.equal(Velocity(schedule).add_noise(x0, noise, timesteps), theirs.add_noise(x0, noise, timesteps))
    assert torch.equal(Velocity(schedule).target(x0, noise, timesteps), theirs.get_velocity(x0, noise, timesteps))


def test_zero_terminal_snr_is_that_of_diffusers():
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha_bar = Velocity(ZERO_SNR).alpha_bar(torch.arange(1000))
    assert torch.equal(alpha_bar, torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0))
    assert alpha_bar[-1].item() < 1e-12 < Velocity(REAL).alpha_bar(torch.tensor([999])).item()


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_perfect_answer_gives_the_clean_latents_back(kind):
    process, (x0, noise) = kind(REAL), drawn()
    timesteps = torch.tensor([0, 200, 400, 600, 800])
    noisy, answer = process.add_noise(x0, noise, timesteps), process.target(x0, noise, timesteps)
    assert torch.allclose(process.x0(answer, noisy, timesteps), x0, atol=1e-4)


@pytest.mark.parametrize("kind", PROCESSES)
@given(timestep=st.integers(1, 900), error=st.floats(-3, 3), gamma=st.floats(0.5, 20))
def test_every_kind_weighs_the_same_error_in_x0_alike(kind, timestep, error, gamma):
    """The weights exist to make the loss min(SNR, γ) · ‖x₀ error‖², whatever is predicted."""
    process, t = kind(REAL), torch.tensor([timestep])
    noisy, answer = torch.tensor([[[[0.3]]]]), torch.tensor([[[[0.7]]]])
    alpha_bar = process.alpha_bar(t)
    error_in_x0 = process.x0(answer + error, noisy, t) - process.x0(answer, noisy, t)
    expected = (alpha_bar / (1 - alpha_bar)).clamp(max=gamma) * error_in_x0**2
    assert (process.weight(t, gamma) * error**2).item() == pytest.approx(expected.item(), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("kind", PROCESSES)
def test_gamma_zero_switches_weighting_off(kind):
    assert kind(REAL).weight(torch.tensor([0, 999]), 0).tolist() == [1, 1]


@pytest.mark.parametrize(("kind", "expected"), [(Epsilon, 1.0), (Velocity, 0.0)])
def test_pure_noise_has_a_finite_weight(kind, expected):
    """A schedule that ends in pure noise has SNR 0 there: no division by it."""
    assert kind(PAIR).min_snr(torch.zeros(1), 5).item() == expected
    assert kind(ZERO_SNR).weight(torch.tensor([999]), 5).isfinite().all()


def test_draws_cover_all_timesteps_and_repeat():
    process = Epsilon(REAL)
    first = process.draw(20_000, torch.Generator().manual_seed(1))
    assert first.dtype == torch.int64 and (first.min(), first.max()) == (0, 999)
    assert torch.equal(first, torch.randint(1000, (20_000,), generator=torch.Generator().manual_seed(1)))
    assert process.evenly(4).tolist() == [125, 375, 625, 875]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("lcm", "tcd")])
@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_pure_noise_is_sampled_whatever_the_configuration_spaces(sampler, spacing):
    """SDXL's own configuration says leading, which would begin at 751 of 999."""
    made = Velocity(ZERO_SNR | {"timestep_spacing": spacing, "steps_offset": 1}).scheduler(sampler, 4, "cpu")
    assert made.timesteps.tolist() == [999, 749, 499, 249]


@pytest.mark.parametrize("sampler", [name for name, one in DECLARED.items() if not one.from_the_end])
def test_the_noise_of_pure_noise_is_not_divided_by_zero(sampler):
    scheduler = Epsilon(ZERO_SNR).scheduler(sampler, 4, "cpu")
    latents = Epsilon(ZERO_SNR).first(scheduler, drawn()[1])
    for t in scheduler.timesteps:
        latents = scheduler.step(Epsilon(ZERO_SNR).model_input(scheduler, latents, t), t, latents).prev_sample
    assert latents.abs().max() < 100 and scheduler.timesteps[0] < 999


@pytest.mark.parametrize("kind", PROCESSES)
def test_guidance_is_rescaled_for_velocity_that_ends_in_pure_noise(kind):
    assert (kind(REAL).zero_snr, kind(REAL).guidance_rescale, kind(ZERO_SNR).zero_snr) == (False, 0, True)
    assert kind(ZERO_SNR).guidance_rescale == (0.7 if kind is Velocity else 0)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", [REAL, ZERO_SNR])
def test_samplers_begin_in_pure_noise_where_the_schedule_ends_in_it(sampler, schedule):
    made = Velocity(schedule).scheduler(sampler, 4, "cpu")
    assert type(made).__name__ == SAMPLERS[sampler] and made.config.prediction_type == "v_prediction"
    assert len(made.timesteps) == 4
    assert (made.timesteps[0].item() == 999) == (schedule is ZERO_SNR or sampler not in ("ddim",))


@pytest.mark.parametrize("sampler", ["lcm", "tcd", "euler_trailing", "ddim_trailing"])
def test_few_steps_begin_at_the_last_timestep_whatever_the_configuration_spaces(sampler):
    """SD 1.5's own configuration says leading, at which a distilled model was never trained."""
    made = Epsilon(REAL | {"timestep_spacing": "leading", "steps_offset": 1}).scheduler(sampler, 4, "cpu")
    even = sampler.endswith("trailing")
    assert made.timesteps.tolist() == ([999, 749, 499, 249] if even else [999, 759, 499, 259])


def test_what_a_sampler_cannot_do_is_said():
    with pytest.raises(SettingsError, match="LCM takes at most 50 steps. .*6 are usual"):
        Epsilon(REAL).scheduler("lcm", 51, "cpu")
    with pytest.raises(SettingsError, match="TCD begins in pure noise"):
        Epsilon(ZERO_SNR).scheduler("tcd", 4, "cpu")


def parts(*levels):
    """The beginnings and the ends of parts of a process."""
    return torch.tensor(levels, dtype=torch.float64).T


def test_timesteps_are_moved_into_parts_of_the_process():
    """Of a part each timestep is as likely as the others; without one nothing changes."""
    process, every = Epsilon(REAL), torch.arange(1000)
    low, high = parts(*[(0.9, 1)] * 1000)
    assert torch.bincount(process.within(every, low, high)).tolist() == [0] * 900 + [10] * 100
    mixed = process.within(torch.tensor([0, 500, 999, 999]), *parts((0.25, 0.5), (0, 1), (0.25, 0.5), (0.9995, 1)))
    assert mixed.tolist() == [250, 500, 499, 999] and mixed.dtype == torch.int64
    assert torch.equal(process.within(every, *parts(*[(0, 1)] * 1000)), every)
