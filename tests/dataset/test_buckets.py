"""Buckets: sides in steps, areas within the resolution, no enlarging beyond the limit, crops from the middle."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lora_studio.dataset.buckets import MAX_ASPECT, assign, coarse, crop_box, problems, snapped
from lora_studio.dataset.items import Bucket, Dataset, Picture
from lora_studio.dataset.preparation import Crop


def picture(width: int, height: int, name: str = "a.png") -> Picture:
    return Picture(Path("/style") / name, "", 1, width, height, "0" * 64)


def bucket(width: int, height: int, resolution: int = 512, step: int = 64, max_upscale: float = 1.5) -> Bucket:
    return assign([picture(width, height)], resolution, step, max_upscale)[0]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), (512, 512)),
        ((4000, 4000), (512, 512)),
        ((1024, 1008), (512, 512)),
        ((1500, 1000), (576, 384)),
        ((1000, 1500), (384, 576)),
        ((1920, 1080), (640, 384)),
        ((900, 1200), (448, 576)),
        ((10_000, 1000), (1024, 256)),
        ((1000, 100_000), (256, 1024)),
    ],
)
def test_large_pictures_go_to_the_nearest_shape(size, expected):
    assert bucket(*size) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((350, 350), (512, 512)),
        ((341, 341), (448, 448)),
        ((200, 200), (256, 256)),
        ((100, 100), (128, 128)),
        ((64, 64), (64, 64)),
        ((300, 200), (384, 256)),
        ((90, 60), (128, 64)),
    ],
)
def test_small_pictures_go_to_a_smaller_bucket(size, expected):
    """At most 1.5 times enlarged, so that training does not learn blur."""
    assert bucket(*size) == expected


def test_a_picture_below_one_step_gets_the_smallest_bucket():
    assert bucket(20, 30) == (64, 64) and bucket(500, 10) == (64, 64)


def test_a_resolution_between_or_below_steps_works():
    assert bucket(2000, 2000, resolution=500) == (448, 448)
    assert bucket(2000, 2000, resolution=32) == (64, 64)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1500, 1000), (1216, 832)),
        ((1600, 900), (1344, 768)),
        ((1000, 1000), (1024, 1024)),
        ((900, 1200), (896, 1152)),
    ],
)
def test_sdxls_own_sizes_come_out_at_its_resolution(size, expected):
    assert bucket(*size, resolution=1024) == expected


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.sampled_from([128, 512, 768, 1024]),
    st.sampled_from([8, 32, 64]),
    st.sampled_from([1.0, 1.5, 2.0]),
)
def test_every_bucket_keeps_its_promises(width, height, resolution, step, max_upscale):
    chosen = bucket(width, height, resolution, step, max_upscale)
    assert chosen.width % step == chosen.height % step == 0 and chosen.width * chosen.height <= resolution**2
    assert max(chosen) <= MAX_ASPECT * min(chosen)
    assert chosen == (step, step) or max(chosen.width / width, chosen.height / height) <= max_upscale
    left, top, right, bottom = crop_box(width, height, chosen)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert left == 0 or top == 0
    assert (right - left) / (bottom - top) == pytest.approx(chosen.width / chosen.height)


def test_a_mirrored_shape_gets_the_mirrored_bucket():
    for width, height in ((700, 1100), (321, 999), (513, 511)):
        assert bucket(width, height) == bucket(height, width)[::-1]


def test_the_crop_is_the_middle():
    assert crop_box(400, 100, Bucket(128, 64)) == (100.0, 0.0, 300.0, 100.0)
    assert crop_box(100, 300, Bucket(64, 64)) == (0.0, 100.0, 100.0, 200.0)


def cropped_bucket(width: int, height: int, crop: Crop) -> Bucket:
    return assign([replace(picture(width, height), crop=crop)], 512, 64, 1.5)[0]


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ((1000, 1000), Crop(0, 0, 1, 1), (512, 512)),
        ((1000, 1000), Crop(0, 0.25, 1, 0.75), (640, 320)),
        ((3000, 1000), Crop(0, 0, 1 / 3, 1), (512, 512)),
        ((1000, 1000), Crop(0.9, 0.9, 1, 1), (128, 128)),  # its pixels count for how much it is enlarged
        ((4000, 4000), Crop(0.9, 0.9, 1, 1), (512, 512)),
    ],
)
def test_a_crops_shape_and_pixels_choose_the_bucket(size, crop, expected):
    assert cropped_bucket(*size, crop) == expected


def test_the_part_trained_on_is_the_middle_of_the_crop():
    assert crop_box(400, 100, Bucket(64, 64), Crop(0, 0, 0.5, 1)) == (50, 0, 150, 100)
    assert crop_box(400, 100, Bucket(64, 64), Crop(0.75, 0, 1, 1)) == (300, 0, 400, 100)
    assert crop_box(100, 400, Bucket(64, 64), Crop(0, 0.5, 1, 1)) == (0, 250, 100, 350)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([Bucket(64, 64), Bucket(512, 128), Bucket(64, 192)]))
def test_a_crop_of_all_is_trained_on_as_no_crop(width, height, chosen):
    box = crop_box(width, height, chosen, Crop(0, 0, 1, 1))
    assert box == pytest.approx(crop_box(width, height, chosen), abs=1e-6 * max(width, height))


share = st.floats(0, 1)


@given(
    st.tuples(share, share, share, share),
    st.tuples(st.integers(8, 6000), st.integers(8, 6000)),
    st.sampled_from([(512, 64), (1024, 64), (768, 32), (500, 8), (64, 64)]),
    st.sampled_from([1.0, 1.1, 1.5, 3.0]),
)
def test_a_crop_snaps_into_itself_to_its_buckets_shape_and_stays(sides, size, sizes, max_upscale):
    left, right = sorted(sides[::2])
    top, bottom = sorted(sides[1::2])
    crop = Crop(left, top, right, bottom)
    assume(crop.valid and crop.covers(*size))
    snap = snapped(crop, size, *sizes, max_upscale)
    assert left <= snap.left < snap.right <= right and top <= snap.top < snap.bottom <= bottom
    assert snap.left == left or snap.top == top
    first, second = assign([replace(picture(*size), crop=one) for one in (crop, snap)], *sizes, max_upscale)
    assert first == second and snapped(snap, size, *sizes, max_upscale) == snap
    width, height = (snap.right - snap.left) * size[0], (snap.bottom - snap.top) * size[1]
    assert width / height == pytest.approx(first.width / first.height, rel=1e-6)
    assert first == sizes[1:] * 2 or max(first.width / width, first.height / height) <= max_upscale * (1 + 1e-6)


@pytest.mark.fault(14)
def test_tiny_and_very_long_pictures_are_warned_of_with_their_crop():
    pictures = [
        picture(600, 600, "fine.png"),
        picture(50, 50, "tiny.png"),
        picture(90, 80, "small.png"),
        picture(6000, 600, "long.png"),
        picture(500, 4000, "tall.png"),
        replace(picture(6000, 600, "own.png"), crop=Crop(0, 0, 0.1, 1)),
    ]
    found = problems(Dataset(Path("/style"), pictures, []), 512, 64, 1.5)
    assert (
        found[0].what
        == "2 pictures are too small for 512 × 512 and are trained on at a smaller size: tiny.png, small.png."
    )
    assert found[0].files == ("tiny.png", "small.png") and found[1].files == ("long.png", "tall.png")
    assert [problem.kind for problem in found] == ["small", "cropped"]
    assert (
        found[1].what == "2 pictures are cropped by more than 30%: long.png (6000 × 600, middle 40% used), "
        "tall.png (500 × 4000, middle 50% used)."
    )
    assert {problem.severity for problem in found} == {"warning"} and len(found) == 2


def test_a_step_that_leaves_no_shape_but_the_square_is_said():
    """Pictures train at four times their pixels, or lose half of them, without a word."""
    assert coarse(512, 64) == coarse(512, 360) == coarse(64, 8) == ""
    assert coarse(256, 512).endswith("a square of 512 × 512 pixels, which trains 4.0 times as long.")
    assert coarse(512, 384).endswith("every picture is cropped to a square of 384 × 384 pixels.")
    for size, step in ((512, 360), (512, 384)):
        found = assign([picture(1000, 500), picture(500, 1000)], size, step, 8.0)
        assert (len(set(found)) == 1) == bool(coarse(size, step))
