"""Masks on their way between a large picture and the browser's small canvas."""

import base64
import io

import pytest
from PIL import Image, ImageDraw

from lora_studio.ui.pages.pictures import drawn_masks


def sent(image, kind="PNG"):
    out = io.BytesIO()
    image.save(out, kind)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def test_a_drawn_mask_is_read_at_the_canvas_size_alone():
    """A tab with another picture overwrites this one's mask."""
    mask = Image.new("L", (4, 2), 255)
    assert drawn_masks.read(sent(mask), (4, 2)).tobytes() == mask.tobytes()
    assert drawn_masks.read(sent(mask), (2, 4)) is None


@pytest.mark.parametrize("data", [None, 7, "", "data:image/png;base64,?", "data:text/html;base64,eA==", "a" * 2**24])
def test_anything_else_is_no_mask(data):
    assert drawn_masks.read(data, (4, 2)) is None


def test_only_png_is_decoded():
    assert drawn_masks.read(sent(Image.new("L", (4, 2)), "BMP"), (4, 2)) is None


def test_what_was_not_painted_over_keeps_its_detail():
    """One stroke makes the fine mask of a large picture as coarse as the canvas."""
    size = 2048, 1024
    before = Image.new("L", size, 255)
    for x in range(0, 1024, 4):  # lines finer than a pixel of the canvas
        ImageDraw.Draw(before).line((x, 0, x, 1023), fill=0)
    drawn = before.resize(drawn_masks.canvas_size(*size), Image.Resampling.BOX)
    assert drawn_masks.merged(drawn, before, size).tobytes() == before.tobytes()
    ImageDraw.Draw(drawn).rectangle((700, 100, 800, 200), fill=0)
    after = drawn_masks.merged(drawn, before, size)
    left = (0, 0, 1024, 1024)
    assert after.crop(left).tobytes() == before.crop(left).tobytes()
    assert (after.getpixel((1500, 300)), after.getpixel((1900, 800))) == (0, 255)


def test_a_first_mask_has_the_size_of_the_picture():
    drawn = Image.new("L", (1024, 512), 0)
    assert drawn_masks.merged(drawn, None, (4096, 2048)).size == (4096, 2048)
