"""Row 21: files that change during a run are told from the manifest."""

import json
from dataclasses import replace

import pytest

from lora_studio.dataset import preparation
from lora_studio.dataset.folder import scan
from lora_studio.dataset.manifest import changes, changes_since, manifest, noted
from lora_studio.dataset.preparation import Crop, FolderOptions, Preparation
from tests.dataset import made


@pytest.fixture
def style(tmp_path):
    return made.style_folder(tmp_path / "style", 3)


def test_an_untouched_folder_has_no_changes_even_by_way_of_a_file(style):
    before = json.loads(json.dumps(manifest(scan(style))))
    (style / "1.png").touch()
    assert changes(before, manifest(scan(style))) == []


@pytest.mark.fault(21)
def test_every_change_is_listed_in_the_order_of_names(style):
    before = manifest(scan(style))
    (style / "0.png").unlink()
    made.painted(seed=50).save(style / "1.png")
    (style / "1.txt").write_text("other words")
    made.painted(seed=51).save(style / "4.png")
    assert changes(before, manifest(scan(style))) == [
        "0.png was removed.",
        "1.png is a different picture.",
        "1.png has a different caption.",
        "4.png was added.",
    ]


def test_other_repeats_are_a_change():
    entry = {"sha256": "a", "caption": "b", "repeats": 2}
    assert changes({"a.png": entry}, {"a.png": {**entry, "repeats": 5}}) == [
        "a.png repeats 5 times per epoch instead of 2."
    ]


def test_lines_that_an_earlier_version_joined_are_told_from_other_words():
    old, new = (
        {"a.png": {"sha256": "a", "caption": text, "repeats": 1}} for text in ("a boat at dawn", "a boat\nat dawn")
    )
    assert changes(new, new) == []
    assert changes(old, new) == [
        "a.png has a caption of several lines, which an earlier version joined (caption_lines=joined)."
    ]


CROPPED = Preparation(
    {"0.png": Crop(0, 0, 0.5, 1)},
    frozenset({"2.png"}),
    {"": FolderOptions(weight=0.5, timesteps=(0, 500), regularisation=True, prefix="ink,")},
)


def test_what_was_chosen_is_noted_where_it_is_not_as_by_default(style):
    plain = manifest(scan(style))
    assert all(entry.keys() == {"sha256", "caption", "repeats"} for entry in plain.values())
    preparation.write(style, CROPPED)
    now = manifest(scan(style))
    assert now["0.png"] == plain["0.png"] | {
        "caption": "ink, thing 0, ink, paper",
        "crop": [0, 0, 0.5, 1],
        "weight": 0.5,
        "timesteps": [0, 500],
        "regularisation": True,
    }
    assert "crop" not in now["1.png"] and "2.png" not in now


def test_what_was_chosen_is_noted_for_good(style, tmp_path):
    preparation.write(style, CROPPED)
    now = manifest(scan(style))
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(now), "utf-8")
    assert noted(path) == now and changes(noted(path), now) == []


@pytest.mark.parametrize("damage", [{"crop": 1}, {"crop": ["x"]}, {"weight": "heavy"}, {"timesteps": [None]}])
def test_a_damaged_note_counts_as_none(tmp_path, damage):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"a.png": {"sha256": "a", "caption": "b", "repeats": 1, **damage}}), "utf-8")
    assert noted(path) is None


@pytest.mark.fault(95)
def test_every_choice_that_changed_is_listed(style):
    before = manifest(scan(style))
    preparation.write(style, replace(CROPPED, folders={"": replace(CROPPED.folders[""], prefix="")}))
    now = scan(style)
    options = ["has the weight 0.5 instead of 1.", "is trained at other noise levels.", "is now a class picture."]
    assert changes_since(before, now) == [
        "0.png is cropped differently.",
        *(f"0.png {said}" for said in options),
        *(f"1.png {said}" for said in options),
        "2.png was left out.",
    ]
    assert changes(manifest(now), before)[3] == "0.png is no longer a class picture."
