"""Copies: functions of (seed, picture), as far from the picture as asked, with the colours that a matrix gives."""

from pathlib import Path

import pytest
import torch

from lora_studio.config.slices import AugmentationSettings
from lora_studio.dataset.augmentation import copies
from lora_studio.dataset.fitted import recoloured
from lora_studio.dataset.items import PLAIN, Alteration, Picture

ALL = AugmentationSettings(
    augment_copies=8,
    augment_rotation=10,
    augment_crop=0.2,
    augment_hue=90,
    augment_saturation=0.5,
    augment_brightness=0.25,
)


def photo(content: str) -> Picture:
    return Picture(Path("a.png"), "", 1, 64, 64, content)


def test_no_copies_unless_something_is_altered():
    assert copies(photo("one"), AugmentationSettings(augment_copies=8, flip=True), 0) == [PLAIN]


def test_copies_depend_on_seed_and_content_alone():
    found = copies(photo("one"), ALL, 3)
    assert found == copies(photo("one"), ALL, 3) and found[0] == PLAIN and len(set(found)) == 8
    assert found[1] == Alteration(
        rotation=-6.003485,
        cut=0.105915,
        across=-0.418921,
        down=-0.705206,
        hue=76.831408,
        saturation=1.003117,
        brightness=1.215524,
    )
    assert copies(photo("two"), ALL, 3)[1:] != found[1:] != copies(photo("one"), ALL, 4)[1:]


def test_copies_stay_within_their_limits_and_reach_them():
    made = [one for index in range(100) for one in copies(photo(str(index)), ALL, 0)[1:]]
    for name, middle, limit in [
        ("rotation", 0, 10),
        ("across", 0, 1),
        ("down", 0, 1),
        ("hue", 0, 90),
        ("saturation", 1, 0.5),
        ("brightness", 1, 0.25),
    ]:
        away = [getattr(one, name) - middle for one in made]
        assert -limit <= min(away) < -0.95 * limit and 0.95 * limit < max(away) <= limit, name
        assert abs(sum(away)) / len(away) < 0.1 * limit, name
    assert 0 <= min(one.cut for one in made) < 0.01 and 0.19 < max(one.cut for one in made) <= 0.2


def test_one_setting_alters_one_thing():
    [_, turned, *_] = copies(photo("one"), AugmentationSettings(augment_rotation=10), 3)
    assert turned == Alteration(rotation=turned.rotation) and turned.rotation


RED, GREY = (1.0, 0.0, 0.0), (0.4, 0.4, 0.4)


@pytest.mark.parametrize(
    ("colour", "altered", "expected"),
    [
        (RED, Alteration(saturation=0), (0.213, 0.213, 0.213)),
        (RED, Alteration(saturation=0.5), (0.6065, 0.1065, 0.1065)),
        (RED, Alteration(hue=180), (0, 0.426, 0.426)),
        (RED, Alteration(hue=90), (0, 0.356, 0)),
        (RED, Alteration(hue=-90), (0.426, 0.07, 1)),
        (RED, Alteration(brightness=0.5), (0.5, 0, 0)),
        (GREY, Alteration(hue=70, saturation=1.5), GREY),
        (GREY, Alteration(brightness=1.25), (0.5, 0.5, 0.5)),
        (GREY, Alteration(brightness=3), (1, 1, 1)),
    ],
)
def test_colours_are_what_filter_effects_say(colour, altered, expected):
    pixels = torch.tensor(colour).view(3, 1, 1).expand(3, 2, 2) * 2 - 1
    found = recoloured(pixels, altered)
    assert ((found[:, 1, 1] + 1) / 2).tolist() == pytest.approx(expected, abs=1e-6)


def test_what_keeps_its_colours_is_not_touched():
    pixels = torch.rand(3, 4, 4)
    assert recoloured(pixels, Alteration(flip=True, rotation=10)) is pixels
