"""How captions will be read is said before training, once for all of a kind."""

from pathlib import Path

import pytest

from lora_studio.config.slices import AugmentationSettings, DatasetSettings
from lora_studio.dataset.caption_notices import of_sides, problems
from lora_studio.dataset.items import Dataset, Picture


def captioned(*captions: str) -> Dataset:
    pictures = [Picture(Path(f"/x/{index}.png"), text, 1, 8, 8, "") for index, text in enumerate(captions)]
    return Dataset(Path("/x"), pictures, [])


def notices(settings: dict, *captions: str) -> list[str]:
    return [problem.what for problem in problems(captioned(*captions), DatasetSettings(**settings))]


@pytest.mark.fault(89)
@pytest.mark.parametrize(
    ("settings", "captions", "said"),
    [
        ({}, ["a cat", "b ||| c", ":{", "{d}", ""], []),
        (
            {},
            ["a\nb\nc", "d", "e\nf"],
            [
                "2 captions have several lines and are read as 5 captions, one of which is drawn each time: "
                "0.png, 2.png."
            ],
        ),
        (
            {},
            ["a\nb"],
            ["1 caption has several lines and is read as 2 captions, one of which is drawn each time: 0.png."],
        ),
        ({"caption_lines": "joined"}, ["a\nb"], []),
        (
            {},
            ["a", "{red|blue} cat"],
            ["1 caption has wildcards such as {a|b}, an option of which is drawn each time: 1.png."],
        ),
        ({}, ["{a|b"], ["1 caption has braces that nest or have no partner, which are read as text: 0.png."]),
        ({"wildcards": False}, ["{a|b} {c|"], []),
        (
            {"tag_dropout": 0.1, "protected_tags": ["Ink", "goold", "gold"]},
            ["cat, ink\ndog ||| gold"],
            [
                "1 caption has several lines and is read as 2 captions, one of which is drawn each time: 0.png.",
                "1 protected tag is in no caption: goold.",
            ],
        ),
        (
            {"tag_dropout": 0.1, "protected_tags": ["ink", "pen", "gold", "old"], "caption_prefix": "{old|new}, gold,"},
            ["{ink|pen|paint}, cat"],
            ["1 caption has wildcards such as {a|b}, an option of which is drawn each time: 0.png."],
        ),
        ({"protected_tags": ["goold"]}, ["cat"], []),
        (
            {"word_dropout": 0.1, "protected_tags": ["old house", "gold"]},
            ["an Old  house, golden"],
            ["1 protected tag is in no caption: gold."],
        ),
    ],
)
def test_what_is_wrong_with_captions_is_named(settings, captions, said):
    assert notices(settings, *captions) == said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, []),
        ({"flip": True}, ["1 caption speaks of left or right, and its picture is mirrored too: 1.png."]),
        ({"flip": True, "mirror_captions": "exchanged"}, []),
    ],
)
def test_captions_that_speak_of_sides_are_named_where_mirrored_pictures_have_them(settings, said):
    dataset = captioned("a cat", "Left a dog", "a bright dog")
    assert [problem.what for problem in of_sides(dataset, AugmentationSettings(**settings))] == said
