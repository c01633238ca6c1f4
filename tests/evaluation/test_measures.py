"""Style, subject, copies and drift on features and latents that are made up, so that the right answer is known."""

import pytest
import torch

from lora_studio.evaluation import copying, subject
from lora_studio.evaluation.drift import drift
from lora_studio.evaluation.style import RESAMPLED, StyleScale, resamplings

P, S, D = 12, 2, 40


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def scale():
    """Forty training pictures whose style is two units in the first half of the channels."""
    content = random(40, 1, D, seed=1)
    return StyleScale(
        content[:, 0] + wanted() + 0.1 * random(40, D, seed=2), content, random(P, S, D, seed=3), range(40)
    )


def wanted():
    return torch.cat([torch.full((D // 2,), 2.0), torch.zeros(D // 2)])


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_style_is_the_share_of_the_change_whatever_the_pictures_show(scale, share):
    drawn = scale.base + share * wanted() + 0.1 * random(P, S, D, seed=4)
    found = scale.percent(drawn)
    assert found.value == pytest.approx(100 * share, abs=3)
    assert found.low < found.value < found.high


def test_style_of_the_base_model_is_nothing_and_the_wrong_way_is_less(scale):
    assert scale.percent(scale.base).value == pytest.approx(0, abs=1e-4)
    assert scale.percent(scale.base - wanted()).value == pytest.approx(-100, abs=5)


def test_chance_does_not_count_as_distance(scale):
    """Means of two dozen pictures differ even where the style is complete."""
    noisy = scale.base + wanted() + 1.5 * random(P, S, D, seed=5)
    assert scale.percent(noisy).value > 85


def test_sets_are_resampled_alike_so_that_small_differences_show(scale):
    noise = random(P, S, D, seed=6)
    less, more = (scale.resampled(scale.base + share * wanted() + noise) for share in (0.5, 0.56))
    assert less.shape == (RESAMPLED,)
    assert torch.quantile(more - less, 0.025) > 0 and torch.quantile(more, 0.025) < torch.quantile(less, 0.975)


def test_resamplings_keep_prompts_together():
    prompts, seeds = resamplings(P, S)
    assert prompts.shape == seeds.shape == (RESAMPLED, P, S)
    assert (prompts[..., 0] == prompts[..., 1]).all() and seeds.max() == S - 1


def test_subjects_are_told_in_another_style_and_wrong_ones_are_not():
    meant = random(P, 1, D, seed=7)
    references = meant + 0.3 * random(P, 2, D, seed=8)
    drawn = meant + 5 + 0.3 * random(P, S, D, seed=9)
    right, wrong = (subject.value(subject.kept(of, references)) for of in (drawn, drawn.roll(5, 0)))
    assert right.value > 0.8 and right.low > wrong.high and abs(wrong.value) < 0.2


def test_a_copy_is_found_shifted_and_mirrored():
    training = [random(4, 16, 16, seed=number) for number in range(5)]
    shifted = training[2].roll((3, -5), (1, 2)).flip(-1) + 0.05 * random(4, 16, 16, seed=10)
    found = copying.nearest([shifted, random(4, 16, 16, seed=11)], training)
    assert (found[0].index, round(found[0].likeness, 2)) == (2, 1.0)
    assert found[1].likeness < 0.5
    assert max(copying.among_themselves(training)) < 0.5
    assert copying.among_themselves([*training, training[0] * 3])[0] == pytest.approx(1, abs=1e-4)


def test_pictures_of_other_shapes_are_compared_too():
    assert copying.nearest([random(4, 16, 16)], [random(4, 32, 8, seed=1)])[0].likeness < 0.6


def test_drift_is_measured_in_seeds_of_the_base_model():
    base = random(P, S, D)
    assert drift(base, base).value == 0
    assert drift(base.roll(1, 1), base).value == pytest.approx(1)
