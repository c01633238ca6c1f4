"""The panel of the chosen picture in a real browser: what is edited there is what lies in the folder."""

import json
import random

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from tests.ui.played import until


@pytest.fixture
def folder(tmp_path):
    """Three pictures of different shapes in a folder in which the studio may write."""
    draw = random.Random(0)
    for name, size in (("boat", (900, 600)), ("gull", (600, 600)), ("quay", (400, 800))):
        image = Image.new("RGB", size, "white")
        for _ in range(30):
            x, y = draw.randrange(size[0]), draw.randrange(size[1])
            ImageDraw.Draw(image).ellipse((x, y, x + 90, y + 60), fill=tuple(draw.randrange(256) for _ in range(3)))
        image.save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"a {name}")
    (tmp_path / ".lora_studio").mkdir()
    return tmp_path


def opened(page, folder, name):
    """The page with a picture of the folder in the editor."""
    page.get_by_role("tab", name="Train").click()
    data = page.locator("#set-data").locator("input, textarea")
    expect(page.locator(".dataset")).to_be_visible()  # what the browser kept is in the form
    data.fill(str(folder))
    data.press("Enter")
    expect(page.locator(".dataset")).to_contain_text("3 pictures train")
    page.get_by_role("tab", name="Pictures").click()
    choose(page, name)
    return page


def choose(page, name):
    page.locator(f'.picture[data-name="{name}"]').click()
    expect(page.locator("#editor-head h2")).to_have_text(name)


def test_a_typed_caption_is_never_lost(visit, folder):
    """Choosing another picture loses what was typed, or a second tab overwrites what the first one saved."""
    page, field = opened(visit(), folder, "boat.png"), "#caption-text"
    page.locator(field).fill("a boat at the quay")
    choose(page, "gull.png")
    expect(page.locator(field)).to_have_value("a gull")
    until(lambda: (folder / "boat.txt").read_text() == "a boat at the quay")
    expect(page.locator('.picture[data-name="boat.png"] b')).to_have_text("a boat at the quay")

    other = opened(visit(), folder, "gull.png")
    page.locator(field).fill("two gulls")
    page.locator(field).press("Control+Enter")
    expect(page.locator("#editor-head h2")).to_have_text("quay.png")
    expect(page.locator(field)).to_be_focused()
    until(lambda: (folder / "gull.txt").read_text() == "two gulls")

    other.locator(field).fill("three gulls")
    other.locator(field).press("Control+Enter")
    expect(other.locator(".caption-failure")).to_contain_text("There it now says: “two gulls”")
    assert (folder / "gull.txt").read_text() == "two gulls"
    expect(other.locator(field)).to_have_value("three gulls")
    expect(other.locator(".unsaved")).to_be_visible()
    other.get_by_role("button", name="Save my text").click()
    until(lambda: (folder / "gull.txt").read_text() == "three gulls")
    expect(other.locator(".unsaved")).to_be_hidden()
    other.locator("#restore-caption").click()
    until(lambda: (folder / "gull.txt").read_text() == "a gull")
    expect(other.locator(field)).to_have_value("a gull")


def test_the_crop_that_was_dragged_is_the_one_that_is_trained(visit, folder):
    """The frame shows one part, and another one is trained on."""
    page = opened(visit(), folder, "boat.png")
    page.locator("#open-crop").click()
    frame = page.locator(".crop-frame")
    frame.scroll_into_view_if_needed()
    stage = page.locator(".cropper .stage").bounding_box()
    drag(page, frame.locator('[data-side="e"]'), -stage["width"] / 3, 0)
    until(lambda: crops(folder))
    left, top, right, bottom = crops(folder)["boat.png"]
    expect(page.locator("#crop-size")).to_contain_text("Trains at 64 × 128")
    assert (right - left) * 900 / ((bottom - top) * 600) == pytest.approx(64 / 128)
    expect(page.locator('.picture[data-name="boat.png"] .crop')).to_be_visible()
    shown = frame.bounding_box()
    assert shown["x"] - stage["x"] == pytest.approx(left * stage["width"], abs=2)
    assert shown["width"] == pytest.approx((right - left) * stage["width"], abs=2)

    frame.focus()
    page.keyboard.press("ArrowRight")
    until(lambda: crops(folder)["boat.png"][0] > left)
    assert crops(folder)["boat.png"][:3:2] == pytest.approx((left + 0.01, right + 0.01))
    page.locator("#crop-reset").click()
    until(lambda: not crops(folder))
    page.locator("#undo").click()
    until(lambda: crops(folder))


def test_the_mask_that_was_painted_lies_beside_the_picture(visit, folder):
    """What was painted over is learned all the same, or the mask is as coarse as the page."""
    page = opened(visit(), folder, "boat.png")
    page.locator("#open-mask").click()
    canvas = page.locator(".masker canvas")
    expect(canvas).to_be_visible()
    page.locator(".brush-size").fill("10")
    drag(page, canvas, 60, 0)
    mask = folder / "boat-masklabel.png"
    until(mask.exists)
    with Image.open(mask) as image:
        assert (image.size, image.mode) == ((900, 600), "L")
        assert [image.getpixel(at) for at in ((450, 300), (470, 300), (450, 10))] == [0, 0, 255]
    expect(page.locator("#mask-share")).to_contain_text("of the picture is learned")

    page.get_by_text("Mask a corner").click()
    page.get_by_role("button", name="Bottom right").click()
    page.get_by_role("button", name="In all 3 pictures").click()
    until((folder / "quay-masklabel.png").exists)
    expect(page.locator('[data-mark="mask"]')).to_contain_text("3")
    with Image.open(mask) as image:
        assert [image.getpixel(at) for at in ((450, 300), (890, 590), (450, 10))] == [0, 0, 255]
    page.locator("#undo").click()
    expect(page.locator('[data-mark="mask"]')).to_contain_text("1")
    until(lambda: not (folder / "quay-masklabel.png").exists())
    page.locator('[data-brush="learn"]').click()
    page.locator(".brush-size").fill("30")
    canvas.focus()
    page.keyboard.press("Space")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    until(lambda: not mask.exists())
    expect(page.locator("#mask-share")).to_contain_text("all of it is learned")


def crops(folder):
    path = folder / ".lora_studio" / "preparation.json"
    return json.loads(path.read_text()).get("crops") if path.exists() else {}


def drag(page, locator, x, y):
    """Drags the middle of an element by pixels."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + x, at[1] + y, steps=4)
    page.mouse.up()
