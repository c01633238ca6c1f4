"""An upload becomes a dataset in which every caption is still beside its picture, whatever the files were called."""

import json
import re
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lora_studio.dataset import caption_tables, folder, intake, masks, pictures, preparation
from lora_studio.dataset.preparation import Crop, FolderOptions, Preparation
from lora_studio.errors import DatasetError

MIDJOURNEY = (
    "ana_a_tall_lighthouse_on_a_cliff_at_dusk_in_the_style_of_old_copper_engravings_fine_hatching_2f1c9a7e-{}.png"
)
A1111 = "0000{}-1234567890-masterpiece, best quality, (ink_1.2), a fox _ in the snow, <lora_style_0.8>, highly detailed"
"""Names as Midjourney and A1111 give them: far longer than 60 characters."""
STEMS = [
    *(MIDJOURNEY.format(number).removesuffix(".png") for number in range(3)),
    *(A1111.format(number) for number in range(3)),
    "a b", "a?b", "a-b", "a-b-2", "CON", "été", "あ" * 80, "🎨", "v1.5 final", "Fox",
]  # fmt: skip


def picture(path, shade):
    """A small picture that no other shade's resembles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (shade % 256, shade * 7 % 256, shade * 31 % 256)).save(path, "PNG")
    return path


def packed(path, root):
    with zipfile.ZipFile(path, "w") as archive:
        for found in sorted(root.rglob("*")):
            archive.write(found, found.relative_to(root).as_posix())
    return path


def captions_by_content(root):
    """What the scan of a dataset gives each picture, by its bytes."""
    dataset = folder.scan(root)
    assert not dataset.blocking
    return {one.sha256: one.caption for one in dataset.pictures}


def taken(tmp_path, source, kind):
    """The files of ``source`` as an upload: loose, in one ZIP, or in a ZIP with one folder around them."""
    target = tmp_path / "kept"
    target.mkdir()
    if kind == "loose":
        intake.fill(target, sorted(path for path in source.rglob("*") if path.is_file()))
    else:
        root = source if kind == "zip" else source.parent
        intake.fill(target, [packed(tmp_path / "My Style.zip", root)])
    return target


def table(name: str, texts: dict[str, str]) -> str:
    """The table ``name`` with the captions of pictures by their stems."""
    if name == "metadata.csv":
        return "file_name,text\n" + "".join(f'"{stem}.png","{text}"\n' for stem, text in texts.items())
    if name == "meta_cap.json":
        return json.dumps({stem: {"caption": text} for stem, text in texts.items()})
    return "\n".join(json.dumps({"file_name": f"{stem}.png", "text": text}) for stem, text in texts.items())


@pytest.mark.fault(85)
@pytest.mark.fault(19)
@pytest.mark.parametrize("kind", ["loose", "zip", "zip of a folder"])
@pytest.mark.parametrize(
    "caption", [".txt", ".caption", ".json", ".png.txt", "metadata.jsonl", "metadata.csv", "meta_cap.json"]
)
def test_long_and_odd_names_keep_their_ending_and_their_caption(tmp_path, kind, caption):
    """The whole name was cut to 60 characters: pictures lost their ending, and all of them their captions."""
    source = tmp_path / "source" / "My Style"
    for shade, stem in enumerate(STEMS):
        picture(source / f"{stem}.png", shade)
        if caption.startswith("."):
            text = json.dumps(f"caption {shade}") if caption == ".json" else f"caption {shade}"
            (source / f"{stem}{caption}").write_text(text)
    if not caption.startswith("."):
        (source / caption).write_text(table(caption, {stem: f"caption {shade}" for shade, stem in enumerate(STEMS)}))
    root = taken(tmp_path, source, kind)
    kept = [path for path in root.rglob("*") if path.suffix == ".png"]
    assert len(kept) == len(STEMS) and all(len(path.stem) <= 63 for path in kept)
    if caption == ".png.txt":
        told = {pictures.examine(path).sha256: path.with_name(f"{path.name}.txt").read_text() for path in kept}
    else:
        told = captions_by_content(root)
    wanted = {pictures.examine(source / f"{stem}.png").sha256: f"caption {shade}" for shade, stem in enumerate(STEMS)}
    assert told == wanted


@pytest.mark.fault(85)
def test_folders_of_one_name_keep_their_pictures_and_captions_apart(tmp_path):
    """Numbering file by file, the one caption went to the other folder's picture."""
    source = tmp_path / "source"
    first, second = picture(source / "a" / "10_ink" / "1.png", 1), picture(source / "b" / "10_ink" / "1.png", 2)
    second.with_suffix(".txt").write_text("the second")
    root = taken(tmp_path, source, "zip")
    dataset = folder.scan(root)
    assert captions_by_content(root) == {
        pictures.examine(first).sha256: "ink",
        pictures.examine(second).sha256: "the second",
    }
    assert {one.repeats for one in dataset.pictures} == {10}


@pytest.mark.fault(85)
def test_files_of_one_name_from_several_folders_are_paired_in_their_order(tmp_path):
    """A browser sends names without folders."""
    made = [picture(tmp_path / str(number) / "1.png", number) for number in range(3)]
    for path in made:
        path.with_suffix(".txt").write_text(f"caption {path.parent.name}")
    target = tmp_path / "kept"
    target.mkdir()
    intake.fill(target, [*made, *(path.with_suffix(".txt") for path in made)])
    assert captions_by_content(target) == {
        pictures.examine(path).sha256: f"caption {path.parent.name}" for path in made
    }


def test_a_concept_keeps_its_repeats_and_its_words(tmp_path):
    """The name of kohya's folder is the caption of pictures without one: "ohwx woman", not "ohwx-woman"."""
    source = tmp_path / "source"
    for number, name in enumerate(("20_ohwx woman", "3_🎨", "notes", "5_" + ("long " * 30).strip())):
        picture(source / "My Style" / name / "1.png", number)
    dataset = folder.scan(taken(tmp_path, source, "zip"))
    assert {(one.repeats, one.caption) for one in dataset.pictures} == {
        (20, "ohwx woman"),
        (3, "style"),
        (1, ""),
        (5, ("long " * 30)[:58].strip()),
    }


@pytest.mark.fault(84)
def test_tables_of_several_folders_become_one(tmp_path):
    source = tmp_path / "source"
    for shade, name in enumerate(("a b.png", "10_ink/c d.png", "deep/e.png", "x/a b.png")):
        picture(source / name, shade)
    (source / caption_tables.JSONL).write_text(
        '{"file_name": "a b.png", "text": "one", "license": "CC0"}\n'
        '{"file_name": "./10_ink/c d.png", "text": "not this"}\n'
        '{"file_name": "gone.png", "text": "x"}\n{"file_name": "../a b.png", "text": "x"}\nno JSON\n'
    )
    (source / "10_ink" / caption_tables.JSONL).write_text('{"file_name": "c d.png", "text": "two"}')
    (source / "deep" / caption_tables.JSONL).write_bytes('{"file_name": "e.png", "text": "größe"}'.encode("utf-16"))
    (source / "x" / caption_tables.JSONL).write_text('{"file_name": "a b.png", "caption": "four"}')
    root = taken(tmp_path, source, "zip")
    assert sorted(captions_by_content(root).values()) == ["four", "größe", "one", "two"]
    assert "CC0" in (root / caption_tables.JSONL).read_text("utf-8")
    told = " ".join(problem.what for problem in folder.scan(root).problems)
    assert "gone.png" in told and "is not JSON" in told and "outside the folder" in told


@pytest.mark.fault(88)
def test_what_is_wrong_with_tables_of_an_upload_is_still_named(tmp_path):
    source = tmp_path / "source"
    for shade in range(2):
        picture(source / f"{shade}.png", shade)
    (source / "metadata.csv").write_text("file_name,text\n0.png,row\nb.png\n")
    (source / "meta_cap.json").write_text('{"/home/me/set/0.png": {"caption": "cap"}, "1": {"tags": "ink"}, "2": 3}')
    (source / "old.tags").write_text("ink")
    root = taken(tmp_path, source, "zip")
    assert sorted(captions_by_content(root).values()) == ["ink", "row"]
    assert [problem.what for problem in folder.scan(root).problems] == [
        "Not all of it is used: line 2 is not JSON; line 3 names 0.png again; line 5 is not JSON.",
        "1 file may hold captions and is not read: old.tags.",
    ]
    assert (root / "metadata.jsonl").read_text().splitlines()[1] == "metadata.csv: line 3 has no text"


def test_a_table_finds_what_the_browser_renamed(tmp_path):
    """The page's upload drops signs such as # from names before we see them."""
    one, other = picture(tmp_path / "cat1.png", 1), picture(tmp_path / "dog.png", 2)
    table = tmp_path / caption_tables.JSONL
    table.write_text('{"file_name": "cat#1.png", "text": "a cat"}\n{"file_name": "d%o%g.png", "text": "a dog"}')
    target = tmp_path / "kept"
    target.mkdir()
    intake.fill(target, [one, other, table])
    assert sorted(captions_by_content(target).values()) == ["a cat", "a dog"]


def test_a_table_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_tables, "MAX_BYTES", 10)
    picture(tmp_path / "a.png", 1)
    (tmp_path / caption_tables.JSONL).write_text('{"file_name": "a.png", "text": "a cat"}')
    (tmp_path / "kept").mkdir()
    with pytest.raises(DatasetError, match="metadata.jsonl is longer"):
        intake.fill(tmp_path / "kept", [tmp_path / "a.png", tmp_path / caption_tables.JSONL])


@pytest.mark.fault(84)
def test_pictures_that_are_not_read_are_named_by_the_scan(tmp_path):
    """A ZIP from a phone silently lost its HEIC pictures."""
    source = tmp_path / "source"
    picture(source / "a.png", 1)
    (source / "b.heic").write_bytes(b"x")
    (source / "c.docx").write_bytes(b"x")
    root = taken(tmp_path, source, "zip")
    assert sorted(path.name for path in root.iterdir()) == ["a.png", "b.heic"]
    assert any("HEIC" in problem.what for problem in folder.scan(root).problems)


@pytest.mark.parametrize(("uploaded", "name"), [
    (["ink_01.png", "ink_02.png", "ink_02.txt"], "ink"),
    (["My Style.zip"], "My Style"),
    (["a.png"], "a"),
    (["a.png", "notes.txt", "metadata.jsonl"], "a"),
    (["fox in snow.png", "fox in rain.png"], "fox-in"),
    (["ink 2 a.png", "ink 2 b.jpg"], "ink-2"),
    (["cat.png", "dog.png"], "upload"),
    (["1.png", "1_2.png"], "upload"),
    (["castle.png", "cat.png"], "upload"),
    (["a.txt", "b.txt"], "upload"),
])  # fmt: skip
def test_a_dataset_is_called_as_its_pictures_are(uploaded, name):
    """Loose uploads were called pictures, pictures-2, pictures-3 …"""
    assert intake.suggest_name([Path(one) for one in uploaded], "upload") == name


NAMES = st.builds(
    lambda parts, stem, ending: PurePosixPath(
        *parts, (stem.replace("/", "-").replace("\0", "").lstrip(".") or "x") + ending
    ),
    st.lists(st.sampled_from(["a", "10_ink", "10_Ink", "2_x y", "masks", "Mask"]), max_size=2),
    st.one_of(
        st.sampled_from(
            [
                "a",
                "A",
                "é",
                unicodedata.normalize("NFD", "é"),
                "x" * 70,
                "x" * 71,
                "a_mask",
                "a-Mask",
                "a-masklabel",
                "a.png",
            ]
        ),
        st.text(max_size=5),
    ),
    st.sampled_from([".png", ".PNG", ".jpg", ".txt", ".caption", ".png.txt"]),
)


@pytest.mark.parametrize("names, new", [
    (["\u00e9.png", "e\u0301.png", "e\u0301.txt"], ["\u00e9.png", "\u00e9-2.png", "\u00e9-2.txt"]),
    (["\u00e9.png", "e\u0301.txt"], ["\u00e9.png", "\u00e9.txt"]),
    (["a.png", "A.txt", "A.jpg", "a.txt"], ["a.png", "A-2.txt", "A-2.jpg", "a.txt"]),
    (["a.png", "A.txt"], ["a.png", "a.txt"]),
])  # fmt: skip
def test_names_that_differ_in_case_or_accents_are_one_unless_each_has_a_picture(names, new):
    """One picture's caption goes to the other."""
    assert list(map(str, intake.new_names([PurePosixPath(name) for name in names]))) == new


@pytest.mark.fault(19, 61)
@given(st.lists(NAMES, max_size=12))
def test_new_names_are_safe_and_different_and_keep_what_belongs_together(names):
    new = intake.new_names(names)
    assert len({unicodedata.normalize("NFC", str(one)).casefold() for one in new}) == len(names)
    for old, one in zip(names, new, strict=True):
        assert one.name.endswith(old.suffix) and len(one.parts) <= 3 and ".." not in one.parts and not one.is_absolute()
        assert not re.search(r'[<>:"\\|?*\x00-\x1f]', one.name) and len(one.name.encode()) <= 255
    if len(set(map(str.casefold, map(str, names)))) == len(names):
        for old, one in zip(names, new, strict=True):
            for other, two in zip(names, new, strict=True):
                if old.parent == other.parent and old.stem == other.stem and not masks.may_be(str(old.with_suffix(""))):
                    assert one.with_suffix("") == two.with_suffix("")


@given(st.lists(NAMES, max_size=12))
def test_each_picture_has_the_masks_that_it_had_and_no_others(names):
    """Of pictures whose names end in _mask some are masks, and some were in another folder."""
    plain = dict.fromkeys(unicodedata.normalize("NFC", str(name)).casefold() for name in names)
    shown = [PurePosixPath(name) for name in plain if pictures.promises(name)]
    new = dict(zip(map(str, shown), map(str, intake.new_names(shown)), strict=True))

    def pairs(all_names):
        owners, covers = masks.find(all_names), masks.among(all_names)
        shown = [name for name in all_names if name not in covers]
        return {(picture, mask) for picture in shown for mask in owners.get(masks.key(picture), [])}

    assert {(new[picture], new[mask]) for picture, mask in pairs([*new])} == pairs([*new.values()])


def test_masks_stay_with_their_pictures(tmp_path):
    """A long name was cut before ``-masklabel``; sd-scripts' folders of masks were mixed among the pictures."""
    source, long = tmp_path / "source", "a" * 70
    made = [f"{long}.png", f"{long}-masklabel.png", "b.png", "Mask/b.png", "c.png", "c_mask.png", "d_mask.png"]
    made += ["10_ink/b.png", "10_ink/masks/b.png", "inner/b.png", "inner/b-mask.png", "inner/masks/b-masklabel.png"]
    for number, name in enumerate(made):
        picture(source / "My Style" / name, number)
    dataset = folder.scan(taken(tmp_path, source, "zip"))
    root = dataset.folder
    assert {
        dataset.name(one): one.mask.path.relative_to(root).as_posix() if one.mask else "" for one in dataset.pictures
    } == {
        "10_ink/b.png": "10_ink/masks/b.png",
        "a" * 60 + ".png": "a" * 60 + "-masklabel.png",
        "b.png": "mask/b.png",
        "b-2.png": "b-2-mask.png",
        "c.png": "c_mask.png",
        "d_mask.png": "",
    }
    assert (root / "masks" / "b-2-masklabel.png").is_file()


@pytest.mark.parametrize("suffix", sorted(pictures.SUFFIXES))
def test_every_format_is_taken_from_a_zip_as_from_a_folder(tmp_path, suffix):
    """``.jfif`` vanished. Programs read a picture by its content."""
    source = tmp_path / "source"
    picture(source / f"a{suffix}", 1)
    assert len(folder.scan(taken(tmp_path, source, "zip")).pictures) == 1 and suffix in intake.TYPES


def test_what_is_not_taken_is_named(tmp_path):
    source = tmp_path / "source"
    picture(source / "a.png", 1)
    for name in ("b.docx", "inner.zip", "LICENSE.md", "film.mp4"):
        (source / name).write_bytes(b"x")
    (tmp_path / "kept").mkdir()
    (problem,) = intake.fill(tmp_path / "kept", [packed(tmp_path / "a.zip", source)])
    assert problem.files == ("b.docx", "film.mp4", "inner.zip") and problem.severity == "left out"


def test_a_zip_in_a_zip_is_named_and_files_of_the_system_are_not(tmp_path):
    picture(tmp_path / "style" / "a.png", 1)
    for name in ("Thumbs.db", "desktop.ini", "notes.docx"):
        (tmp_path / "style" / name).write_bytes(b"x")
    target = tmp_path / "kept"
    target.mkdir()
    (problem,) = intake.fill(target, [packed(tmp_path / "style.zip", tmp_path / "style")])
    assert problem.what == "1 file is neither a picture nor a caption and was not taken: notes.docx."
    assert "ZIP" not in problem.do
    (tmp_path / "outer").mkdir()
    (tmp_path / "style.zip").rename(tmp_path / "outer" / "style.zip")
    with pytest.raises(DatasetError, match=r"holds no pictures. .*It holds ZIPs. Unpack them first."):
        intake.fill(target, [packed(tmp_path / "outer.zip", tmp_path / "outer")])


def test_a_refused_zip_is_named_as_its_owner_knows_it(tmp_path):
    """An upload lies in a folder of the page's own, under a long hash."""
    (tmp_path / "style.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError) as raised:
        intake.fill(tmp_path, [tmp_path / "style.zip"])
    assert raised.value.where == "style.zip"


def test_choices_in_a_zip_come_along_under_the_new_names(tmp_path):
    source = tmp_path / "packed" / "My Style"
    for shade, name in enumerate(("a b?.png", "sub/c.png", "10_ink/d.png", "e.png")):
        picture(source / name, shade + 1)
    chosen = Preparation(
        {"a b?.png": Crop(0, 0, 0.5, 1), "10_ink/d.png": Crop(0, 0.5, 1, 1), "gone.png": Crop(0, 0, 1, 0.5)},
        frozenset({"sub/c.png"}),
        {"": FolderOptions(prefix="ink,"), "10_ink": FolderOptions(repeats=2), "sub": FolderOptions(weight=2)},
    )
    preparation.write(source, chosen)
    (source / ".DS_Store").write_bytes(b"x")
    target = tmp_path / "kept"
    target.mkdir()
    (problem,) = intake.fill(target, [packed(tmp_path / "My Style.zip", source.parent)])
    assert preparation.read(target) == (
        Preparation(
            {"a-b.png": Crop(0, 0, 0.5, 1), "10_ink/d.png": Crop(0, 0.5, 1, 1)},
            frozenset({"c.png"}),
            {"": FolderOptions(prefix="ink,"), "10_ink": FolderOptions(repeats=2)},
        ),
        [],
    )
    assert problem.kind == "not taken" and problem.files == ("gone.png", "sub")
    dataset = folder.scan(target)
    assert [dataset.name(one) for one in dataset.pictures] == ["a-b.png", "e.png", "10_ink/d.png"]


def test_damaged_choices_in_a_zip_are_named_and_the_pictures_are_taken(tmp_path):
    source = tmp_path / "style"
    picture(source / "a.png", 1)
    (source / ".lora_studio").mkdir()
    (source / preparation.NAME).write_text("{")
    target = tmp_path / "kept"
    target.mkdir()
    (problem,) = intake.fill(target, [packed(tmp_path / "style.zip", source)])
    assert problem.kind == "preparation" and "damaged" in problem.what
    assert sorted(path.name for path in target.iterdir()) == ["a.png"]
