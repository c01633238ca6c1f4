"""The model card: what an artist says of an adapter, in its header and beside it."""

from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from lora_studio import adapters, runs
from lora_studio.adapters import metadata, recipe, usage
from lora_studio.adapters.card import CardText
from lora_studio.adapters.metadata import Privacy
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.events import PreviewReady
from lora_studio.runs import model_card, shown
from tests.adapters.adapter_samples import small

TEXT = CardText("Ink on paper", "Ana", "CC-BY-4.0", "ink, paper", "Good at *houses*.")


@pytest.fixture
def run(tmp_path) -> runs.Run:
    """A run with previews at two steps, and its adapter."""
    run = runs.create(Settings(data="x", name="ink", trigger="inkstyle"), tmp_path)
    for name, colour in (("base-0", "white"), ("step-0-0", "white"), ("step-40-0", "red"), ("step-80-0", "blue")):
        Image.new("RGB", (32, 32), colour).save(run.previews / f"{name}.png")
    Image.new("RGB", (32, 32), "green").save(run.preview_file(80, 1))
    told = [
        PreviewReady(at=1.0, step=80, index=index, prompt=f"inkstyle, {word}", seed=1, path="x")
        for index, word in enumerate(("cat", "house"))
    ]
    run.events_file.write_text("".join(one.model_dump_json() + "\n" for one in told) + '{"kind":"preview"')
    made = recipe.Training(
        settings={"rank": 4, "learning_rate": 3e-4, "batch": 2},
        steps=80,
        images=[recipe.ImageRecord(name=f"{number}.png", sha256="0" * 64) for number in range(12)],
    )
    header = {
        "modelspec.title": "ink",
        "modelspec.trigger_phrase": "inkstyle",
        recipe.KEY: recipe.dumps(made),
        **usage.texts(usage.Strength(0.8, 0.6, 1.0), {"modelspec.trigger_phrase": "inkstyle"}),
    }
    adapters.write(small(), run.adapter_file, metadata=header)
    return run


def tensors(path: Path) -> dict[str, bytes]:
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}


def test_the_previews_that_show_it_are_those_of_its_step(run):
    (cat, house) = shown.of(run)
    assert (cat.prompt, cat.style, cat.base) == ("cat", run.preview_file(80, 0), run.preview_file(0, 0, base=True))
    assert (house.prompt, house.style, house.base) == ("house", run.preview_file(80, 1), None)
    assert [one.style for one in shown.of(run, 79)] == [run.preview_file(40, 0)]
    assert shown.of(run, 39) == []


def test_a_card_is_saved_in_the_header_and_beside_the_adapter(run):
    """The weights change with the card, or what she wrote is lost."""
    before = tensors(run.adapter_file)
    card = model_card.save(run.adapter_file, TEXT, shown.of(run))
    header = adapters.header(run.adapter_file).metadata
    assert tensors(run.adapter_file) == before and CardText.read(header) == TEXT
    assert header["modelspec.trigger_phrase"] == "inkstyle" and recipe.KEY in header
    assert card.read_text("utf-8") == (
        "# Ink on paper\n\n![cat](ink.pictures/1.webp)\n![house](ink.pictures/2.webp)\n\nGood at *houses*.\n\n"
        "## How to use it\n\n- File: `ink.safetensors`\n- Base model: Built-in starter\n- Trigger word: **inkstyle**\n"
        "- Strength: Start at a strength of 0.8; style and subjects hold from 0.6 to 1.\n\n"
        "## How it was trained\n\nA LoRA with convolutions of rank 4, trained on 12 pictures for 80 steps with LoRA "
        "Studio. Learning rate 0.0003, batch 2.\n\n"
        "## Author and licence\n\nBy Ana. Licence: CC BY 4.0. Tags: ink, paper.\n"
    )
    assert Image.open(run.folder / "ink.pictures" / "2.webp").size == (32, 32)


def test_a_card_that_is_saved_again_has_no_pictures_of_the_one_before(run):
    model_card.save(run.adapter_file, TEXT, shown.of(run))
    card = model_card.save(run.adapter_file, TEXT._replace(author="", title=" Ink "), shown.of(run, 40))
    assert "Ana" not in card.read_text("utf-8") and card.read_text("utf-8").startswith("# Ink\n")
    assert "modelspec.author" not in adapters.header(run.adapter_file).metadata
    assert [path.name for path in (run.folder / "ink.pictures").iterdir()] == ["1.webp"]


def test_how_much_an_export_tells_of_a_card_is_the_artists_choice(run):
    model_card.save(run.adapter_file, TEXT, [])
    header = adapters.header(run.adapter_file).metadata
    told = {level: CardText.read(metadata.at(header, level)) for level in Privacy}
    assert told == {Privacy.NONE: CardText(title="Ink on paper"), Privacy.MINIMAL: TEXT, Privacy.FULL: TEXT}


def test_what_is_wrong_leaves_the_adapter_as_it_is(run):
    with pytest.raises(SettingsError, match="The author has 200 characters; 120 are the most."):
        model_card.save(run.adapter_file, TEXT._replace(author="a" * 200), [])
    data = run.adapter_file.read_bytes()
    run.adapter_file.write_bytes(data[:-4] + b"abcd")
    with pytest.raises(AdapterError, match="is damaged"):
        model_card.save(run.adapter_file, TEXT, [])
    assert run.adapter_file.read_bytes() == data[:-4] + b"abcd" and not (run.folder / "ink.md").exists()


def test_nothing_in_a_strangers_header_is_markup_of_the_card(run):
    header = {"modelspec.trigger_phrase": "<b>[x](http://a)", "ss_sd_model_name": "# one\ntwo"}
    adapters.write(small(), run.folder / "other.safetensors", metadata=header)
    card = model_card.markdown(run.folder / "other.safetensors", [])
    assert "\\<b\\>\\[x\\](http://a)" in card and "trained on \\# one two" in card
