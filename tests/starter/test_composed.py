"""Scenes as pictures: places, backgrounds and colours, on icons drawn here."""

import random

import pytest

torch = pytest.importorskip("torch")

from lora_studio.starter.make import colours, composed  # noqa: E402
from lora_studio.starter.make.scenes import COLOURS, MEASURED, IconScene  # noqa: E402


def icon(*rgb):
    """A square of one colour in the middle of a transparent picture, with a black edge: (1, 4, 160, 160) uint8."""
    out = torch.zeros(1, 4, 160, 160, dtype=torch.uint8)
    out[:, 3, 20:140, 20:140] = 255
    out[:, :3, 28:132, 28:132] = torch.tensor(rgb, dtype=torch.uint8).view(1, 3, 1, 1)
    return out


def painted(scene):
    """The picture of a scene of red squares, (3, 128, 128) in 0..1."""
    rgba = icon(220, 40, 40)
    main, _ = colours.main_colour(rgba)
    return composed.compose(rgba, main, [scene], random.Random(0))[0] / 2 + 0.5


@pytest.mark.parametrize("rgb", [(220, 40, 40), (40, 90, 220), (235, 235, 240)])
def test_the_main_colour_is_that_of_most_of_an_icon(rgb):
    """Grey where grey prevails; the black edge does not count."""
    main, share = colours.main_colour(icon(*rgb))
    assert torch.allclose(main[0] * 255, torch.tensor(rgb, dtype=torch.float32), atol=12) and share[0] > 0.6


@pytest.mark.parametrize("word", COLOURS)
@pytest.mark.parametrize("rgb", [(220, 40, 40), (250, 215, 60), (235, 235, 240)])
def test_an_icon_takes_any_colour_and_keeps_its_edge(word, rgb):
    rgba = icon(*rgb)
    main, _ = colours.main_colour(rgba)
    goal = torch.tensor([COLOURS[word]]) / 255
    out = colours.painted(rgba, main, goal)
    assert torch.allclose(out[0, :3, 80, 80] / 255, goal[0], atol=0.06)
    assert out[0, :3, 22, 80].max() < 20 and torch.equal(out[:, 3], rgba[:, 3])


@pytest.mark.parametrize("word", MEASURED)
def test_the_colour_of_a_picture_is_read_again(word):
    scene = IconScene((0,), ((0.9, 0.0, 0.0, 0.0),), ("square",), "flat", colours=(word,))
    x = painted(scene)[None] * 2 - 1
    assert MEASURED[int(colours.colour_word(x))] == word


def test_icons_stand_at_their_spots():
    x = painted(IconScene((0, 0), ((0.4, -0.5, 0.0, 0.0), (0.4, 0.5, 0.0, 0.0)), ("square",), "flat"))
    red = (x[0] > 0.7) & (x[1] < 0.4)
    assert red[64, 32] and red[64, 96] and not red[64, 64] and not red[10, 32]
    assert x[:, :8].min() > 0.99, "white paper"


def test_a_ground_begins_at_the_horizon():
    scene = IconScene((0,), ((0.3, 0.0, -0.5, 0.0),), ("square",), "flat", ground="grass", horizon=0.5)
    sky, grass = painted(scene)[:, 60, 5], painted(scene)[:, 120, 5]
    assert sky[2] > sky[1] > sky[0] and grass[1] > grass[0] and grass[1] > grass[2]


def test_a_gradient_runs_from_the_first_colour_to_the_second():
    x = painted(IconScene((0,), ((0.2, 0.0, 0.0, 0.0),), ("square",), "flat", paper=("red", "navy")))
    assert x[0, 1, 1] > x[2, 1, 1] and x[2, -2, -2] > x[0, -2, -2]
