"""Contact sheets: every picture stands where its labels say, whatever the labels are."""

import numpy as np
from PIL import Image

from lora_studio.sampling import fonts
from lora_studio.sampling import sheet as sheets

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def plain(colour, size=(64, 48)) -> Image.Image:
    return Image.new("RGB", size, colour)


def places(page: Image.Image, colour) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what has ``colour``."""
    rows, columns = np.nonzero((np.asarray(page) == colour).all(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_pictures_stand_in_a_grid_uncut():
    page = sheets.sheet(
        [[plain(RED), plain(GREEN)], [plain(BLUE)]], columns=["one", "two"], names=["first", "second"], title="Title"
    )
    red, green, blue = (places(page, colour) for colour in (RED, GREEN, BLUE))
    for place in (red, green, blue):
        assert (place[2] - place[0], place[3] - place[1]) == (64, 48)
    assert red[1] == green[1] < blue[1] and red[0] == blue[0] < green[0]


def test_no_labels_need_no_room():
    page = sheets.sheet([[plain(RED)]])
    assert page.size == (64 + 2 * sheets.GAP, 48 + 2 * sheets.GAP)


def test_long_labels_stay_beside_their_picture():
    """A prompt of a hundred words must not run over the neighbour's column or the pictures."""
    words = "word " * 100
    page = sheets.sheet([[plain(RED), plain(GREEN)]], columns=[words, ""], names=[words], title=words)
    for colour in (RED, GREEN):
        place = places(page, colour)
        assert (np.asarray(page.crop(place)) == colour).all()
    right, top = places(page, GREEN)[0], places(page, RED)[1]
    line = page.crop((right, top - 20, page.width, top))
    assert len(line.getcolors()) == 1, "above the second picture, whose label is empty, nothing is written"
    assert fonts.cut("a b c", 20, 1) == "…"


def test_before_and_after_stand_above_each_other_and_wrap():
    before, after = [plain(RED)] * 8, [plain(BLUE)] * 8
    page = sheets.before_after([f"prompt {n}" for n in range(8)], before, after, "Style")
    assert places(page, RED)[1] < places(page, BLUE)[1]
    single = sheets.sheet([before[:6], after[:6]], columns=["x"] * 6, names=["before", "after"])
    assert page.width == single.width and page.height > 1.5 * single.height
