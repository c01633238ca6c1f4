"""What is seen of a picture: scaled, cropped, mirrored and turned, never anything from beside it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lora_studio.dataset.framing import fit, fit_mask, region
from lora_studio.dataset.items import PLAIN, Alteration, Bucket
from lora_studio.dataset.preparation import Crop
from tests.dataset import made

MIRRORED = Alteration(flip=True)


def test_fit_crops_scales_and_mirrors():
    wide = made.corners(64, 32)
    fitted = fit(wide, Bucket(16, 16))
    assert (
        fitted.size == (16, 16) and fitted.getpixel((2, 2)) == (255, 0, 0) and fitted.getpixel((13, 2)) == (0, 255, 0)
    )
    assert np.array_equal(np.asarray(fit(wide, Bucket(16, 16), MIRRORED)), np.asarray(fitted)[:, ::-1])
    assert fit(wide, Bucket(64, 32)).tobytes() == wide.tobytes()


def test_fit_and_the_mask_take_the_crop():
    corners = made.corners(64, 32)  # red, green; blue, white
    crop = Crop(0.5, 0, 1, 1)
    fitted = fit(corners, Bucket(16, 16), crop=crop)
    assert fitted.getpixel((8, 3)) == (0, 255, 0) and fitted.getpixel((8, 12)) == (255, 255, 255)
    assert np.array_equal(np.asarray(fit(corners, Bucket(16, 16), MIRRORED, crop)), np.asarray(fitted)[:, ::-1])
    blue = corners.getchannel("R").resize((128, 64), Image.Resampling.NEAREST)  # of another size: shares hold for both
    assert np.asarray(fit_mask(blue, Bucket(16, 16), (2, 2), crop=crop)).tolist() == [[0, 0], [255, 255]]


@pytest.mark.parametrize(
    ("altered", "expected"),
    [
        (PLAIN, (50, 0, 150, 100)),
        (Alteration(cut=0.2), (60, 10, 140, 90)),
        (Alteration(cut=0.2, across=-1, down=1), (50, 20, 130, 100)),
        (Alteration(cut=0.5, across=0.5), (87.5, 25, 137.5, 75)),
        # a square in a square, turned by 45°: its diagonal is as long as the side
        (Alteration(rotation=45), (100 - 50 / 2**0.5, 50 - 50 / 2**0.5, 100 + 50 / 2**0.5, 50 + 50 / 2**0.5)),
        # its left edge is turned to the lower left, by half of a quarter of a diagonal on each axis
        (Alteration(rotation=45, cut=0.5, across=-1), (75 - 25 / 2**0.5 + 12.5, 37.5 - 25 / 2**0.5, None, None)),
    ],
)
def test_what_is_seen_of_a_copy(altered, expected):
    """Of a picture of 200 × 100, of which the plain one shows the middle."""
    found = region((200, 100), Bucket(64, 64), altered)
    assert [a for a, b in zip(found, expected, strict=True) if b is not None] == pytest.approx(
        [b for b in expected if b is not None]
    )


@given(
    st.tuples(st.integers(20, 300), st.integers(20, 300)),
    st.sampled_from([Bucket(64, 64), Bucket(96, 64), Bucket(64, 128)]),
    st.floats(-45, 45),
    st.floats(0, 0.5),
    st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_a_turned_copy_shows_nothing_from_beside_the_picture(size, bucket, degrees, cut, place):
    altered = Alteration(rotation=degrees, cut=cut, across=place[0], down=place[1])
    seen = np.asarray(fit(Image.new("L", size, 200), bucket, altered))
    assert seen.shape == bucket[::-1] and seen.min() == seen.max() == 200


def test_content_is_turned_counter_clockwise_and_the_mask_with_it():
    """A black picture whose right half is white: turned by 45° the white is at the upper right."""
    image = Image.new("L", (128, 128))
    image.paste(255, (64, 0, 128, 128))
    altered = Alteration(rotation=45)
    seen = np.asarray(fit(image, Bucket(64, 64), altered))
    corners = seen[4, 4], seen[4, -5], seen[-5, 4], seen[-5, -5]
    assert corners[1:3] == (255, 0) and 90 < corners[0] < 165 and 90 < corners[3] < 165
    mask = np.asarray(fit_mask(image, Bucket(64, 64), (8, 8), altered), dtype=float)
    means = seen.reshape(8, 8, 8, 8).mean((1, 3))
    assert np.abs(mask - means).max() < 4 and (mask[0, 7], mask[7, 0]) == (255, 0)


def test_a_turned_copy_stays_within_an_artists_crop():
    image = Image.new("L", (100, 100), 0)
    image.paste(255, (20, 20, 80, 80))
    seen = np.asarray(fit(image, Bucket(64, 64), Alteration(rotation=20), Crop(0.25, 0.25, 0.75, 0.75)))
    assert seen.min() == 255


def test_turning_keeps_the_finest_lines():
    """Lines two pixels apart, turned there and back by 30°: more than half of their contrast is left."""
    lines = np.tile(np.array([90, 90, 160, 160], np.uint8), (256, 64))
    there = fit(Image.fromarray(lines), Bucket(256, 256), Alteration(rotation=30))
    assert np.asarray(there)[64:192, 64:192].std() > 0.5 * lines.std()
