"""Row 21: files that change during a run are told from the manifest."""

import json

import pytest

from lora_studio.dataset.folder import scan
from lora_studio.dataset.manifest import changes, manifest
from tests.dataset import made


@pytest.fixture
def style(tmp_path):
    return made.style_folder(tmp_path / "style", 3)


def test_an_untouched_folder_has_no_changes_even_by_way_of_a_file(style):
    before = json.loads(json.dumps(manifest(scan(style))))
    (style / "1.png").touch()
    assert changes(before, manifest(scan(style))) == []


@pytest.mark.fault(21)
def test_every_change_is_said_in_the_order_of_names(style):
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
