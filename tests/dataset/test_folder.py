"""Scanning a folder: rows 1 to 22 of the list of faults, each on real files."""

import hashlib
import json
import os
import random
import time
from pathlib import Path

import pytest
from PIL import Image

from lora_studio.dataset import folder, listing, preparation
from lora_studio.dataset.examination import Stamp
from lora_studio.dataset.folder import scan
from lora_studio.dataset.items import Dataset
from lora_studio.dataset.pictures import Facts, open_picture, thumbnail
from lora_studio.dataset.preparation import FolderOptions, Preparation
from tests.dataset import made


def names(dataset: Dataset) -> list[str]:
    return [dataset.name(picture) for picture in dataset.pictures]


def captions(dataset: Dataset) -> dict[str, str]:
    return {dataset.name(picture): picture.caption for picture in dataset.pictures}


def about(dataset: Dataset, words: str):
    """The one problem that says ``words``."""
    (problem,) = [problem for problem in dataset.problems if words in problem.what]
    return problem


def test_a_sound_folder_has_no_problems(tmp_path):
    dataset = scan(made.style_folder(tmp_path))
    assert names(dataset) == ["0.png", "1.png", "2.png", "3.png"] and dataset.problems == []
    first = dataset.pictures[0]
    assert (first.caption, first.repeats, first.width, first.height) == ("thing 0, ink, paper", 1, 64, 64)
    assert first.path == tmp_path.resolve() / "0.png" and len(first.sha256) == 64


@pytest.mark.fault(1)
@pytest.mark.parametrize("content", [{}, {"notes.csv": b"a,b"}, {"a.txt": b"a caption alone"}, {"a.png": b""}])
def test_a_folder_without_pictures_is_blocked(tmp_path, content):
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    assert len(scan(tmp_path).blocking) == 1 and scan(tmp_path).problems[0].severity == "blocking"


def test_what_is_no_folder_is_blocked(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "gone", tmp_path / "file", Path("a\0b")):
        assert "no folder" in scan(path).blocking[0].what


@pytest.mark.fault(2)
def test_missing_captions_are_listed_once_and_a_trigger_word_is_offered(tmp_path):
    made.style_folder(tmp_path, 8, captions=False)
    (tmp_path / "3.txt").write_text("this one has one")
    (tmp_path / "4.txt").write_text(" \n")
    problem = about(scan(tmp_path), "no caption")
    assert problem.files == ("0.png", "1.png", "2.png", "4.png", "5.png", "6.png", "7.png")
    assert (
        problem.what == "7 pictures have no caption: 0.png, 1.png, 2.png, 4.png, 5.png and 2 more."
        and "trigger word" in problem.do
    )


@pytest.mark.fault(3)
def test_orphan_captions_are_named_but_licences_and_readmes_are_not(tmp_path):
    made.style_folder(tmp_path, 2)
    for name in ("lost.txt", "also.caption", "LICENSE.txt", "readme.txt", "README.md", ".hidden.txt"):
        (tmp_path / name).write_text("words")
    problem = about(scan(tmp_path), "have no picture")
    assert sorted(problem.files) == ["also.caption", "lost.txt"] and len(scan(tmp_path).problems) == 1


@pytest.mark.fault(4, 5, 6, 7, 13)
def test_bad_pictures_are_left_out_by_name_with_their_reason_and_keep_their_captions_from_being_orphans(tmp_path):
    made.style_folder(tmp_path, 2)
    (tmp_path / "words.png").write_bytes(b"these are words")
    (tmp_path / "words.txt").write_text("caption of a bad picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "bomb.png").write_bytes(made.claiming_png(11000, 11000))
    (tmp_path / "drawing.svg").write_text("<svg/>")
    made.painted(200, 200).save(tmp_path / "half.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "half.jpg").read_bytes()[:1500])
    dataset = scan(tmp_path)
    assert names(dataset) == ["0.png", "1.png"]
    bad = ["words.png", "empty.jpg", "bomb.png", "drawing.svg", "half.jpg"]
    assert {problem.file: problem.severity for problem in dataset.problems} == dict.fromkeys(bad, "left out")
    assert all(problem.what and problem.do for problem in dataset.problems)


def test_files_that_are_no_pictures_and_never_said_so_are_passed_over(tmp_path):
    made.style_folder(tmp_path, 2)
    for name in (
        "evil.html",
        "data.npz",
        "weights.safetensors",
        "Thumbs.db",
        ".DS_Store",
        "._0.png",
        "notes.docx",
        "LICENCE",
    ):
        (tmp_path / name).write_bytes(b"<script>")
    assert len(scan(tmp_path).pictures) == 2 and scan(tmp_path).problems == []


def test_an_archive_among_the_pictures_is_named(tmp_path):
    made.style_folder(tmp_path, 1)
    (tmp_path / "more.zip").write_bytes(b"PK")
    assert about(scan(tmp_path), "archive was not read").files == ("more.zip",)


def test_pictures_named_like_papers_are_pictures(tmp_path):
    """A poster called notice.png must not vanish as if it were a licence."""
    made.painted().save(tmp_path / "notice.png")
    (tmp_path / "notice.txt").write_text("a poster")
    assert captions(scan(tmp_path)) == {"notice.png": "a poster"} and scan(tmp_path).problems == []


def test_a_picture_under_a_name_without_ending_is_found(tmp_path):
    made.style_folder(tmp_path, 1)
    os.rename(tmp_path / "0.png", tmp_path / "0")
    assert captions(scan(tmp_path)) == {"0": "thing 0, ink, paper"}


@pytest.mark.fault(87)
def test_captions_come_from_txt_then_caption_then_json_then_tables(tmp_path):
    for index, name in enumerate("abcdefg"):
        made.painted(seed=index).save(tmp_path / f"{name}.png")
    write = {
        "a.txt": "a text",
        "a.caption": "a caption",
        "b.CAPTION": "b caption",
        "b.json": '{"caption": "b json"}',
        "c.json": '{"caption": "c json"}',
        "metadata.jsonl": "".join(f'{{"file_name": "{name}.png", "text": "{name} lines"}}\n' for name in "abcd"),
        "metadata.csv": "file_name,text\nd.png,d rows\ne.png,e rows\n",
        "meta_cap.json": '{"e": {"caption": "e cap"}, "/elsewhere/f.png": {"caption": "f cap", "tags": "ink"}}',
    }
    for name, text in write.items():
        (tmp_path / name).write_text(text)
    dataset = scan(tmp_path)
    assert captions(dataset) == {
        "a.png": "a text",
        "b.png": "b caption",
        "c.png": "c json",
        "d.png": "d lines",
        "e.png": "e rows",
        "f.png": "f cap, ink",
        "g.png": "",
    }
    assert [problem.what for problem in dataset.problems] == [
        "1 picture has a .caption and a .json, of which the .caption is used: b.png.",
        "1 picture has a .txt and a .caption, of which the .txt is used: a.png.",
        "3 pictures have different captions in their own files and metadata.jsonl, of which the former are used: "
        "a.png, b.png, c.png.",
        "1 picture has different captions in metadata.jsonl and metadata.csv, of which the former is used: d.png.",
        "1 picture has different captions in metadata.csv and meta_cap.json, of which the former is used: e.png.",
        "1 picture has no caption: g.png.",
    ]


def test_equal_captions_in_two_places_are_no_problem(tmp_path):
    made.style_folder(tmp_path, 1)
    (tmp_path / "metadata.csv").write_text('file_name,text\n0.png,"thing 0, ink,  paper"\n')
    assert captions(scan(tmp_path)) == {"0.png": "thing 0, ink, paper"} and scan(tmp_path).problems == []


def test_a_table_in_another_encoding_is_read_and_named(tmp_path):
    made.style_folder(tmp_path, 1, captions=False)
    (tmp_path / "metadata.csv").write_bytes("file_name;text\r\n0.png;café\r\n".encode("cp1252"))
    dataset = scan(tmp_path)
    assert captions(dataset) == {"0.png": "café"}
    assert [problem.what for problem in dataset.problems] == ["The table is not UTF-8 and was read as Windows Latin."]


def test_tables_name_pictures_in_subfolders_without_their_ending_and_by_whole_paths(tmp_path):
    made.style_folder(tmp_path / "2_a", 3, captions=False)
    (tmp_path / "meta_cap.json").write_text(
        json.dumps({"2_a/0": {"tags": "zero"}, str(tmp_path / "2_a" / "1.png"): {"caption": "one"}})
    )
    (tmp_path / "2_a" / "meta_clean.json").write_text(
        '{"2": {"caption": "two"}, "C:\\\\x\\\\9.png": {"caption": "nine"}}'
    )
    dataset = scan(tmp_path)
    assert captions(dataset) == {"2_a/0.png": "zero", "2_a/1.png": "one", "2_a/2.png": "two"}
    assert [problem.what for problem in dataset.problems] == [
        "1 caption in meta_clean.json is of no picture in the folder: /x/9.png."
    ]


@pytest.mark.fault(88)
def test_what_looks_like_captions_and_is_not_read_is_named(tmp_path):
    made.style_folder(tmp_path, 2)
    (tmp_path / "1.txt").unlink()
    (tmp_path / "1.json").write_text('{"nodes": []}')
    for name in ("captions.json", "0.tags", "train.parquet", "other.csv", "package.npz", "README.json"):
        (tmp_path / name).write_bytes(b"PAR1")
    dataset = scan(tmp_path)
    assert [problem.what for problem in dataset.problems] == [
        "1 file beside a picture is not read as its caption (it has no caption, text or tags): 1.json.",
        "4 files may hold captions and are not read: 0.tags, captions.json, other.csv, train.parquet.",
        "1 picture has no caption: 1.png.",
    ]
    assert "metadata.csv" in dataset.problems[1].do


@pytest.mark.fault(88)
def test_a_table_names_its_faulty_lines_and_its_orphans(tmp_path):
    made.style_folder(tmp_path, 1, captions=False)
    lines = (
        '{"file_name": "0.png", "text": "zero"}',
        "not json",
        '{"file_name": "gone.png", "text": "x"}',
        '{"file_name": "../0.png", "text": "x"}',
    )
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    dataset = scan(tmp_path)
    assert captions(dataset) == {"0.png": "zero"}
    assert (
        about(dataset, "of it is used").what
        == "Not all of it is used: line 2 is not JSON; line 4 names a file outside the folder."
    )
    assert about(dataset, "of no picture").files == ("gone.png",)


def test_repeat_folders_as_kohya_has_them(tmp_path):
    made.style_folder(tmp_path, 1)
    made.style_folder(tmp_path / "10_ink style", 2, captions=False)
    (tmp_path / "10_ink style" / "1.txt").write_text("own words")
    made.painted(seed=9).save(tmp_path / "10_ink style" / "9.png")
    dataset = scan(tmp_path)
    assert [(dataset.name(p), p.repeats, p.caption) for p in dataset.pictures] == [
        ("0.png", 1, "thing 0, ink, paper"),
        ("10_ink style/0.png", 10, "ink style"),
        ("10_ink style/1.png", 10, "own words"),
        ("10_ink style/9.png", 10, "ink style"),
    ]
    assert about(dataset, "folder's name").files == ("10_ink style/0.png", "10_ink style/9.png")


def test_tables_reach_into_repeat_folders_and_may_lie_in_them(tmp_path):
    made.style_folder(tmp_path / "2_a", 3, captions=False)
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "2_a/0.png", "text": "outer"}\n{"file_name": "2_a\\\\1.png", "text": "outer"}\n'
    )
    (tmp_path / "2_a" / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "inner"}\n')
    assert captions(scan(tmp_path)) == {"2_a/0.png": "outer", "2_a/1.png": "inner", "2_a/2.png": "a"}


def test_odd_repeats_and_other_folders_are_named(tmp_path):
    made.style_folder(tmp_path / "0_none", 1)
    made.style_folder(tmp_path / "99999_many", 1)
    made.style_folder(tmp_path / "deep" / "deeper", 1)
    made.style_folder(tmp_path / "3_ok" / "inner", 1)
    dataset = scan(tmp_path)
    assert [(dataset.name(p), p.repeats) for p in dataset.pictures] == [("99999_many/0.png", listing.MAX_REPEATS)]
    assert about(dataset, "0 repeats").do == "Rename it to 1_none to use them."
    assert about(dataset, "99,999 repeats").severity == "warning"
    unread = about(dataset, "not read")
    assert unread.files == ("3_ok/inner", "deep") and "nested" in unread.do
    assert unread.what == "2 subfolders were not read: 3_ok/inner (1 picture), deep (1 picture)."
    assert "directly in this one" in unread.do, "a number before inner would not make it read"


def test_nested_folders_are_read_on_request(tmp_path):
    """With their captions beside them and in tables, and with the repeats of the nearest ``N_name`` folder."""
    made.style_folder(tmp_path / "a", 1)
    for place in ("a/deeper", "3_ink/inner", "b/2_paper", "3_ink/5_pen", "c"):
        made.style_folder(tmp_path / place, 1, captions=False)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a/deeper/0.png", "text": "outer"}\n')
    (tmp_path / "c" / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "inner"}\n')
    dataset = scan(tmp_path, nested=True)
    assert {dataset.name(one): (one.repeats, one.caption) for one in dataset.pictures} == {
        "a/0.png": (1, "thing 0, ink, paper"),
        "a/deeper/0.png": (1, "outer"),
        "c/0.png": (1, "inner"),
        "3_ink/inner/0.png": (3, "ink"),
        "b/2_paper/0.png": (2, "paper"),
        "3_ink/5_pen/0.png": (5, "pen"),
    }
    assert not any("not read" in problem.what for problem in dataset.problems)
    assert names(scan(tmp_path)) == [] and "no picture" in scan(tmp_path).blocking[0].what


@pytest.mark.fault(83)
@pytest.mark.parametrize("nested", [False, True])
def test_a_folder_of_conditions_and_one_within_masks_are_never_read_as_pictures(tmp_path, nested):
    made.style_folder(tmp_path, 2)
    made.style_folder(tmp_path / "Conditioning", 2, captions=False)
    made.style_folder(tmp_path / "masks" / "5_more", 1)
    dataset = scan(tmp_path, nested=nested)
    assert names(dataset) == ["0.png", "1.png"]
    told = {problem.what: problem.do for problem in dataset.problems if "not read" in problem.what}
    assert list(told) == [
        "1 folder of masks within another was not read: masks/5_more (1 picture).",
        "1 folder was not read: Conditioning (2 pictures).",
    ]
    assert not any("nested" in do for do in told.values()), "that would not read them"


def test_a_walk_through_nested_folders_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "MAX_ENTRIES", 9)
    for place in "abcd":
        made.style_folder(tmp_path / place, 1)
    assert [problem.what for problem in scan(tmp_path, nested=True).blocking] == [
        "The folder contains more than 9 files."
    ]


@pytest.mark.fault(16)
def test_links_out_of_the_folder_and_circles_are_skipped_and_counted(tmp_path):
    inside, outside = made.style_folder(tmp_path / "inside", 2), made.style_folder(tmp_path / "outside", 3)
    (inside / "out.png").symlink_to(outside / "2.png")
    (inside / "0.caption").symlink_to(outside / "0.txt")
    (inside / "circle.png").symlink_to(inside / "circle.png")
    (inside / "10_loop").symlink_to(inside, target_is_directory=True)
    (inside / "10_out").symlink_to(outside, target_is_directory=True)
    (inside / "nowhere.png").symlink_to(inside / "nothing.png")
    (inside / "same.png").symlink_to(inside / "0.png")
    dataset = scan(inside)
    assert names(dataset) == ["0.png", "1.png", "same.png"]
    assert about(dataset, "links were skipped").what.startswith("6 links were skipped: ")


def test_the_folder_itself_may_be_a_link(tmp_path):
    made.style_folder(tmp_path / "real", 2)
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert names(scan(tmp_path / "link")) == ["0.png", "1.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_named_like_a_picture_does_not_hang_the_scan(tmp_path):
    made.style_folder(tmp_path, 1)
    os.mkfifo(tmp_path / "pipe.png")
    assert names(scan(tmp_path)) == ["0.png"]


ODD = [
    "with space.png",
    "quote'\".png",
    "emoji 🎨.png",
    "semi;colon & $(rm).png",
    "CON.png",
    "-rf.png",
    "日本語.png",
    "e\u0301.png",
    "x" * 240 + ".png",
    "new\nline.png",
]


@pytest.mark.fault(19)
@pytest.mark.parametrize("name", ODD)
def test_odd_names_work(tmp_path, name):
    made.painted().save(tmp_path / "plain.png")
    os.rename(tmp_path / "plain.png", tmp_path / name)
    (tmp_path / (name[:-4] + ".txt")).write_text("the caption")
    dataset = scan(tmp_path, cache=tmp_path / "cache")
    assert (
        captions(dataset) == {name: "the caption"} and thumbnail(dataset.pictures[0].path, tmp_path / "small").is_file()
    )


def test_accents_may_be_spelled_in_two_ways(tmp_path):
    """macOS decomposes the names of files; a table written elsewhere does not."""
    made.painted().save(tmp_path / "cafe\u0301.png")
    made.painted(seed=1).save(tmp_path / "thé.png")
    (tmp_path / "café.txt").write_text("coffee")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "the\u0301.png", "text": "tea"}', "utf-8")
    assert sorted(captions(scan(tmp_path)).values()) == ["coffee", "tea"]


def test_a_name_that_is_no_text_is_left_out_and_said(tmp_path):
    made.style_folder(tmp_path, 1)
    with open(os.fsencode(tmp_path) + b"/\xff\xfe.png", "wb") as file:
        file.write((tmp_path / "0.png").read_bytes())
    dataset = scan(tmp_path)
    assert names(dataset) == ["0.png"] and about(dataset, "not valid Unicode").severity == "left out"


@pytest.mark.fault(18, 20)
@pytest.mark.parametrize(
    ("data", "text", "said"),
    [
        ("\ufeffcafé".encode(), "café", ""),
        ("café".encode("utf-16"), "café", ""),
        ("a café".encode("utf-16-le"), "a café", "1 caption is not UTF-8 and was read as UTF-16: 0.txt."),
        ("café “ink”".encode("cp1252"), "café “ink”", "1 caption is not UTF-8 and was read as Windows Latin: 0.txt."),
        (b"caf\xe9 \x81", "café", "1 caption is not UTF-8 and was read as Latin-1: 0.txt."),
        (b"two\r\nlines\t here \n", "two\nlines here", ""),
        (b"x" * 100_000, "", "The file is longer than 64 KiB and was not read."),
        (b'<img src=x onerror=alert(1)> **bold** & "q"', '<img src=x onerror=alert(1)> **bold** & "q"', ""),
    ],
)
def test_captions_in_any_encoding_are_read_or_named(tmp_path, data, text, said):
    made.style_folder(tmp_path, 1)
    (tmp_path / "0.txt").write_bytes(data)
    dataset = scan(tmp_path)
    assert captions(dataset) == {"0.png": text}
    assert [problem.what for problem in dataset.problems if problem.file == "0.txt"] == [said] * bool(said)


@pytest.mark.fault(15)
def test_equal_and_similar_pictures_are_grouped_and_kept(tmp_path):
    made.style_folder(tmp_path, 6)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    (tmp_path / "copy.txt").write_text("copy")
    made.painted(seed=1).resize((90, 90)).save(tmp_path / "like.jpg", quality=80)
    (tmp_path / "like.txt").write_text("like")
    dataset = scan(tmp_path)
    assert len(dataset.pictures) == 8
    assert about(dataset, "identical files").files == ("0.png", "copy.png")
    assert about(dataset, "almost the same").files == ("1.png", "like.jpg") and len(dataset.problems) == 2


@pytest.mark.fault(12)
def test_remarks_of_several_pictures_are_one_warning(tmp_path):
    for index in range(3):
        frames = [made.painted(seed=9 * index + frame) for frame in (0, 1)]
        frames[0].save(tmp_path / f"{index}.gif", save_all=True, append_images=frames[1:])
    problem = about(scan(tmp_path), "several frames")
    assert problem.files == ("0.gif", "1.gif", "2.gif") and problem.severity == "warning"


def test_too_many_pictures_block(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "MAX_PICTURES", 3)
    (problem,) = scan(made.style_folder(tmp_path)).problems
    assert problem.severity == "blocking" and "contains 4 pictures" in problem.what


def test_an_endless_folder_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "MAX_ENTRIES", 5)
    assert "more than 5 files" in scan(made.style_folder(tmp_path)).blocking[0].what


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    """Forbidden, or on a drive that was just unplugged: the folder blocks, an ``N_name`` folder in it is left out."""
    made.style_folder(tmp_path, 1)
    made.style_folder(tmp_path / "2_ink", 1)
    scandir = os.scandir

    def forbidding(locked):
        def guarded(path):
            if path == locked:
                raise PermissionError(13, "Permission denied")
            return scandir(path)

        return guarded

    for locked, severity, left in ((tmp_path, "blocking", []), (tmp_path / "2_ink", "left out", ["0.png"])):
        monkeypatch.setattr(listing.os, "scandir", forbidding(locked))
        dataset = scan(tmp_path)
        assert about(dataset, "cannot be read: Permission denied").severity == severity and names(dataset) == left


def test_a_second_scan_reads_only_what_changed(tmp_path, monkeypatch):
    made.style_folder(tmp_path / "style", 4)
    first = scan(tmp_path / "style", cache=tmp_path / "cache")
    made.painted(40, 30, seed=20).save(tmp_path / "style" / "2.png")
    (tmp_path / "style" / "3.txt").write_text("other words")
    read = []
    examine = folder.pictures.examine
    monkeypatch.setattr(folder.pictures, "examine", lambda path: read.append(path.name) or examine(path))
    second = scan(tmp_path / "style", cache=tmp_path / "cache")
    assert read == ["2.png"] and names(second) == names(first) and second.pictures[:2] == first.pictures[:2]
    assert (second.pictures[2].width, second.pictures[3].caption) == (40, "other words")


def replaced(path, how):
    """Puts another picture of the same size and time of change in the place of ``path``."""
    before, other = path.stat(), path.with_name("other")
    made.painted(40, 40, seed=30).save(other, "BMP")
    if how == "rewritten":
        path.write_bytes(other.read_bytes())
        other.unlink()
    else:
        os.replace(other, path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.fault(82)
@pytest.mark.parametrize("how", ["rewritten", "renamed"])
@pytest.mark.parametrize("stamped", [True, False])
def test_a_picture_of_the_same_size_and_time_is_noticed(tmp_path, monkeypatch, how, stamped):
    """By what the system notes itself; where it notes nothing, by content before training."""
    style, cache = tmp_path / "style", tmp_path / "cache"
    style.mkdir()
    made.painted(40, 40, seed=1).save(style / "0.bmp")
    if not stamped:
        monkeypatch.setattr(Stamp, "of", classmethod(lambda cls, status: cls(status.st_size, status.st_mtime_ns, 0, 0)))
    first = scan(style, cache).pictures[0].sha256
    replaced(style / "0.bmp", how)
    assert (scan(style, cache).pictures[0].sha256 != first) == stamped
    now = hashlib.sha256((style / "0.bmp").read_bytes()).hexdigest()
    assert scan(style, cache, by_content=True).pictures[0].sha256 == now != first
    assert scan(style, cache).pictures[0].sha256 == now, "what is remembered was corrected"


def test_a_scan_by_content_decodes_nothing_that_is_the_same(tmp_path, monkeypatch):
    made.style_folder(tmp_path / "style", 3)
    first = scan(tmp_path / "style", tmp_path / "cache")
    monkeypatch.setattr(folder.pictures, "examine", lambda path: pytest.fail("it was decoded again"))
    assert scan(tmp_path / "style", tmp_path / "cache", by_content=True) == first


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1, 2", b'{"0.png": [1, 2, {"width": "x"}]}'])
def test_a_damaged_memory_of_the_scan_is_made_again(tmp_path, damage):
    made.style_folder(tmp_path / "style", 2)
    first = scan(tmp_path / "style", cache=tmp_path / "cache")
    (memory,) = (tmp_path / "cache").iterdir()
    good = memory.read_bytes()
    memory.write_bytes(damage)
    assert scan(tmp_path / "style", cache=tmp_path / "cache") == first and memory.read_bytes() == good


def test_a_memory_that_cannot_be_written_is_a_warning(tmp_path):
    made.style_folder(tmp_path / "style", 2)
    (tmp_path / "cache").write_text("a file stands where the folder should")
    assert about(scan(tmp_path / "style", cache=tmp_path / "cache"), "could not be saved").severity == "warning"


def test_progress_reaches_the_end(tmp_path):
    told = []
    scan(made.style_folder(tmp_path, 5), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


@pytest.mark.fault(22)
def test_five_thousand_pictures_scan_again_in_a_moment(tmp_path, monkeypatch):
    """The page scans at every visit (row 22): 5,000 remembered pictures take under a second, here with room for a busy
    machine.
    """
    style, shuffle = tmp_path / "style", random.Random(0)
    style.mkdir()
    for index in range(5000):
        (style / f"{index}.jpg").touch()
    (style / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{index}.jpg", "text": "thing {index}"}}\n' for index in range(5000))
    )
    monkeypatch.setattr(
        folder.pictures,
        "examine",
        lambda path: Facts(512, 512, f"{shuffle.getrandbits(256):064x}", f"{shuffle.getrandbits(152):038x}"),
    )
    scan(style, cache=tmp_path / "cache")
    monkeypatch.setattr(folder.pictures, "examine", lambda path: pytest.fail("it was read again"))
    began = time.process_time()
    assert len(scan(style, cache=tmp_path / "cache").pictures) == 5000
    assert time.process_time() - began < 5


def test_forty_pictures_scan_in_under_a_second(tmp_path):
    for index in range(40):
        made.painted(512, 512, seed=index).save(tmp_path / f"{index}.jpg")
    began = time.process_time()
    assert len(scan(tmp_path).pictures) == 40
    assert time.process_time() - began < 2, "processor seconds, of which two cores spend two a second"


def test_scanning_brings_no_torch_along():
    """The page scans, and must be up before torch is."""
    import subprocess
    import sys

    code = "import sys; from lora_studio.dataset import buckets, folder, manifest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_image_opened_by_scan_is_the_picture_on_disk(tmp_path):
    made.corners().save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert open_picture(scan(tmp_path).pictures[0].path).tobytes() == stored.convert("RGB").tobytes()


def with_options(folder, **options):
    preparation.write(folder, Preparation(folders={name: FolderOptions(**one) for name, one in options.items()}))


def test_a_folder_without_weight_is_left_out_and_named(tmp_path):
    made.style_folder(tmp_path, 2)
    for index in range(2, 5):
        made.style_folder(tmp_path / "2_ink", 1)
        made.painted(seed=index).save(tmp_path / "2_ink" / f"{index}.png")
    (tmp_path / "2_ink" / "0.png").unlink()
    with_options(tmp_path, **{"2_ink": {"weight": 0.0}})
    dataset = scan(tmp_path)
    assert names(dataset) == ["0.png", "1.png"] and len(dataset.left_out) == 3
    assert about(dataset, "weight").what == (
        "3 pictures are left out, since the weight of their folder is 0: 2_ink/2.png, 2_ink/3.png, 2_ink/4.png."
    )


def test_class_pictures_alone_cannot_be_trained_on(tmp_path):
    made.style_folder(tmp_path / "1_man", 2, captions=False)
    with_options(tmp_path, **{"1_man": {"regularisation": True}})
    assert [problem.kind for problem in scan(tmp_path).blocking] == ["class pictures"]
    made.style_folder(tmp_path, 1)
    assert not scan(tmp_path).blocking


def test_class_pictures_without_a_caption_are_not_said_to_have_the_trigger_word(tmp_path):
    made.style_folder(tmp_path, 1)
    made.style_folder(tmp_path / "man", 1, captions=False)
    with_options(tmp_path, man={"regularisation": True})
    found = about(scan(tmp_path, nested=True), "no caption")
    assert found.what == "1 class picture has no caption: man/0.png." and "trigger" not in found.do
