"""Masks are made of transparency, boxes, segmenters and masks that are there: white is learned."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lora_studio.curation import masks
from lora_studio.curation.masks import Extent, Finish
from lora_studio.dataset import pictures
from lora_studio.dataset.folder import scan
from lora_studio.dataset.preparation import Crop
from tests.dataset import made


def rows(mask):
    return np.asarray(mask).tolist()


def mask_of(*levels):
    return Image.fromarray(np.array(levels, np.uint8))


def read(data):
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode) == ("PNG", "L")
    return image


@pytest.mark.parametrize(
    ("where", "extent", "dark"),
    [
        ("bottom-right", "50x25%", [(0, 2), (0, 3)]),
        ("top-left", "50% x 25%", [(3, 0), (3, 1)]),
        ("top-right", "2x1", [(3, 2), (3, 3)]),
        ("bottom-left", "1 × 2", [(0, 0), (1, 0)]),
        ("bottom-left", "30x30%", [(0, 0), (0, 1), (1, 0), (1, 1)]),  # outwards to whole pixels
    ],
)
def test_a_corner_is_black_and_all_else_white(where, extent, dark):
    mask = masks.outside((4, 4), masks.corner((4, 4), where, Extent.parse(extent)))
    expected = [[255] * 4 for _ in range(4)]
    for up, x in dark:
        expected[3 - up][x] = 0
    assert rows(mask) == expected


def test_a_corner_in_pixels_is_no_larger_than_its_picture():
    assert masks.corner((4, 8), "top-left", Extent(400, 4, False)) == Crop(0, 0, 1, 0.5)


@pytest.mark.parametrize("text", ["", "20", "20x", "x8%", "20%x8", "-1x5", "0x5%", "120x8%", "axb", "20x8%%"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="a size is"):
        Extent.parse(text)


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_size_is_read_as_it_is_written(width, height):
    found = Extent.parse(f"{width:.4f}x{height:.4f}%")
    assert found.shares and found[:2] == pytest.approx((width / 100, height / 100), abs=1e-6)


def test_masks_are_inverted_and_combined_by_their_product():
    one, other = mask_of([255, 128, 0, 255]), mask_of([128, 128, 255, 255])
    assert rows(masks.inverted(one)) == [[0, 127, 255, 0]]
    assert rows(masks.combined(one, other)) == [[128, 64, 0, 255]]


def test_a_feathered_edge_is_soft_where_it_is_learned_and_stays_black_beyond():
    mask = Image.new("L", (40, 40), 0)
    mask.paste(255, (0, 0, 20, 40))
    row = rows(masks.feathered(mask, 0.2))[20]
    assert row[20:] == [0] * 20 and row[:8] == [255] * 8
    assert row == sorted(row, reverse=True) and 5 <= sum(0 < level < 255 for level in row) <= 12
    grey = Image.new("L", (40, 40), 100)
    assert rows(masks.feathered(grey, 0.2)) == rows(grey)


@pytest.mark.parametrize(
    ("finish", "before", "expected"),
    [
        (Finish(), None, [255, 128, 0]),
        (Finish(invert=True), None, [0, 127, 255]),
        (Finish(), [255, 0, 255], [255, 0, 0]),
        (Finish(replace=True), [255, 0, 255], [255, 128, 0]),
        (Finish(invert=True), [255, 0, 255], [0, 0, 255]),
    ],
)
def test_a_mask_is_finished_and_hides_what_was_hidden_before(finish, before, expected):
    found = masks.finished(mask_of([255, 128, 0]), before and mask_of(before), finish)
    assert rows(found) == [expected]
    assert masks.finished(None, before and mask_of(before), finish) is None


class Left:
    """Finds its subject in the left half."""

    def mask(self, picture):
        found = Image.new("L", picture.size, 0)
        found.paste(255, (0, 0, picture.width // 2, picture.height))
        return found


@pytest.mark.parametrize(("keep", "level"), [("subject", (255, 0)), ("background", (0, 255))])
def test_a_segmenter_says_what_is_the_subject(tmp_path, keep, level):
    made.style_folder(tmp_path, 2)
    found = dict(masks.make(scan(tmp_path), masks.segmented(Left(), keep)))
    assert list(found) == ["0.png", "1.png"]
    mask = read(found["0.png"])
    assert mask.size == (64, 64) and (mask.getpixel((0, 0)), mask.getpixel((63, 63))) == level


def test_masks_of_transparency_are_of_pictures_that_have_some(tmp_path):
    made.style_folder(tmp_path, 1)
    picture = made.painted(seed=5, mode="RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((64, 64)))
    picture.save(tmp_path / "clear.png")
    made.painted(seed=6, mode="RGBA").save(tmp_path / "opaque.png")
    [(name, data)] = masks.make(scan(tmp_path), masks.opacity)
    assert name == "clear.png" and rows(read(data)) == rows(picture.getchannel("A"))


@pytest.mark.parametrize("kind", ["RGBA turned", "LA", "P", "key"])
def test_the_alpha_channel_of_any_kind_is_read_upright(tmp_path, kind):
    picture, options = Image.new("RGBA", (40, 20), (9, 9, 9, 255)), {}
    picture.paste((200, 200, 200, 0), (0, 0, 20, 20))
    if kind == "RGBA turned":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    elif kind == "key":
        picture, options = picture.convert("RGB"), {"transparency": (200, 200, 200)}
    elif kind == "P":
        picture, options = picture.convert("RGB").quantize(), {}
        options["transparency"] = picture.getpixel((0, 0))
    else:
        picture = picture.convert("LA")
    picture.save(tmp_path / "a.png", **options)
    found = pictures.opacity(tmp_path / "a.png")
    turned = kind == "RGBA turned"
    assert found.size == ((20, 40) if turned else (40, 20))
    assert found.getpixel((0, 0)) == 0 and found.getpixel((19, 39) if turned else (39, 19)) == 255


def test_only_masks_that_change_something_are_made(tmp_path):
    """A box within what is hidden already, and a mask that hides nothing, change nothing."""
    made.style_folder(tmp_path, 3)
    Image.new("L", (64, 64), 0).save(tmp_path / "0-masklabel.png")
    Image.new("L", (128, 128), 255).save(tmp_path / "1_mask.png")  # of another size
    dataset = scan(tmp_path)
    box = masks.without(Crop(0.5, 0.5, 1, 1))
    found = {name: read(data) for name, data in masks.make(dataset, box)}
    assert list(found) == ["1.png", "2.png"]
    assert all(masks.learned(mask) == 0.75 and mask.size == (64, 64) for mask in found.values())
    assert list(masks.make(dataset, masks.of)) == []
    assert [name for name, _ in masks.make(dataset, masks.of, Finish(invert=True, replace=True))] == ["0.png", "1.png"]
