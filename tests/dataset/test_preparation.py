"""What an artist chose about a folder: the file it is kept in, and what a scan makes of it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lora_studio.dataset import fitted, preparation
from lora_studio.dataset.folder import scan
from lora_studio.dataset.items import Bucket, Dataset
from lora_studio.dataset.preparation import NAME, Crop, FolderOptions, Preparation, read, write
from lora_studio.errors import DatasetError, MachineError
from tests.dataset import made


def names(pictures, dataset: Dataset) -> list[str]:
    return [dataset.name(picture) for picture in pictures]


def about(dataset: Dataset, words: str):
    """The one problem that says ``words``."""
    (problem,) = [problem for problem in dataset.problems if words in problem.what]
    return problem


def keep(folder: Path, text: str) -> Path:
    path = folder / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_nothing_is_chosen_about_a_folder_without_the_file(tmp_path):
    assert read(tmp_path) == (Preparation(), []) and read(tmp_path / "gone") == (Preparation(), [])
    assert list(tmp_path.iterdir()) == []


def test_choices_are_kept_as_sorted_json_without_what_is_as_by_default(tmp_path):
    chosen = Preparation(
        {"b.png": Crop(0.25, 0, 0.75, 1), "a/é.png": Crop(0, 0, 0.5, 1)},
        frozenset({"z.png", "c.png"}),
        {"": FolderOptions(), "10_ink": FolderOptions(repeats=3, weight=0.5, timesteps=(0, 500))},
    )
    write(tmp_path, chosen)
    assert json.loads((tmp_path / NAME).read_text("utf-8")) == {
        "version": 1,
        "crops": {"a/é.png": [0, 0, 0.5, 1], "b.png": [0.25, 0, 0.75, 1]},
        "left_out": ["c.png", "z.png"],
        "folders": {"": {}, "10_ink": {"repeats": 3, "weight": 0.5, "timesteps": [0, 500]}},
    }
    assert read(tmp_path) == (chosen, [])


shares = st.floats(0, 1)
crops = st.tuples(shares, shares, shares, shares).map(lambda it: Crop(*it)).filter(lambda crop: crop.valid)
options = st.builds(
    FolderOptions,
    repeats=st.none() | st.integers(1, preparation.MAX_REPEATS),
    weight=st.floats(0, preparation.MAX_WEIGHT),
    prefix=st.text(),
    caption=st.text(),
    timesteps=st.none() | st.tuples(st.integers(0, 499), st.integers(500, 1000)),
    regularisation=st.booleans(),
)


@given(
    crops=st.dictionaries(st.text(), crops, max_size=4),
    left_out=st.frozensets(st.text(), max_size=4),
    folders=st.dictionaries(st.text(), options, max_size=3),
)
def test_what_is_written_is_read_again(tmp_path_factory, crops, left_out, folders):
    folder = tmp_path_factory.mktemp("style")
    write(folder, Preparation(crops, left_out, folders))
    assert read(folder) == (Preparation(crops, left_out, folders), [])


@pytest.mark.fault(93)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "invalid JSON"),
        ("{", "invalid JSON"),
        pytest.param(" " * (preparation.MAX_BYTES + 1), "longer than 32 MB", id="too long"),
        ("[]", "should be an object"),
        ("{}", "version: field required"),
        ("[" * 100_000, "recursion limit"),
        ('{"version": 0}', "greater than or equal to 1"),
        ('{"version": 1, "more": 1}', "more: unexpected"),
        ('{"version": 1, "crops": {"a.png": [0, 0, 1]}}', "crops → a.png → 3: field required"),
        ('{"version": 1, "crops": {"a.png": [0, 0, 1.1, 1]}}', "crops → a.png: a crop has 0 ≤ left < right ≤ 1"),
        ('{"version": 1, "crops": {"a.png": [0.5, 0, 0.5, 1]}}', "crops → a.png: a crop has"),
        ('{"version": 1, "crops": {"a.png": [0, NaN, 1, 1]}}', "crops → a.png: a crop has"),
        ('{"version": 1, "left_out": "a.png"}', "left_out: input should be a valid array"),
        ('{"version": 1, "folders": {"": {"repeats": 0}}}', "repeats: input should be greater than or equal to 1"),
        ('{"version": 1, "folders": {"": {"repeats": true}}}', "repeats: input should be a valid integer"),
        ('{"version": 1, "folders": {"": {"weight": 101}}}', "weight: input should be less than or equal to 100"),
        ('{"version": 1, "folders": {"": {"weight": NaN}}}', "weight: input should be"),
        ('{"version": 1, "folders": {"": {"timesteps": [600, 500]}}}', "timesteps: noise levels run from 0 to 1000"),
    ],
)
def test_a_damaged_file_is_named_counts_as_empty_and_is_not_written_over(tmp_path, text, said):
    path = keep(made.style_folder(tmp_path), text)
    chosen, (problem,) = read(tmp_path)
    assert chosen == Preparation() and (problem.severity, problem.file) == ("blocking", NAME)
    assert said in problem.what and "your crops, pictures left out and folder options are not known" in problem.what
    assert "move it away" in problem.do
    with pytest.raises(DatasetError, match="is damaged") as error:
        write(tmp_path, Preparation())
    assert "move it away" in error.value.do and path.read_text("utf-8") == text
    dataset = scan(tmp_path)
    assert dataset.blocking == [problem] and len(dataset.pictures) == 4, "the pictures are still shown"


@pytest.mark.fault(93)
def test_a_file_of_a_later_version_is_named_and_not_written_over(tmp_path):
    path = keep(tmp_path, '{"version": 2, "unknown": []}')
    (problem,) = read(tmp_path)[1]
    assert "later version of the studio (format 2; this one reads 1)" in problem.what and "Update" in problem.do
    with pytest.raises(DatasetError, match="later version"):
        write(tmp_path, Preparation())
    assert path.read_text("utf-8") == '{"version": 2, "unknown": []}'


@pytest.mark.fault(93)
def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / NAME).mkdir(parents=True)
    (problem,) = read(tmp_path)[1]
    assert "cannot be read" in problem.what and problem.do == "Check that you may read it."


@pytest.mark.parametrize(
    "chosen",
    [
        Preparation({"a.png": Crop(0.5, 0, 0.5, 1)}),
        Preparation({"a.png": Crop(0, 0, 1, float("nan"))}),
        Preparation(folders={"": FolderOptions(weight=-1)}),
        Preparation(folders={"": FolderOptions(repeats=0)}),
        Preparation(folders={"": FolderOptions(prefix="\ud800")}),
        Preparation(folders={"": FolderOptions(timesteps=(500, 500))}),
    ],
)
def test_values_out_of_range_are_refused_and_nothing_is_written(tmp_path, chosen):
    with pytest.raises(DatasetError, match="cannot be kept"):
        write(tmp_path, chosen)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_told(tmp_path):
    (tmp_path / ".lora_studio").write_text("a file in the place of the folder")
    with pytest.raises(MachineError, match="cannot be kept"):
        write(tmp_path, Preparation())


def test_pictures_left_out_are_told_apart_and_their_captions_and_masks_are_no_orphans(tmp_path):
    made.style_folder(tmp_path)
    made.painted(mode="L").save(tmp_path / "1-masklabel.png")
    write(tmp_path, Preparation(left_out=frozenset({"1.png", "3.png"})))
    dataset = scan(tmp_path)
    assert names(dataset.pictures, dataset) == ["0.png", "2.png"]
    assert names(dataset.left_out, dataset) == ["1.png", "3.png"]
    left, _ = dataset.left_out
    assert left.caption == "thing 1, ink, paper" and left.mask and (left.width, left.height) == (64, 64)
    (problem,) = dataset.problems
    assert problem.what == "2 pictures are left out, as you chose: 1.png, 3.png." and problem.severity == "left out"


def test_nothing_is_warned_of_about_pictures_left_out(tmp_path):
    made.style_folder(tmp_path, 2, captions=False)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    write(tmp_path, Preparation(left_out=frozenset({"copy.png", "1.png"})))
    dataset = scan(tmp_path)
    assert about(dataset, "no caption").files == ("0.png",) and len(dataset.problems) == 2


@pytest.mark.fault(1)
def test_a_folder_of_which_all_is_left_out_is_blocked(tmp_path):
    made.style_folder(tmp_path, 3)
    write(tmp_path, Preparation(left_out=frozenset({"0.png", "1.png", "2.png"})))
    dataset = scan(tmp_path)
    assert dataset.pictures == [] and len(dataset.left_out) == 3
    (problem,) = dataset.blocking
    assert problem.what == "All 3 pictures are left out." and "Take some in again" in problem.do


@pytest.mark.fault(94)
def test_crops_come_with_their_pictures_unless_they_are_too_small(tmp_path):
    made.style_folder(tmp_path, 3)
    write(tmp_path, Preparation({"0.png": Crop(0.5, 0, 1, 0.5), "1.png": Crop(0, 0, 0.1, 1)}))
    dataset = scan(tmp_path)
    assert [picture.crop for picture in dataset.pictures] == [Crop(0.5, 0, 1, 0.5), None, None]
    (problem,) = dataset.problems
    assert problem.what == "1 crop is smaller than 8 pixels and is not used: 1.png."


@pytest.mark.fault(94)
def test_what_is_no_longer_there_is_named_once_and_stays_in_the_file(tmp_path):
    made.style_folder(tmp_path / "sub", 1)
    made.style_folder(tmp_path, 2)
    chosen = Preparation(
        {"gone.png": Crop(0, 0, 1, 0.5), "sub/0.png": Crop(0, 0, 1, 0.5)},
        frozenset({"1.png", "away.png"}),
        {"sub": FolderOptions(repeats=2), "5_lost": FolderOptions(repeats=2)},
    )
    write(tmp_path, chosen)
    problem = about(scan(tmp_path), "no longer there")
    assert problem.files == ("5_lost", "away.png", "gone.png") and problem.severity == "warning"
    assert read(tmp_path) == (chosen, [])


def test_names_are_found_however_their_accents_are_written(tmp_path):
    made.painted().save(tmp_path / "e\u0301.png")
    made.painted(seed=1).save(tmp_path / "\u00e4.png")
    write(tmp_path, Preparation({"a\u0308.png": Crop(0, 0, 1, 0.5)}, frozenset({"\u00e9.png"})))
    dataset = scan(tmp_path)
    assert names(dataset.left_out, dataset) == ["e\u0301.png"] and dataset.pictures[0].crop
    assert not [problem for problem in dataset.problems if "no longer" in problem.what]


def test_a_folders_options_land_on_its_pictures(tmp_path):
    made.style_folder(tmp_path, 1)
    made.style_folder(tmp_path / "10_ink", 1, captions=False)
    made.style_folder(tmp_path / "0_class", 1, captions=False)
    folders = {
        "10_ink": FolderOptions(repeats=3, prefix="ink,", caption="a boat"),
        "0_class": FolderOptions(repeats=1, weight=0.5, timesteps=(100, 600), regularisation=True),
    }
    write(tmp_path, Preparation(folders=folders))
    dataset = scan(tmp_path)
    own, of_class, ink = dataset.pictures
    assert (own.repeats, own.weight, own.timesteps, own.regularisation, own.prefix) == (1, 1.0, None, False, "")
    assert (ink.repeats, ink.caption, ink.full_caption) == (3, "a boat", "ink, a boat")
    assert (of_class.repeats, of_class.weight, of_class.timesteps) == (1, 0.5, (100, 600))
    assert of_class.regularisation and of_class.caption == "class"
    assert about(dataset, "uses its folder's name").files == ("0_class/0.png",)


def test_a_folder_takes_options_from_the_one_that_it_is_in_unless_it_is_named_or_has_its_own(tmp_path):
    for place in ("a", "a/b", "a/c", "a/plain", "a/4_d"):
        made.style_folder(tmp_path / place, 1)
    folders = {"a": FolderOptions(repeats=5, prefix="x"), "a/c": FolderOptions(weight=2), "a/plain": FolderOptions()}
    write(tmp_path, Preparation(folders=folders))
    dataset = scan(tmp_path, nested=True)
    found = {dataset.name(picture): picture for picture in dataset.pictures}
    assert {name: (picture.repeats, picture.prefix, picture.weight) for name, picture in found.items()} == {
        "a/0.png": (5, "x", 1.0),
        "a/b/0.png": (5, "x", 1.0),
        "a/c/0.png": (5, "", 2.0),
        "a/plain/0.png": (5, "", 1.0),
        "a/4_d/0.png": (4, "", 1.0),
    }


def test_a_prefix_comes_before_every_line_of_a_caption(tmp_path):
    made.style_folder(tmp_path, 2, captions=False)
    (tmp_path / "0.txt").write_text("a boat\na tree")
    write(tmp_path, Preparation(folders={"": FolderOptions(prefix=" ink, ")}))
    assert [picture.full_caption for picture in scan(tmp_path).pictures] == ["ink, a boat\nink, a tree", "ink,"]


def test_a_crop_is_of_the_picture_as_it_is_seen_upright(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # lies on its left side: rotated clockwise to be upright
    made.corners(64, 32).save(tmp_path / "a.png", exif=turned)
    write(tmp_path, Preparation({"a.png": Crop(0, 0, 1, 0.5)}))
    (picture,) = scan(tmp_path).pictures
    assert (picture.width, picture.height) == (32, 64)
    seen = fitted.pixels(picture, Bucket(64, 64))
    assert seen[:, 32, 8].tolist() == [-1, -1, 1] and seen[:, 32, 56].tolist() == [1, -1, -1]  # blue, then red


def test_choices_hold_for_a_scan_that_remembers_and_one_that_compares_content(tmp_path):
    style = made.style_folder(tmp_path / "style", 3)
    scan(style, tmp_path / "cache")
    write(style, Preparation({"0.png": Crop(0, 0, 0.5, 1)}, frozenset({"1.png"})))
    remembered = scan(style, tmp_path / "cache")
    assert remembered == scan(style, tmp_path / "cache", by_content=True) == scan(style)
    assert names(remembered.pictures, remembered) == ["0.png", "2.png"] and remembered.pictures[0].crop
