"""The Draw page in a real browser, with the real process that draws: the starter on the CPU, two steps a picture."""

import re

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

from lora_studio import runs
from lora_studio.runs import gallery
from lora_studio.sampling import picture_file
from tests.ui.played import PATIENCE

OF_A1111 = (
    "a dog <lora:gone:0.7>\nNegative prompt: text\nSteps: 3, Sampler: Restart, CFG scale: 1, Seed: 77, Size: 96x128"
)


@pytest.fixture
def outputs(studio):
    """The studio's outputs, without pictures before and after."""
    yield studio.outputs
    for one in gallery.listed(studio.outputs):
        one.path.unlink()
    gallery.forget(studio.outputs)


def room(page):
    page.get_by_role("tab", name="Draw").click()
    expect(page.locator("#draw-go")).to_be_visible()
    return page


def few_steps(page) -> None:
    page.locator("#draw-more > button").click()
    page.locator("#draw-steps input").fill("2")
    page.locator("#draw-guidance input").fill("1")


def test_pictures_are_drawn_kept_and_used_again(visit, outputs):
    """The whole way of a picture: drawn, found after a reload, starred, compared, deleted, taken back, drawn again."""
    page = room(visit())
    expect(page.locator("#stage")).to_contain_text("Draw something")
    expect(page.locator("#draw-go")).to_be_in_viewport(ratio=1)
    page.locator("#draw-prompt textarea").fill("a red cat")
    page.locator("#draw-count input").fill("2")
    few_steps(page)
    page.locator("#draw-go").click()
    expect(page.locator(".wall > button")).to_have_count(2, timeout=PATIENCE)
    expect(page.locator("#stage")).to_contain_text("a red cat")
    told = [picture_file.read(one.path).values for one in gallery.listed(outputs)]
    assert {one["steps"] for one in told} == {2} and told[0]["seed"] == told[1]["seed"] + 1
    expect(page.locator("#draw-seed input")).to_have_value(str(told[1]["seed"]))

    page.reload()
    expect(page.locator("#draw-prompt textarea")).to_have_value("a red cat")
    expect(page.locator(".wall > button img")).to_have_count(2)
    page.locator(".wall > button").last.click()
    expect(page.locator("#stage")).to_contain_text(f"seed {told[1]['seed']}")
    page.get_by_role("button", name="Give it a star").click()
    expect(page.locator(".wall .starred")).to_have_count(1)
    page.get_by_role("button", name="Compare…").click()
    page.locator(".wall > button").first.click()
    expect(page.locator("#stage .pair .left")).to_have_text(f"seed {told[1]['seed']}")
    page.get_by_role("button", name="End the comparison").click()
    page.locator("#stage").get_by_role("button", name="Delete").click()
    expect(page.locator(".wall > button")).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".wall > button")).to_have_count(2)
    expect(page.locator(".wall .starred")).to_have_count(1)

    page.locator(".wall > button", has=page.locator(".starred")).click()
    expect(page.locator("#stage")).to_contain_text(f"seed {told[1]['seed']}")
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#draw-note")).to_contain_text("has the settings of this picture")
    expect(page.locator("#draw-seed input")).to_have_value(str(told[1]["seed"]))
    expect(page.locator("#draw-new-seed input")).not_to_be_checked()


def test_a_dropped_picture_fills_the_form(visit, outputs, tmp_path):
    """What another program's picture tells is filled in, what is not understood is named."""
    note = PngInfo()
    note.add_text("parameters", OF_A1111)
    Image.new("RGB", (8, 8)).save(tmp_path / "theirs.png", pnginfo=note)
    page = room(visit())
    page.locator("#draw-take > button").click()
    Image.new("RGB", (8, 8)).save(tmp_path / "silent.png")
    page.locator("#draw-settings input[type=file]").set_input_files(tmp_path / "silent.png")
    expect(page.locator("#draw-taken b")).to_have_text("silent.png does not tell how it was made.")
    expect(page.locator("#draw-taken code")).to_have_count(0)
    page.locator("#draw-settings input[type=file]").set_input_files(tmp_path / "theirs.png")
    expect(page.locator("#draw-taken")).to_contain_text("The adapter gone (0.7) is not in your library")
    expect(page.locator("#draw-taken")).to_contain_text("Sampler: Restart")
    expect(page.locator("#draw-prompt textarea")).to_have_value("a dog")
    expect(page.locator("#draw-negative").locator("input, textarea")).to_have_value("text")
    expect(page.locator("#draw-seed input")).to_have_value("77")
    expect(page.locator("#draw-width input")).to_have_value("96")


def test_a_run_in_the_way_is_told_and_what_to_do(visit, studio, outputs, part):
    """The page waits for ever, or for no reason that it tells."""
    played = part("busy-drawing", studio.outputs)
    played.lives()
    page = room(visit())
    page.locator("#draw-go").click()
    expect(page.locator("#draw-note")).to_contain_text(
        re.compile("while the run busy-drawing begins or ends.*Wait", re.DOTALL)
    )
    played.finishes(1)
    assert gallery.listed(outputs) == [] and runs.pictures_folder(outputs)
