"""The sheet to show others has every prompt without the style and with it."""

import numpy as np
import pytest
from PIL import Image

from lora_studio.sampling import share_sheet
from lora_studio.sampling.share_sheet import SheetPair

RED, BLUE = (255, 0, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int], width: int = 40, height: int = 30) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def amount(page: Image.Image, colour: tuple[int, int, int]) -> float:
    """Of a picture's area."""
    return float((np.asarray(page) == colour).all(-1).sum()) / 320**2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 9])
def test_every_prompt_is_there_without_the_style_and_with_it(count):
    page = share_sheet.draw([SheetPair("cat", plain(RED), plain(BLUE))] * count, "ink", ["Trigger word: inkstyle"])
    shown = min(count, share_sheet.MOST)
    assert abs(amount(page, RED) - shown) < 0.1 * shown and abs(amount(page, BLUE) - shown) < 0.1 * shown
    column = np.asarray(page)[:, 100]
    assert (column == RED).all(-1).argmax() < (column == BLUE).all(-1).argmax()


def test_pictures_without_those_of_the_base_model_stand_alone():
    with_base = share_sheet.draw([SheetPair("cat", plain(RED), plain(BLUE))], "ink", [])
    page = share_sheet.draw([SheetPair("cat", None, plain(BLUE))], "ink", [])
    assert page.height < with_base.height - 300 and amount(page, BLUE) > 0.9


def test_long_names_and_prompts_stay_on_the_sheet():
    words = "a very long name without an end " * 9
    page = share_sheet.draw([SheetPair(words, plain(RED), plain(BLUE))] * 2, words, [words])
    paper = np.asarray(page)[:, -20:]
    assert len(np.unique(paper.reshape(-1, 3), axis=0)) == 1, "nothing is written at the edge"
