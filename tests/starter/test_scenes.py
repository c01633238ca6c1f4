"""The training data of the starter: scenes, and the captions that are right for them."""

import random
import re

import pytest

from lora_studio.starter.make import captions, scenes
from lora_studio.starter.make.scenes import IconScene

SUBJECTS = ("red-apple", "cat", "house", "automobile", "green-apple", "fish", "glass-of-milk")
INDEX = [{"style": style, "subject": subject, "split": "train"} for style in ("flat", "glossy") for subject in SUBJECTS]


@pytest.fixture
def drawn():
    """Many scenes of every kind, with the generator that draws their captions."""
    draw = random.Random(3)
    source = scenes.Scenes(INDEX, range(len(INDEX)), set(range(len(INDEX))))
    return [source.draw(row, draw, composed=1.0) for row in range(len(INDEX)) for _ in range(60)]


@pytest.fixture
def unknown(tmp_path):
    """Words of a list of which three name something in captions."""
    (tmp_path / "words").write_text("quorum\nred\ncat\nthe\nvestige\ntable\nCapital\nit's\n")
    return captions.Unknown(tmp_path / "words", SUBJECTS)


@pytest.mark.parametrize(
    "name, plural",
    [
        ("cat", "cats"), ("box", "boxes"), ("berry", "berries"), ("bus", "buses"), ("fish", "fish"), ("toy", "toys"),
        ("mouse", "mice"), ("christmas tree", "christmas trees"), ("glass of milk", "glasses of milk"),
        ("house with a garden", "houses with a garden"), ("sunglasses", "sunglasses"), ("peach", "peaches"),
    ],
)  # fmt: skip
def test_plurals(name, plural):
    assert captions.plural(name) == plural


def test_words_that_change_nothing_name_nothing(unknown):
    assert unknown.rare == ["quorum", "vestige"]


def test_every_kind_of_scene_is_drawn(drawn):
    assert {len(scene.icons) for scene in drawn} == {1, 2, 3}
    assert {scene.size for scene in drawn} == {"", "small", "large"}
    assert {scene.place for scene in drawn} >= {"", "left", "right", "top", "bottom"}
    assert {scene.relation for scene in drawn} == {"", "beside", "above"}
    assert {scene.ground for scene in drawn} == {"", *scenes.GROUNDS}
    assert {colour for scene in drawn for colour in scene.colours} == {"", *scenes.COLOURS}


def test_icons_stand_where_the_scene_says(drawn):
    """The middle of an icon lies on the side that is named, and a pair's first subject on the left or above."""
    for scene in drawn:
        (scale, x, y, _), *others = scene.spots
        if scene.place:
            right, down = scenes.SIDES[scene.place]
            assert right == 0 or x * right > 0.3
            assert down == 0 or scene.ground or y * down > 0.3
        if scene.size == "small":
            assert scale <= 0.46
        if scene.relation == "beside":
            assert x < 0 < others[0][1]
        if scene.relation == "above":
            assert y < 0 < others[0][2]


def test_a_subject_named_after_its_colour_is_never_painted(drawn):
    for scene in drawn:
        if scene.subjects[0] == "green-apple":
            assert not scene.colours[0]


def test_captions_say_what_the_scene_shows(drawn, unknown):
    """Count, colour, size, ground and both subjects of a pair stand in every caption."""
    draw = random.Random(4)
    for scene in drawn:
        text = captions.describe(scene, unknown, draw)
        for at, colour in enumerate(scene.colours):
            assert colour in text, (scene, text)
            assert any(name.split(" ")[0][:2] in text for name in captions.words(scene.subjects[at]))
        if len(scene.subjects) == 1 and len(scene.icons) > 1:
            number = {2: r"\b(?:two|2|a pair of)\b", 3: r"\b(?:three|3)\b"}[len(scene.icons)]
            assert re.search(number, text), text
        if scene.size:
            assert any(word in text for word in captions.SIZES[scene.size]), text
        if scene.ground:
            assert any(words in text for words in captions.ON[scene.ground]), text
        if scene.place:
            assert any(words in text for words in captions.PLACES[scene.place]), text


def test_the_same_scene_is_said_in_many_ways(unknown):
    scene = IconScene((1,), ((0.8, 0.0, 0.0, 0.0),), ("cat",), "flat")
    draw = random.Random(5)
    said = {captions.describe(scene, unknown, draw) for _ in range(300)}
    assert len(said) > 150 and all("cat" in text for text in said)
    assert any("style" in text and "flat" not in text for text in said), "an unknown style changes nothing"
