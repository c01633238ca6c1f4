"""Buckets: sides in steps, areas within the resolution, no enlarging beyond the limit, crops from the middle."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.dataset.buckets import MAX_ASPECT, assign, crop_box, fit, problems
from lora_studio.dataset.items import Bucket, Dataset, Picture
from tests.dataset import made


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


def test_fit_crops_scales_and_mirrors():
    wide = made.corners(64, 32)
    fitted = fit(wide, Bucket(16, 16))
    assert (
        fitted.size == (16, 16) and fitted.getpixel((2, 2)) == (255, 0, 0) and fitted.getpixel((13, 2)) == (0, 255, 0)
    )
    assert np.array_equal(np.asarray(fit(wide, Bucket(16, 16), flip=True)), np.asarray(fitted)[:, ::-1])
    assert fit(wide, Bucket(64, 32)).tobytes() == wide.tobytes()


@pytest.mark.fault(14)
def test_tiny_and_very_long_pictures_are_warned_of_with_their_crop():
    pictures = [
        picture(600, 600, "fine.png"),
        picture(50, 50, "tiny.png"),
        picture(90, 80, "small.png"),
        picture(6000, 600, "long.png"),
    ]
    found = problems(Dataset(Path("/style"), pictures, []), 512, 64, 1.5)
    assert (
        found[0].what
        == "2 pictures are too small for 512 × 512 and are trained on at a smaller size: tiny.png, small.png."
    )
    assert found[0].files == ("tiny.png", "small.png") and found[1].file == "long.png"
    assert (
        found[1].what
        == "6000 × 600 is far from square: only its middle 40% is trained on (pixels 1800 to 4200 of its width)."
    )
    assert {problem.severity for problem in found} == {"warning"} and len(found) == 2
