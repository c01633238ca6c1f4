"""What counts as alike: re-encoded and resized copies; not merely the same kind of picture."""

import io
import time

import pytest
from PIL import Image, ImageDraw

from lora_studio.dataset.near_duplicates import groups, likeness
from tests.dataset import made


def again(picture: Image.Image, side: int, quality: int) -> Image.Image:
    out = io.BytesIO()
    picture.resize((side, side), Image.Resampling.LANCZOS).save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


def ink(x: int, y: int, colour: str = "black") -> Image.Image:
    picture = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(picture).ellipse((x, y, x + 40, y + 30), fill=colour)
    return picture


@pytest.mark.parametrize(("side", "quality"), [(96, 60), (64, 85), (150, 40), (300, 90)])
def test_a_smaller_or_rougher_copy_is_alike(side, quality):
    """JPEG noise on flat paper must not count: hence only clear rises do."""
    for picture in (made.painted(96, 96), ink(20, 30)):
        assert groups([likeness(picture), likeness(again(picture, side, quality))]) == [[0, 1]]


def test_other_pictures_are_not():
    looks = [likeness(made.painted(96, 96, seed)) for seed in range(40)] + [
        likeness(ink(x, y)) for x, y in ((5, 5), (45, 5), (5, 55), (45, 55))
    ]
    assert groups(looks) == []


def test_the_same_shape_in_another_colour_is_not_alike():
    assert groups([likeness(ink(20, 30, "black")), likeness(ink(20, 30, "orange"))]) == []
    assert groups([likeness(Image.new("RGB", (9, 9), colour)) for colour in ("red", "green", "blue")]) == []


def test_groups_hold_every_member_once_in_order():
    a, b, c = ("00" * 16 + "808080"), ("ff" * 16 + "808080"), ("0f" * 16 + "808080")
    near_a = "01" + a[2:]
    assert groups([a, b, near_a, c, b, a]) == [[0, 2, 5], [1, 4]]
    assert groups([]) == [] and groups([a]) == []


def test_thousands_of_equal_looks_take_no_longer():
    """Frames of a film all look alike: the work must not grow with the number of pairs that match."""
    began = time.process_time()
    assert groups(["00" * 19] * 5000) == [list(range(5000))]
    assert time.process_time() - began < 5
