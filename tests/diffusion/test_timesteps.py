"""Which timesteps are drawn: by range and by bias, for every noise process."""

import math
from statistics import NormalDist

import pytest
import torch

from lora_studio.config.settings import Settings
from lora_studio.config.slices import NoiseSettings
from lora_studio.diffusion import timesteps
from lora_studio.diffusion.edm import ContinuousVelocity
from lora_studio.diffusion.flow import RectifiedFlow
from lora_studio.diffusion.gaussian import Epsilon, Velocity
from lora_studio.diffusion.timesteps import NoiseRange
from lora_studio.errors import SettingsError
from tests.diffusion.test_gaussian import REAL, ZERO_SNR

PROCESSES = [Epsilon(REAL), Velocity(ZERO_SNR), RectifiedFlow({"shift": 3.0}), ContinuousVelocity({})]
STYLE_FRIENDLY = {"timestep_bias": "lognormal"}
"""At the default mean and width, those of Choi et al. 2024."""


def drawn(process, count=20_000, within=None, **settings):
    source = torch.Generator().manual_seed(3)
    part = within and NoiseRange(*(torch.full((count,), end, dtype=torch.float64) for end in within))
    return timesteps.draw(process, NoiseSettings(**settings), count, source, part)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
def test_by_default_they_are_the_processs_own_to_the_bit(process):
    assert torch.equal(drawn(process), process.draw(20_000, torch.Generator().manual_seed(3)))


def test_the_first_ones_of_a_seed_are_those_that_they_always_were():
    assert drawn(Epsilon(REAL), 6).tolist() == [986, 48, 737, 667, 360, 280]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
@pytest.mark.parametrize(("bias", "above"), [("noise", 0.75), ("detail", 0.25)])
def test_a_bias_puts_three_quarters_on_one_side_of_the_middle(process, bias, above):
    found, middle = drawn(process, timestep_bias=bias), drawn(process).median()
    assert (found > middle).float().mean().item() == pytest.approx(above, abs=0.015)
    assert found.dtype == process.draw(1, torch.Generator()).dtype


def test_a_bias_keeps_to_the_range():
    """The quarters of density 2u are at √¼, √½ and √¾."""
    found = drawn(Epsilon(REAL), timestep_bias="noise", within=(0.2, 0.7)).double()
    assert (found.min().item(), found.max().item()) == (pytest.approx(205, abs=6), 699)
    quarters = found.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    assert quarters == pytest.approx([200 + 500 * share**0.5 for share in (0.25, 0.5, 0.75)], abs=6)


def test_a_flows_log_snr_is_normal_as_in_the_paper():
    """s = 1 / (1 + exp(λ / 2)), λ of mean −6 and width 2: the median is 0.9526, 79 % are above 0.9."""
    found = drawn(RectifiedFlow({"shift": 3.0}), **STYLE_FRIENDLY) / 1000
    assert found.dtype == torch.float32 and found.median().item() == pytest.approx(0.9526, abs=2e-3)
    assert (found > 0.9).float().mean().item() == pytest.approx(NormalDist().cdf((-4.394 + 6) / 2), abs=0.01)
    log_snr = RectifiedFlow({}).log_snr(1000 * found)
    assert (log_snr.mean().item(), log_snr.std().item()) == (pytest.approx(-6, abs=0.05), pytest.approx(2, abs=0.05))


def test_an_edms_log_snr_is_minus_twice_the_logarithm_of_sigma():
    found = drawn(ContinuousVelocity({}), timestep_bias="lognormal", timestep_mean=-2, timestep_width=1)
    logarithms = 4 * found
    assert (logarithms.mean().item(), logarithms.std().item()) == pytest.approx((1, 0.5), abs=0.02)


def test_stable_diffusions_noise_ends_before_the_style_friendly_mean():
    """Its least log SNR is −5.36: the normal distribution is cut off there, and the last timestep gets no heap."""
    process = Epsilon(REAL)
    found = drawn(process, **STYLE_FRIENDLY)
    log_snr = process.log_snr(found)
    cut = NormalDist(-6, 2)
    median = cut.inv_cdf((cut.cdf(process.log_snr(torch.tensor([999])).item()) + 1) / 2)
    assert found.dtype == torch.int64 and log_snr.median().item() == pytest.approx(median, abs=0.03)
    assert (
        (found == 999).float().mean() < 0.004
        and found.max() == 999
        and found.median().item() == pytest.approx(898, abs=5)
    )


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
def test_log_normal_draws_keep_to_the_range(process):
    """Also where nearly all of the distribution is beyond it, on either side."""
    first, last = (
        process.within(end.expand(1), *(torch.tensor([share], dtype=torch.float64) for share in (0.3, 0.4)))
        for end in process.ends()
    )
    for mean in (-12, 0, 12):
        settings = {"timestep_bias": "lognormal", "timestep_mean": mean, "timestep_width": 0.5}
        found = drawn(process, 300, within=(0.3, 0.4), **settings)
        assert found.min() >= first - 1e-4 and found.max() <= last + 1e-4
        assert len(found.unique()) > 5


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
def test_log_snr_and_timesteps_give_each_other_back(process):
    some = process.evenly(7)
    assert torch.allclose(process.at_log_snr(process.log_snr(some)).double(), some.double(), rtol=1e-4)


def test_a_normal_distribution_is_cut_where_it_has_no_digits_left():
    def cut(low, high, share):
        return timesteps._cut_normal(*(torch.tensor([one], dtype=torch.float64) for one in (low, high, share))).item()

    assert cut(-math.inf, math.inf, 0.975) == pytest.approx(1.959964)
    assert cut(-1, 1, 0.5) == pytest.approx(0, abs=1e-9) and cut(0, 1, 0.5) == pytest.approx(0.442, abs=1e-3)
    assert cut(10, 11, 0.5) == pytest.approx(10.068, abs=1e-3) and cut(-11, -10, 0.5) == -cut(10, 11, 0.5)
    assert (cut(-60, -50, 0.3), cut(50, 60, 0.3)) == (-50, 50)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"timestep_bias": "noise"},
        {"timestep_bias": "detail"},
        STYLE_FRIENDLY,
        {**STYLE_FRIENDLY, "timestep_mean": 12, "timestep_width": 0.5},
    ],
)
@pytest.mark.parametrize("part", [(0, 1), (0.2, 0.7)])
def test_the_density_of_the_plot_is_that_of_the_draws(settings, part):
    counts = torch.bincount(drawn(Epsilon(REAL), 50_000, part, **settings) // 10, minlength=timesteps.POINTS) / 500
    told = timesteps.density(NoiseSettings(**settings), *part)
    assert sum(told) == pytest.approx(timesteps.POINTS)
    assert (torch.tensor(told) - counts).abs().mean() < 0.08


def test_a_range_that_is_empty_is_refused():
    with pytest.raises(SettingsError, match="timestep_from must be below timestep_to"):
        Settings().changed(timestep_from=0.5, timestep_to=0.5)
