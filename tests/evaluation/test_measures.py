"""Style, subject, copies and drift on features and latents that are made up, so that the right answer is known."""

from types import SimpleNamespace

import pytest
import torch

from lora_studio import models
from lora_studio.errors import MachineError
from lora_studio.evaluation import perception, subject
from lora_studio.evaluation.copying import LIKENESS, CopyScale
from lora_studio.evaluation.drift import drift
from lora_studio.evaluation.style import RESAMPLED, StyleScale, resamplings

# its folder's conftest makes a tiny model
from tests.training.conftest import tiny_base  # noqa: F401

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
    assert found.low < found.value <= found.high <= 100


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


def test_the_level_is_that_of_the_prompts_and_not_of_the_captions():
    """The same training pictures: the less alike the base model draws a prompt from seed to seed, the lower it is."""
    meant = random(P, 1, D, seed=7)
    training = (meant + random(P, 1, D, seed=8))[:, 0]
    captioned, vague = (meant + spread * random(P, 2, D, seed=9) for spread in (0.2, 1.0))
    own = subject.value(subject.kept(training[:, None], captioned))
    assert subject.consistency(captioned) > 0.9 and 0.4 < subject.consistency(vague) < 0.6
    assert subject.level(training, captioned, captioned) == pytest.approx(own)
    share = subject.consistency(vague) / subject.consistency(captioned)
    assert subject.level(training, captioned, vague) == pytest.approx([share * bound for bound in own])


def test_each_seed_is_compared_with_each_other_one():
    same, other = random(P, 1, D, seed=1), random(P, 1, D, seed=2)
    alike = subject.consistency(torch.cat([same, same], 1))
    assert alike == pytest.approx(1, abs=1e-5)
    assert subject.consistency(torch.cat([same, same, other], 1)) == pytest.approx(1 / 3, abs=0.1)


def test_no_more_than_the_whole_style_is_learned(scale):
    assert scale.percent(scale.base + wanted()).high <= 100
    assert scale.percent(scale.base + wanted()).value <= 100
    assert scale.resampled(scale.base + wanted()).max() <= 100


def test_a_style_that_chance_could_make_has_a_scale_too():
    """Three training pictures, and a difference below their scatter."""
    training, captioned = random(3, D, seed=1), random(3, 2, D, seed=2)
    scale = StyleScale(training, captioned, random(P, S, D, seed=3), range(3))
    assert scale.whole > 0 and scale.percent(scale.base).value == pytest.approx(0, abs=60)


def drawing(seed, side=96):
    """White paper with five black strokes somewhere in the middle: drawings are alike by their layout alone."""
    source, picture = torch.Generator().manual_seed(seed), torch.ones(3, side, side)
    for _ in range(5):
        top, left = (int(torch.randint(side // 6, side - side // 4, (1,), generator=source)) for _ in range(2))
        height, width = (int(torch.randint(2, side // 5, (1,), generator=source)) for _ in range(2))
        picture[:, top : top + height, left : left + width] = -1
    return picture


def test_a_copy_is_found_shifted_mirrored_and_in_another_size():
    scale = CopyScale([drawing(number) for number in range(5)])
    shifted = drawing(2).roll((6, -10), (1, 2)).flip(-1) + 0.1 * random(3, 96, 96, seed=10)
    larger = torch.nn.functional.interpolate(drawing(4)[None], scale_factor=2)[0]
    found = scale.nearest([shifted, larger, drawing(11)])
    assert [one.index for one in found[:2]] == [2, 4]
    assert found[0].likeness > 0.9 and found[1].likeness == pytest.approx(1, abs=1e-5)
    assert found[2].likeness < 0.5


def test_what_is_coarse_is_no_likeness():
    """The same white paper and grey middle around other details."""
    grey = torch.ones(3, 96, 96)
    grey[:, 24:72, 24:72] = -0.5
    one, other = (
        grey + 0.3 * torch.nn.functional.interpolate(random(1, 3, 48, 48, seed=seed), 96)[0] for seed in (1, 2)
    )
    assert CopyScale([one]).nearest([other])[0].likeness < 0.5


def test_only_the_square_in_the_middle_of_a_picture_counts():
    wide = torch.cat([random(3, 96, 24), drawing(1), random(3, 96, 24, seed=1)], 2)
    assert CopyScale([drawing(1)]).nearest([wide])[0].likeness == pytest.approx(1, abs=1e-5)


def test_the_limit_is_what_pictures_reach_that_are_no_copies():
    few, many = (CopyScale([drawing(number) for number in range(count)]) for count in (4, 24))
    assert few.limit([0.1] * 8) == many.limit([0.1] * 48) == LIKENESS
    assert few.limit([0.9] * 8) == pytest.approx(0.9)
    assert few.limit([0.2] * 47 + [0.99]) == LIKENESS  # the base model knew one of the pictures
    twice = CopyScale([drawing(number // 2) for number in range(24)])
    assert twice.limit([0.1] * 48) == pytest.approx(1, abs=1e-5)
    assert CopyScale([drawing(0)] * 4).limit([0.1] * 8) == LIKENESS  # four pictures say nothing about an artist


def test_drift_is_measured_in_seeds_of_the_base_model():
    base = random(P, S, D)
    assert drift(base, base).value == 0
    assert drift(base.roll(1, 1), base).value == pytest.approx(1)


@pytest.mark.parametrize(("side", "together"), [(16, 16), (64, 8), (128, 2), (256, 1)])
def test_as_many_pictures_are_looked_at_together_as_are_drawn(side, together):
    base = SimpleNamespace(scale=8)
    assert perception.at_once(base, torch.empty(4, side, side)) == together


def test_fewer_are_looked_at_where_memory_is_short(monkeypatch):
    """In order, sizes apart; a single one that does not fit is an error in plain words."""
    batches = []

    def seen(_base, x0, _text):
        if len(x0) > most:
            raise torch.OutOfMemoryError
        batches.append(tuple(x0[:, 0, 0, 0].int().tolist()))
        return perception.Seen(x0[:, 0, :1, 0], x0[:, 0, :1, 0])

    monkeypatch.setattr(perception, "_seen", seen)
    base = SimpleNamespace(scale=8, encode_text=lambda _texts: {})
    latents = [torch.full((4, 16, 16), float(number)) for number in range(5)] + [torch.full((4, 16, 8), 5.0)]
    most = 2
    assert perception.look(base, latents).style[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert batches == [(0, 1), (2, 3), (4,), (5,)]
    most = 0
    with pytest.raises(MachineError, match="not enough memory to measure"):
        perception.look(base, latents)


def test_style_and_subject_are_seen_in_one_forward_pass(tiny_base):  # noqa: F811
    """The features are of the blocks that the family names."""
    base = models.load(str(tiny_base), "cpu", torch.float32)
    calls = []
    base.unet.register_forward_hook(lambda *_: calls.append(1))
    seen = perception.look(base, [random(4, 16, 16, seed=number) for number in range(3)])
    widths = base.unet.config.block_out_channels
    assert calls == [1]
    assert seen.style.shape == (3, 2 * (widths[0] + widths[1] + widths[-1]))
    assert seen.subject.shape == (3, 4 * widths[-2])
