"""Cards of a dataset: what training makes of each picture, and what an edit changes."""

import pytest
from PIL import Image

from lora_studio.config.settings import Settings
from lora_studio.curation.collection import Collection, Query
from lora_studio.curation.target import Target
from lora_studio.dataset import folder, preparation
from lora_studio.dataset.preparation import FolderOptions, Preparation


@pytest.fixture
def collection(tmp_path):
    for name, size, caption in (
        ("wide.png", (400, 100), "a boat, evening"),
        ("square.png", (300, 300), ""),
        ("Boat.png", (128, 128), "a boat\na ship, evening"),
        ("tiny.png", (48, 48), "a dot"),
    ):
        Image.effect_noise(size, 80).convert("RGB").save(tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text(caption)
    return Collection.of(folder.scan(tmp_path), Target.of(Settings(trigger="zorp")))


def names(collection, **query):
    return [card.name for card in collection.find(Query(**query))]


def test_cards_say_how_each_picture_is_trained(collection):
    wide, square = collection.cards["wide.png"], collection.cards["square.png"]
    assert (wide.bucket, wide.box) == ((256, 64), (0, 0, 400, 100))
    assert (square.bucket, square.box) == ((128, 128), (0, 0, 300, 300))
    assert {
        name: card.marks & {"no caption", "several captions", "small"} for name, card in collection.cards.items()
    } == {
        "wide.png": set(),
        "square.png": {"no caption"},
        "Boat.png": {"several captions"},
        "tiny.png": {"small"},
    }


def test_tokens_are_those_of_the_longest_caption_with_the_trigger_word(collection):
    clip = collection.target.tokenizers[0]
    assert collection.cards["Boat.png"].tokens == len(clip.spans("zorp, a ship, evening"))
    assert collection.cards["square.png"].tokens == len(clip.spans("zorp"))
    assert collection.target.most_tokens == 225


def test_pictures_are_found_and_ordered(collection):
    assert names(collection) == ["Boat.png", "square.png", "tiny.png", "wide.png"]
    assert names(collection, tag="Evening") == ["Boat.png", "wide.png"]
    assert names(collection, words="boat a") == ["Boat.png", "wide.png"]
    assert names(collection, words="boat", bucket="256 × 64") == ["wide.png"]
    assert names(collection, sort="size")[0] == "tiny.png"
    assert names(collection, mark="no caption") == ["square.png"]


def test_an_edit_makes_its_cards_anew(collection):
    before = dict(collection.cards)
    collection.change(captions={"square.png": "a square", "gone.png": "nothing"})
    collection.leave_out(["tiny.png"])
    assert "no caption" not in collection.cards["square.png"].marks
    assert names(collection, mark="trained") == ["Boat.png", "square.png", "wide.png"]
    assert collection.captions.keys() == {"Boat.png", "square.png", "wide.png"}
    collection.change(captions={"tiny.png": "a point"})
    assert collection.cards["tiny.png"].left_out
    collection.leave_out(["tiny.png"], out=False)
    assert names(collection, mark="left out") == []
    assert collection.cards["wide.png"] is before["wide.png"]


def test_class_pictures_and_folders_without_weight_do_not_say_what_the_style_is(tmp_path):
    """Tags of class pictures count as the style's, or a picture of the weight 0 is taken in by a word."""
    for place, caption in (("a", "ink"), ("1_man/b", "man"), ("1_old/c", "old")):
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((128, 128), 80).convert("RGB").save(path)
        path.with_suffix(".txt").write_text(caption)
    options = {"1_man": FolderOptions(regularisation=True), "1_old": FolderOptions(weight=0.0)}
    preparation.write(tmp_path, Preparation(folders=options))
    made = Collection.of(folder.scan(tmp_path), Target.of(Settings()))
    made.leave_out(["1_man/b.png", "1_old/c.png"], out=False)
    assert made.captions == {"a.png": "ink"}
    assert names(made, mark="left out") == ["1_old/c.png"]
    assert names(made, mark="trained") == ["1_man/b.png", "a.png"]


def test_another_base_model_trains_at_another_size(collection):
    larger = Collection.of(collection.dataset, Target.of(Settings(resolution=256)))
    assert larger.cards["square.png"].bucket == (256, 256)
