"""The Pictures page in a real browser: from a ZIP to a trained style, and by keyboard."""

import base64
import hashlib
import json
import shutil
import zipfile

from PIL import Image
from playwright.sync_api import expect

from lora_studio import starter
from lora_studio.events import State
from lora_studio.jobs import view
from lora_studio.runs import Run
from tests.ui.played import until
from tests.ui.test_picture_editor import drag

NAMES = ("anchor", "bell", "bicycle", "camera", "castle", "crown")


def harbour(folder):
    """A ZIP of a folder: six drawings of the sample style, one of them twice more, and one that is wide."""
    source = folder / "My harbour"
    source.mkdir()
    sample = starter.SAMPLES / "blueprint"
    for name in NAMES:
        shutil.copyfile(sample / f"{name}.png", source / f"{name}.png")
        (source / f"{name}.txt").write_text(f"drawing, {name}")
    for copy in ("anchor copy.png", "anchor copy 2.png"):
        shutil.copyfile(sample / "anchor.png", source / copy)
    Image.open(sample / "castle.png").convert("RGB").resize((512, 256)).save(source / "castle.png")
    path = folder / "harbour.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(source.iterdir()):
            archive.write(file, f"My harbour/{file.name}")
        archive.writestr("My harbour/notes.docx", b"1")
    return path


def drop(page, *paths):
    """Drops files on the page as the system does."""
    files = [[base64.b64encode(path.read_bytes()).decode(), path.name] for path in paths]
    dropped = page.evaluate_handle(
        """files => {
          const all = new DataTransfer();
          for (const [data, name] of files)
            all.items.add(new File([Uint8Array.from(atob(data), sign => sign.charCodeAt(0))], name));
          return all;
        }""",
        files,
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event("body", kind, {"dataTransfer": dropped})


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.png")}


def captions(folder):
    return {path.stem: path.read_text().strip() for path in folder.glob("*.txt")}


def chosen(page):
    return page.evaluate("document.querySelector('.picture[aria-current=\"true\"]')?.dataset.name")


def test_from_a_zip_to_a_style_that_is_trained_on_what_was_seen(visit, studio, tmp_path):
    """What an artist prepares is lost on the way, or another thing is trained than the page showed."""
    page = visit()
    drop(page, harbour(tmp_path))
    assert page.url.endswith("#train"), "a drop on another page leaves the studio"
    page.locator("#tab-pictures-button").click()
    drop(page, tmp_path / "harbour.zip")
    expect(page.locator("#naming")).to_contain_text("What is it called?")
    page.locator("#dataset-name").locator("input, textarea").fill(" My  harbour")
    page.locator("#make-dataset").click()
    expect(page.locator("#folder-title")).to_contain_text("8 pictures")
    expect(page.locator("#pictures-message")).to_contain_text("1 file is neither a picture nor a caption")
    expect(page.locator("#pictures-message")).to_contain_text("The dataset is called My harbour: not every system")
    data = studio.outputs / "pictures" / "My harbour"
    before = hashes(data)
    assert len(before) == 8 and captions(data)["bell"] == "drawing, bell"

    page.locator("#words-about button").first.click()
    page.locator("#edit-apply").click()
    expect(page.locator("#pictures-message")).to_contain_text("Words about the style removed")
    assert captions(data)["bell"] == "bell"
    page.locator("#undo").click()
    until(lambda: captions(data)["bell"] == "drawing, bell")
    page.locator("#redo").click()
    until(lambda: captions(data)["bell"] == "bell")

    page.locator('.picture[data-name="bell.png"]').click()
    page.locator("#open-mask").click()
    canvas = page.locator(".masker canvas")
    expect(canvas).to_be_visible()
    drag(page, canvas, 60, 0)
    until((data / "bell-masklabel.png").exists)
    page.locator('.picture[data-name="castle.png"]').click()
    page.locator("#open-crop").click()
    expect(page.locator(".crop-frame")).to_be_visible()
    page.evaluate("document.querySelector('.crop-frame').scrollIntoView({block: 'center'})")
    frame = page.locator(".crop-frame").bounding_box()
    page.mouse.move(frame["x"] + frame["width"] - 5, frame["y"] + frame["height"] / 2)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] - 150, frame["y"] + frame["height"] / 2, steps=4)
    page.mouse.up()
    preparation = data / ".lora_studio" / "preparation.json"
    until(lambda: preparation.exists() and "castle.png" in json.loads(preparation.read_text())["crops"])

    page.locator('.picture[data-name="anchor-copy.png"]').click()
    page.locator('.picture[data-name="anchor-copy-2.png"]').click(modifiers=["Control"])
    expect(page.locator("#selection")).to_contain_text("2 selected")
    page.keyboard.press("Delete")
    expect(page.locator("#folder-title")).to_contain_text("2 left out")
    shown = {
        card.get_attribute("data-name"): card.locator("b").inner_text()
        for card in page.locator(".picture:not(.out)").all()
    }

    page.locator("#train-these").click()
    expect(page.locator(".dataset")).to_contain_text("5 pictures train, 1 held out for validation")
    for key, value in (("name", "seen"), ("steps", "4"), ("preview_prompts", "apple")):
        page.locator(f"#set-{key}").locator("input, textarea").first.fill(value)
    page.locator("#start").click()
    run = Run(studio.outputs / "seen")
    until(lambda: run.events_file.exists() and view.fold(run).state is State.FINISHED)
    trained = json.loads(run.manifest_file.read_text())
    assert {name: entry["caption"] for name, entry in trained.items()} == shown
    assert [name for name, entry in trained.items() if "mask" in entry] == ["bell.png"]
    assert trained["castle.png"]["crop"] == json.loads(preparation.read_text())["crops"]["castle.png"]
    assert {name: entry["sha256"] for name, entry in trained.items()} == {name: before[name] for name in shown}
    now = hashes(data)
    assert {name: now[name] for name in before} == before, "a picture was changed"


def test_the_list_is_used_without_a_mouse_and_outlives_a_reload(visit, pictures, tmp_path):
    """Keys do nothing, or do it while a caption is typed; after a reload the sample is shown again."""
    folder = tmp_path / "my drawings"
    shutil.copytree(pictures, folder)
    page = visit()
    page.locator("#tab-pictures-button").click()
    path = page.locator("#pictures-path").locator("input, textarea")
    path.fill(str(folder / "drawing 1.png"))
    path.press("Enter")
    page.locator("#open-beside").click()
    expect(page.locator("#folder-title")).to_contain_text("my drawings")
    first = page.locator(".picture").first
    first.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    until(lambda: chosen(page) == "drawing 1.png")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#selection")).to_contain_text("2 selected")
    page.keyboard.press("Delete")
    expect(page.locator("#pictures-message")).to_contain_text("May the studio write in my drawings?")
    assert not (folder / ".lora_studio").exists()
    page.locator("#not-now").click()
    expect(page.locator("#pictures-message")).to_contain_text("Nothing was written")
    page.locator('.picture[data-name="drawing 1.png"]').focus()
    page.keyboard.press("Delete")
    page.locator("#yes").click()
    expect(page.locator(".picture.out")).to_have_count(2)
    page.keyboard.press("Control+z")
    expect(page.locator(".picture.out")).to_have_count(0)
    page.keyboard.press("Control+Shift+z")
    expect(page.locator(".picture.out")).to_have_count(2)

    page.locator('.picture[data-name="drawing 4.png"]').focus()
    page.keyboard.press("Enter")
    field = page.locator("#caption-text")
    expect(field).to_be_focused()
    page.keyboard.press("Delete")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.name") == "drawing 4.png"
    expect(page.locator(".picture.out")).to_have_count(2)
    page.keyboard.press("Escape")
    expect(page.locator("#editor")).to_be_hidden()
    page.locator("#search-pictures").locator("input, textarea").fill("number 7")
    expect(page.locator(".picture")).to_have_count(1)
    page.locator('[data-mark=""]').click()
    expect(page.locator(".picture")).to_have_count(10)
    page.reload()
    expect(page.locator("#folder-title")).to_contain_text("my drawings")
    expect(page.locator(".picture.out")).to_have_count(2)
