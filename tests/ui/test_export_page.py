"""Exports in a real browser, with the real command: done when proved, and not before."""

import zipfile

import pytest
from playwright.sync_api import expect

from lora_studio import adapters, runs
from lora_studio.adapters import Adapter, recipe
from tests.adapters.adapter_samples import small
from tests.ui.played import PATIENCE

WORKING = {"timeout": PATIENCE}
"""How long a command may take beside everything else that a test machine does."""


def plain() -> Adapter:
    """A small adapter that every program reads; diffusers knows a text encoder by layers that the samples lack."""
    return Adapter({path: factors for path, factors in small().factors.items() if path.startswith("unet.")})


@pytest.fixture
def rain(studio):
    """One adapter in the library, gone after the test."""
    made = recipe.Training(
        settings={"rank": 4, "trigger": "rainstyle"},
        base="starter",
        images=[recipe.ImageRecord(name="secret.png", sha256="0" * 64)],
    )
    header = {"modelspec.title": "Rain", "modelspec.trigger_phrase": "rainstyle", recipe.KEY: recipe.dumps(made)}
    path = adapters.write(plain(), runs.library_folder(studio.outputs) / "rain.safetensors", metadata=header)
    yield path
    path.unlink()


def opened(visit):
    """The page with the adapter chosen."""
    page = visit()
    page.goto(f"{page.url.partition('#')[0]}#export/library/rain.safetensors")
    expect(page.locator("#export-name").locator("input, textarea")).to_have_value("rain")
    return page


def downloaded(page, tmp_path):
    with page.expect_download() as download:
        page.locator("#outcome .download").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_an_adapter_is_chosen_exported_proved_and_downloaded(visit, rain, tmp_path):
    """The file tells more than the user chose, or is another one than was proved."""
    page = visit()
    page.goto(f"{page.url.partition('#')[0]}#library/library/rain.safetensors")
    page.get_by_role("link", name="Export…").click()
    expect(page.locator("#export-facts")).to_contain_text("Built-in starter")
    name = page.locator("#export-name").locator("input, textarea")
    expect(name).to_have_value("rain")  # else the page would overwrite what is typed
    name.fill("../my rain")
    page.locator("#export-now").click()
    expect(page.locator("#outcome .passed")).to_have_count(4, **WORKING)
    expect(page.locator("#outcome")).to_contain_text(
        "Proved: every program that you chose reads the adapter as it is here."
    )
    file = downloaded(page, tmp_path)
    assert file.name == "my-rain.safetensors"
    assert adapters.read(file).factors.keys() == plain().factors.keys()
    header = adapters.header(file).metadata
    assert (
        header["modelspec.trigger_phrase"] == "rainstyle" and recipe.KEY not in header and "secret" not in str(header)
    )

    comfy = tmp_path / "ComfyUI"
    loras = comfy / "models" / "loras"
    loras.mkdir(parents=True)
    (loras / "my-rain.safetensors").write_bytes(b"another artist's")
    page.locator("#outcome [data-send]").click()
    expect(page.locator("#send")).to_contain_text("Send my-rain to another program")
    page.locator("#send-folder").locator("input, textarea").fill(f"{comfy}")
    page.locator("#send-now").click()
    expect(page.locator("#send .wrong")).to_contain_text("is there already, and is a different file", **WORKING)
    expect(page.locator("#send-now")).to_be_enabled()
    page.locator("#send-other").click()
    expect(page.locator("#send .right")).to_contain_text("In ComfyUI press R", **WORKING)
    assert (loras / "my-rain-2.safetensors").read_bytes() == file.read_bytes()
    assert (loras / "my-rain.safetensors").read_bytes() == b"another artist's"
    page.keyboard.press("Escape")
    expect(page.locator("#send")).to_be_hidden()
    expect(page.locator("#outcome [data-send]")).to_be_focused()


def test_a_proof_that_fails_is_shown_and_leaves_no_file(visit, rain, studio):
    """An export is called done though a program will not read it, or though none was asked."""
    page = opened(visit)
    page.get_by_role("button", name="Programs and number format").click()
    for program in ("ComfyUI", "Forge", "A1111", "diffusers"):
        page.locator("#targets").get_by_label(program).click()
    page.locator("#export-now").click()
    expect(page.locator("#outcome .wrong")).to_contain_text("No program is chosen to prove it for.")
    page.get_by_label("diffusers: in its own names").click()
    expect(page.locator("#targets").get_by_label("diffusers")).to_be_checked()  # else what is clicked is taken back
    page.locator("#targets").get_by_label("ComfyUI").click()
    page.locator("#export-now").click()
    expect(page.locator("#outcome .wrong")).to_contain_text("ComfyUI would not read the export", **WORKING)
    expect(page.locator("#outcome .failed")).to_have_count(1)
    expect(page.locator("#outcome .why")).to_contain_text("It finds")
    expect(page.locator("#outcome .passed")).to_have_count(1)
    expect(page.locator("#outcome .download")).to_have_count(0)
    assert not [path for path in (studio.outputs / ".cache" / "page").iterdir() if path.name.startswith(".export-")]


def test_what_a_file_tells_is_told_and_a_peft_folder_comes_as_a_zip(visit, rain, tmp_path):
    """The user gives away the names of private pictures unawares."""
    page = opened(visit)
    expect(page.locator("#tells")).to_contain_text("No settings, no names of pictures")
    page.get_by_label("The whole recipe").click()
    expect(page.locator("#tells")).to_contain_text("the pictures' file names")
    page.get_by_role("button", name="Programs and number format").click()
    page.get_by_label("Nothing").click()
    expect(page.locator("#tells")).to_contain_text("No trigger word, no thumbnail")
    page.get_by_label("peft: a zipped folder").click()
    expect(page.locator("#targets").get_by_label("peft")).to_be_checked()
    page.locator("#export-now").click()
    expect(page.locator("#outcome .passed")).to_have_count(1, **WORKING)
    file = downloaded(page, tmp_path)
    assert file.name == "rain.zip"
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path)
    read = adapters.read(tmp_path / "rain")
    for path, factors in plain().factors.items():
        assert float((read.factors[path].delta() - factors.delta()).norm()) <= 1e-5 * float(factors.delta().norm())
