"""WD14 taggers: what they are shown, what is written of what they say."""

import numpy as np
import pytest
from PIL import Image

from lora_studio.errors import ModelError
from lora_studio.vision import taggers
from lora_studio.vision.options import TagOptions
from lora_studio.vision.taggers import CHARACTER, GENERAL, RATING, ScoredTag, Tagger, chosen, key, prepare, spelled
from tests.vision import tiny

SCORED = [
    ScoredTag("general", RATING, 0.2),
    ScoredTag("sensitive", RATING, 0.7),
    ScoredTag("1girl", GENERAL, 0.9),
    ScoredTag("long_hair", GENERAL, 0.95),
    ScoredTag(">_<", GENERAL, 0.5),
    ScoredTag("watercolor_(medium)", GENERAL, 0.35),
    ScoredTag("hatsune_miku", CHARACTER, 0.84),
    ScoredTag("rose_(flower)", GENERAL, 0.34),
]


def test_the_picture_is_laid_on_a_white_square_blue_first():
    shown = prepare(Image.new("RGB", (4, 2), (10, 20, 30)), 4)
    assert shown.shape == (4, 4, 3) and shown.dtype == np.float32
    assert shown[0].tolist() == shown[3].tolist() == [[255, 255, 255]] * 4
    assert shown[1].tolist() == shown[2].tolist() == [[30, 20, 10]] * 4


def test_a_picture_is_shown_at_the_models_size():
    assert prepare(Image.new("RGB", (100, 30)), 8).shape == (8, 8, 3)


def test_the_best_tags_above_their_thresholds_come_first():
    assert chosen(SCORED, TagOptions()) == ["long hair", "1girl", ">_<", "watercolor (medium)"]


def test_characters_have_a_threshold_of_their_own():
    assert chosen(SCORED, TagOptions(general=1, character=0.8)) == ["hatsune miku"]


def test_a_rating_is_written_when_asked_for():
    assert chosen(SCORED, TagOptions(general=0.9, ratings=True)) == ["long hair", "1girl", "sensitive"]


@pytest.mark.parametrize("never", ["long_hair", "Long Hair", " long  hair "])
def test_a_tag_that_is_never_written_is_known_in_any_spelling(never):
    assert "long hair" not in chosen(SCORED, TagOptions(never=(never,)))


def test_parentheses_are_never_escaped_and_known_when_they_are():
    assert "watercolor (medium)" not in chosen(SCORED, TagOptions(never=(r"watercolor \(medium\)",)))
    assert key(r"Rose_\(flower\)") == "rose (flower)"


@pytest.mark.parametrize(
    "face", ["0_0", "(o)_(o)", "+_-", "._.", "<|>_<|>", "=_=", ">_o", "@_@", "^_^", "u_u", "||_||"]
)
def test_a_face_keeps_its_underscore(face):
    assert spelled(face) == face


@pytest.mark.parametrize(
    "tag, written", [("blue_eyes", "blue eyes"), ("5_fingers", "5 fingers"), ("a_la_carte", "a la carte")]
)
def test_any_other_tag_loses_it(tag, written):
    assert spelled(tag) == written


def test_a_model_in_the_hubs_layout_scores_each_picture(tmp_path):
    """The tiny one's scores depend on the mean colour: with it swapped, another order would come out."""
    tagger = Tagger(tiny.wd14(tmp_path / "wd"))
    red, white = tagger.score([Image.new("RGB", (8, 8), "red"), Image.new("RGB", (5, 9), "white")])
    assert [tag.name for tag in red] == [name for _, name, _ in tiny.TAGS]
    weights = np.linspace(-0.04, 0.04, 3 * len(tiny.TAGS)).reshape(3, -1)
    expected = 1 / (1 + np.exp(-255 * weights[2]))
    assert [tag.score for tag in red] == pytest.approx(expected, abs=1e-4)
    assert [tag.score for tag in white] == pytest.approx(1 / (1 + np.exp(-255 * weights.sum(0))), abs=1e-4)


@pytest.mark.parametrize("text, said", [
    (None, "cannot be read"),
    ("", "lists no tags"),
    ("tag_id,name,category,count\n", "lists no tags"),
    ("a,b\n1,2\n", "cannot be read"),
    ("tag_id,name,category,count\n1,ink,high,2\n", "cannot be read"),
    ("tag_id,name,category,count\n1,ink,0,2\n", "scores 8 tags and selected_tags.csv lists 1"),
])  # fmt: skip
def test_a_list_of_tags_that_does_not_fit_is_told(tmp_path, text, said):
    model = tiny.wd14(tmp_path / "wd")
    (tmp_path / "wd" / "selected_tags.csv").unlink()
    if text is not None:
        (tmp_path / "wd" / "selected_tags.csv").write_text(text)
    with pytest.raises(ModelError, match=said):
        Tagger(model).score([Image.new("RGB", (8, 8))])


def test_a_segmenter_is_no_tagger(tmp_path):
    tiny.wd14(tmp_path / "wd")
    with pytest.raises(ModelError, match="no WD14 tagger"):
        Tagger(tiny.u2net(tmp_path / "wd" / "model.onnx"))


def test_a_damaged_file_is_told(tmp_path):
    tiny.wd14(tmp_path / "wd")
    (tmp_path / "wd" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"model.onnx cannot be loaded"):
        Tagger(tmp_path / "wd" / "model.onnx")


def test_without_onnxruntime_it_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(Exception, match="pip install onnxruntime"):
        Tagger(tiny.wd14(tmp_path / "wd"))
    assert taggers.read_tags(tmp_path / "wd" / "selected_tags.csv")
