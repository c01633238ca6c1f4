"""The Mix page in a real browser, with the real process that draws: the starter on the CPU and two small adapters."""

import re

import pytest
from playwright.sync_api import expect

from lora_studio import adapters, files, models, runs
from lora_studio.adapters import recipe
from tests.ui.played import PATIENCE
from tests.ui.small_adapters import small_adapter


@pytest.fixture(scope="module")
def pair(studio):
    """Two adapters in the studio's library, which is empty again afterwards."""
    base, folder = models.load("starter"), runs.library_folder(studio.outputs)
    yield [
        adapters.write(small_adapter(base, seed), folder / f"{name}.safetensors", metadata={"modelspec.title": name})
        for seed, name in enumerate(("soft", "loud"))
    ]
    for path in folder.glob("*.safetensors"):
        path.unlink()


def room(page):
    page.get_by_role("tab", name="Mix").click()
    expect(page.locator("#mix-add input")).to_be_visible()
    return page


def add(page, name: str, count: int) -> None:
    """Chooses an adapter as a user does: by typing a part of its name."""
    page.locator("#mix-add input").click()
    page.locator("#mix-add input").fill(name[:3])
    page.get_by_role("option", name=name, exact=True).click()
    expect(page.locator(".ingredient")).to_have_count(count)


def few_steps(page) -> None:
    page.locator("#mix-more > button").click()
    page.locator("#mix-steps input").fill("2")
    page.locator("#mix-guidance input").fill("1")
    page.locator("#mix-guidance input").press("Enter")


def test_two_adapters_become_one_file(visit, studio, pair):
    """What a user mixes by eye is not what lies in the library afterwards."""
    page = room(visit())
    few_steps(page)
    add(page, "soft", 1)
    add(page, "loud", 2)
    picture = page.locator(".mixed img")
    expect(picture).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#mix-note .facts")).to_contain_text("2 steps", timeout=PATIENCE)
    expect(page.locator(".previews img")).to_have_count(2)

    first = page.locator(".ingredient").first
    first.locator("summary").click()
    listed = first.get_by_label("List of the block weights of soft")
    listed.fill("INALL")
    listed.press("Enter")
    expect(first.locator('.factor[data-block="OUT03"]')).to_have_value("0")
    first.locator("details").evaluate("fold => fold.removeAttribute('open')")  # as gradio does where it draws it anew
    expect(listed).to_be_visible()
    first.get_by_role("button", name="Copy list").click()
    expect(listed).to_have_value("1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0")
    listed.fill("ALL")
    first.get_by_role("button", name="Use list").click()
    expect(first.locator('.factor[data-block="up_blocks.1"]')).to_have_value("1")

    before = picture.get_attribute("src")
    page.get_by_label("Weight of loud", exact=True).fill("-0.5")
    expect(picture).not_to_have_attribute("src", before, timeout=PATIENCE)
    expect(page.get_by_label("Weight of loud, as a number")).to_have_value("-0.5")
    page.get_by_label("Weight of soft, as a number").fill("much")
    page.get_by_label("Weight of soft, as a number").press("Enter")
    expect(page.locator("#mix-said")).to_contain_text("“much” is not a number, so the weight stays 1")
    expect(page.get_by_label("Weight of soft, as a number")).to_have_value("1")
    page.get_by_label("Weight of soft, as a number").fill("10")
    page.get_by_label("Weight of soft, as a number").press("Enter")
    expect(page.locator("#mix-said")).to_contain_text("soft: 10 is out of range. Weights go from −2 to 2")
    expect(page.get_by_label("Weight of soft, as a number")).to_have_value("2")

    page.get_by_label("Trimmed").click()
    page.locator("#blend-rank input").fill("2")
    page.locator("#blend-rank input").press("Enter")
    expect(page.locator("#mix-cost")).to_contain_text(re.compile(r"rank 2.*residual 0\.\d"), timeout=PATIENCE)
    page.locator("#mix-name").locator("input, textarea").fill("soft not loud")
    page.locator("#mix-save").click()
    expect(page.locator("#mix-saved")).to_contain_text("proved", timeout=PATIENCE)
    saved = runs.library_folder(studio.outputs) / "soft-not-loud.safetensors"
    made = recipe.read(adapters.header(saved).metadata)
    assert [(one.name, one.weight) for one in made.ingredients] == [("soft", 2.0), ("loud", -0.5)] and (
        made.method,
        made.rank,
    ) == ("svd", 2)
    assert files.sha256(pair[0]) != files.sha256(saved)

    page.get_by_role("link", name="Show in the library").click()
    expect(page.locator("#facts")).to_contain_text("soft-not-loud.safetensors")


def test_pictures_wait_for_a_run(visit, studio, pair, part):
    """The page draws beside a run that needs the memory, or keeps waiting after it; or a reload loses the mix."""
    played = part("busy", studio.outputs)
    played.lives()
    page = room(visit())
    add(page, "soft", 1)
    expect(page.locator("#mix-note")).to_contain_text("No images are drawn while the run busy begins or ends")
    page.reload()
    expect(page.locator(".ingredient")).to_have_count(1)
    expect(page.locator("#mix-note")).to_contain_text("No images are drawn while the run busy begins or ends")
    played.finishes(1)
    expect(page.locator("#mix-note")).to_contain_text(re.compile("Drawing|Loading|20 steps"))
    page.get_by_label("Remove soft").click()
    expect(page.locator("#mix-pictures")).to_contain_text("Nothing to see yet")
