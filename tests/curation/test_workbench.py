"""The one writer of a dataset: it changes what was asked for, nothing else, and takes every step back."""

import codecs
import hashlib
import io
import json
import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from lora_studio import files
from lora_studio.curation.workbench import Workbench
from lora_studio.dataset import folder, preparation
from lora_studio.dataset.preparation import Crop, FolderOptions
from lora_studio.errors import DatasetError, MachineError

PNG = b"\x89PNG mask"


def hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every file but the studio's own."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and ".lora_studio" not in path.parts
    }


def made(root: Path, contents: dict[str, bytes | str]) -> Workbench:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    bench = Workbench(root)
    bench.allow()
    return bench


def picture(*size: int, orientation: int = 1) -> bytes:
    """A JPEG of these pixels, to be turned as its EXIF data say."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(out, "JPEG", exif=exif)
    return out.getvalue()


def changed(root: Path, before: dict[str, str]) -> set[str]:
    after = hashes(root)
    return {name for name in before | after if before.get(name) != after.get(name)}


JSONL = '{"file_name": "a.png", "text": "a cat", "n": 1.50}\r\n\r\n{"file_name":"b.png","x":[1],"text":"a \\u00e9"}'
META = '{\n  "a": {"tags": "ink, cat",  "caption": "a cat"},\n  "b": {"caption": "b", "train_resolution": [1, 2]}\n}\n'


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("a.txt", "a cat", "a dog"),
        ("a.txt", "a cat\n", "a dog\n"),
        ("a.txt", "\r\n  a cat\r\n\r\nink\r\n", "a dog\r\n"),
        ("a.TXT", "a cat\r", "a dog\r"),
        ("a.caption", "a cat\n\n", "a dog\n"),
        ("a.txt", codecs.BOM_UTF8 + b"a cat", codecs.BOM_UTF8 + b"a dog"),
        (
            "a.txt",
            codecs.BOM_UTF16_BE + "a cat\n".encode("utf-16-be"),
            codecs.BOM_UTF16_BE + "a dog\n".encode("utf-16-be"),
        ),
        ("a.txt", "a cat".encode("utf-16-le"), "a dog".encode("utf-16-le")),
        ("a.txt", "chat d'été".encode("cp1252"), "a dog"),
        ("a.json", '{"n": 1e2, "caption": "a cat"}', '{"n": 1e2, "caption": "a dog"}'),
        ("a.json", '{"caption": ["a cat"], "score": 0.10}', '{"caption": ["a dog"], "score": 0.10}'),
        ("a.json", '["a cat", "ink"]', '["a dog"]'),
        ("a.json", '"a cat"\n', '"a dog"'),
        ("a.json", '{"captions": {"blip": "a cat"}}', '{"captions": {"blip": "a dog"}}'),
        ("a.json", '{ "tags": ["a cat", "ink"] }', '{ "tags": ["a dog"] }'),
        ("metadata.jsonl", JSONL, JSONL.replace("a cat", "a dog")),
        (
            "metadata.jsonl",
            codecs.BOM_UTF8 + JSONL.encode(),
            codecs.BOM_UTF8 + JSONL.replace("a cat", "a dog").encode(),
        ),
        ("metadata.csv", 'file_name;text;n\r\nb.png;"x;\r\ny";2\r\na.png;a cat;1\r\n', None),
        ("metadata.csv", '"file_name","text"\n"a.png","a cat"', None),
        ("meta_cap.json", META, META.replace('"a cat"', '"a dog"').replace('"ink, cat"', '""')),
    ],
)
def test_a_caption_is_written_where_it_came_from(tmp_path, file, before, after):
    bench = made(tmp_path, {file: before, "a.png": "1", "b.png": "2", "c.txt": "c", "c.png": "3"})
    earlier = hashes(tmp_path)
    done = bench.edit_captions({"a.png": "a dog"})
    assert (done.names, done.sentence) == (("a.png",), "1 caption changed.")
    assert changed(tmp_path, earlier) == {file}
    expected = before.replace("a cat", "a dog") if after is None else after
    if not isinstance(expected, bytes):
        expected = expected.encode()
    assert (tmp_path / file).read_bytes().rstrip(b"\n") == expected.rstrip(b"\n")
    assert bench.captions(["a.png"]) == {"a.png": "a dog"}
    bench.undo()
    assert hashes(tmp_path) == earlier


def test_a_caption_that_does_not_fit_its_encoding_is_told(tmp_path):
    bench = made(tmp_path, {"a.txt": "chat d'été\n".encode("cp1252"), "a.png": "1"})
    done = bench.edit_captions({"a.png": "猫"})
    assert (tmp_path / "a.txt").read_bytes() == "猫\n".encode()
    assert done.notes == ("a.txt is in UTF-8 now: its new caption does not fit Windows Latin.",)


@pytest.mark.parametrize(
    ("caption", "tags", "new", "stays"),
    [
        ("a cat", "ink, gold", "x, a cat, ink, gold", {"caption": "x, a cat", "tags": "ink, gold"}),
        ("a cat", "ink, gold", "a cat, ink", {"caption": "a cat", "tags": "ink"}),
        ("a cat", "ink", "a cat", {"caption": "a cat", "tags": ""}),
        ("a cat", ["ink", "gold"], "a cat, gold", {"caption": "a cat", "tags": ["gold"]}),
        (["a cat", "cats"], "ink", "a cat, gold\ncats, gold", {"caption": ["a cat", "cats"], "tags": "gold"}),
        ("a cat", "ink", "dogs", {"caption": "dogs", "tags": ""}),
        ("", "ink, gold", "ink, gold, red", {"caption": "", "tags": "ink, gold, red"}),
        ("", "ink, gold", "one\ntwo", {"caption": "one\ntwo", "tags": ""}),
    ],
)
def test_tags_of_a_json_stay_tags_where_that_can_be_told(tmp_path, caption, tags, new, stays):
    bench = made(tmp_path, {"a.json": json.dumps({"caption": caption, "tags": tags, "id": 7}), "a.png": "1"})
    bench.edit_captions({"a.png": new})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {**stays, "id": 7}
    assert bench.captions(["a.png"]) == {"a.png": new}


def test_a_new_caption_gets_a_text_file_or_what_most_of_the_folder_has(tmp_path):
    bench = made(
        tmp_path,
        {
            "a.png": "1",
            "sub/b.png": "1",
            "sub/c.png": "1",
            "sub/c.caption": "c",
            "d/e.png": "1",
            "d/f.png": "1",
            "d/f.json": '"f"',
        },
    )
    bench.edit_captions({"a.png": "a  cat \n\n", "sub/b.png": "été", "d/e.png": "one\ntwo"})
    assert (tmp_path / "a.txt").read_bytes() == b"a cat\n"
    assert (tmp_path / "sub/b.caption").read_bytes() == "été\n".encode()
    assert json.loads((tmp_path / "d/e.json").read_bytes()) == {"caption": "one\ntwo"}
    bench.undo()
    assert not (tmp_path / "a.txt").exists() and not (tmp_path / "d/e.json").exists()


@pytest.mark.parametrize(
    ("file", "content", "left"),
    [
        ("a.txt", "a cat\n", {"a.txt": b""}),
        ("a.json", '{"caption": "a cat"}', {"a.txt": b""}),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "a cat"}', {}),
        ("meta_cap.json", '{"a": {"caption": "a cat"}}', {"a.txt": b""}),
    ],
)
def test_an_emptied_caption_is_empty_and_no_file_is_deleted(tmp_path, file, content, left):
    bench = made(tmp_path, {file: content, "a.png": "1"})
    bench.edit_captions({"a.png": " "})
    assert bench.captions(["a.png"]) == {"a.png": ""} and (tmp_path / file).exists()
    assert {name: (tmp_path / name).read_bytes() for name in left} == left
    bench.edit_captions({"a.png": "back"})
    assert bench.captions(["a.png"]) == {"a.png": "back"}


def test_the_caption_that_counts_is_written(tmp_path):
    bench = made(
        tmp_path,
        {
            "a.png": "1",
            "a.txt": "counts",
            "a.json": '"does not"',
            "metadata.jsonl": '{"file_name": "a.png", "text": "nor"}',
        },
    )
    earlier = hashes(tmp_path)
    bench.edit_captions({"a.png": "new"})
    assert changed(tmp_path, earlier) == {"a.txt"}


def test_a_new_caption_file_is_of_all_pictures_that_are_called_so(tmp_path):
    """Of two captions one is lost, or a picture gets another's without a word."""
    bench = made(tmp_path, {"a.png": "1", "a.jpg": "2", "b.png": "3"})
    for other in ("another", ""):
        with pytest.raises(DatasetError, match="a.jpg and a.png share one caption file"):
            bench.edit_captions({"a.png": "new", "a.jpg": other, "b.png": "b"})
    assert not [*tmp_path.glob("*.txt")]
    done = bench.edit_captions({"a.png": "new"})
    assert (done.names, done.notes) == (("a.png", "a.jpg"), ("a.jpg changed as well: a.txt is the caption of both.",))
    with pytest.raises(DatasetError, match="share one caption file"):
        bench.edit_captions({"a.png": "newer", "a.jpg": "new"})


def test_the_same_caption_file_counts_as_in_a_scan(tmp_path):
    """Of a.txt and a.TXT the page writes the one that training does not read."""
    names = [f"{number}.jpg" for number in range(8)]
    texts = {f"{number}.{ending}": ending for number in range(8) for ending in ("TXT", "txt")}
    bench = made(tmp_path, dict.fromkeys(names, picture(16, 16)) | texts)
    assert bench.captions(names) == {one.path.name: one.caption for one in folder.scan(tmp_path).pictures}


def test_pictures_that_share_a_caption_file_change_together(tmp_path):
    bench = made(tmp_path, {"a.png": "1", "a.jpg": "2", "a.txt": "both"})
    with pytest.raises(DatasetError, match="share one caption file"):
        bench.edit_captions({"a.png": "x", "a.jpg": "y"})
    done = bench.edit_captions({"a.png": "x"})
    assert set(done.names) == {"a.png", "a.jpg"}
    assert done.notes == ("a.jpg changed as well: a.txt is the caption of both.",)


def test_an_entry_of_several_pictures_stays_for_the_others(tmp_path):
    bench = made(tmp_path, {"a/1.png": "1", "b/1.png": "2", "meta_cap.json": '{"/old/1": {"caption": "one"}}'})
    table = (tmp_path / "meta_cap.json").read_bytes()
    known = bench.captions(["a/1.png", "b/1.png"])
    bench = made(tmp_path, {"c.png": "1", "c.jpg": "2", "meta_cap.json": '{"c": {"caption": "one"}}'})
    table = (tmp_path / "meta_cap.json").read_bytes()
    bench.edit_captions({"c.png": "two"})
    assert (tmp_path / "meta_cap.json").read_bytes() == table
    assert (tmp_path / "c.txt").read_text() == "two\n"
    assert known == {"a/1.png": "", "b/1.png": ""}


def test_what_is_written_is_what_a_scan_reads(tmp_path):
    from tests.dataset.made import painted

    bench = made(tmp_path, {"metadata.csv": "file_name,text\n0.png,zero\n3_x/1.png,one\n", "3_x/1.txt": "own"})
    for name in ("0.png", "3_x/1.png", "2.png"):
        painted(seed=len(name) + int(name[-5])).save(tmp_path / name)
    wanted = {"0.png": 'a "cat", ink\nsecond', "3_x/1.png": "one, two", "2.png": "né"}
    bench.edit_captions(wanted)
    found = folder.scan(tmp_path)
    assert {found.name(picture): picture.caption for picture in found.pictures} == wanted


def test_captions_are_those_that_a_scan_reads(tmp_path):
    from tests.dataset.made import painted

    names = ["a.png", "b.png", "3_boat/c.png", "3_boat/d.png", "5_class/e.png", "3_boat/sub/f.png"]
    bench = made(tmp_path, {"b.txt": "own", "3_boat/d.txt": "", "3_boat/sub/x.txt": "x"})
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        painted(seed=seed).save(tmp_path / name)
    bench.set_folder("5_class", FolderOptions(caption="a class"))
    found = folder.scan(tmp_path, nested=True)
    assert bench.captions(names) == {found.name(picture): picture.caption for picture in found.pictures}
    assert bench.captions(names)["3_boat/sub/f.png"] == "boat" and bench.captions(names)["5_class/e.png"] == "a class"


def test_nothing_is_written_before_she_agreed(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    bench = Workbench(tmp_path)
    assert not bench.allowed
    for write in (
        lambda: bench.edit_captions({"a.png": "x"}),
        lambda: bench.leave_out(["a.png"]),
        lambda: bench.set_crop("a.png", Crop(0, 0, 0.5, 0.5)),
        lambda: bench.set_mask("a.png", PNG),
        lambda: bench.set_folder("", FolderOptions(weight=2.0)),
        lambda: bench.restore_captions(["a.png"]),
        bench.undo,
        bench.redo,
    ):
        with pytest.raises(DatasetError, match="was not allowed yet"):
            write()
    assert bench.settle() is None and os.listdir(tmp_path) == ["a.png"]
    Workbench(tmp_path, own=True).edit_captions({"a.png": "x"})
    assert bench.allowed


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "sub/../../a.png"])
def test_names_outside_the_folder_are_refused(tmp_path, name):
    inside = tmp_path / "in"
    (inside / "sub").mkdir(parents=True)
    (tmp_path / "a.png").write_bytes(b"1")
    with pytest.raises(DatasetError, match="is not in the folder"):
        Workbench(inside, own=True).edit_captions({name: "x"})
    assert not (tmp_path / "a.txt").exists()


def test_steps_are_undone_and_done_again_after_a_restart(tmp_path):
    made(tmp_path, {"a.png": picture(16, 16), "b.png": "2", "a.txt": "a cat"})
    states = [hashes(tmp_path)]

    def bench() -> Workbench:
        return Workbench(tmp_path)

    steps = [
        lambda: bench().edit_captions({"a.png": "a dog", "b.png": "new"}, title="Dogs"),
        lambda: bench().set_mask("a.png", PNG),
        lambda: bench().leave_out(["b.png"]),
        lambda: bench().set_crop("a.png", Crop(0, 0, 0.5, 1)),
        lambda: bench().set_folder("", FolderOptions(repeats=3)),
        lambda: bench().take_in(["b.png"]),
    ]
    prepared = [preparation.read(tmp_path)[0]]
    for step in steps:
        step()
        states.append(hashes(tmp_path))
        prepared.append(preparation.read(tmp_path)[0])
    assert bench().undo().kinds == {"preparation"} and bench().redo().kinds == {"preparation"}
    assert prepared[-1].folders[""].repeats == 3 and prepared[-1].crops["a.png"] == Crop(0, 0, 0.5, 1)
    for place in reversed(range(len(steps))):
        bench().undo()
        assert (hashes(tmp_path), preparation.read(tmp_path)[0]) == (states[place], prepared[place])
    assert bench().undo().sentence == "There is nothing to undo."
    for place in range(1, len(steps) + 1):
        bench().redo()
        assert (hashes(tmp_path), preparation.read(tmp_path)[0]) == (states[place], prepared[place])
    assert bench().redo().sentence == "There is nothing to redo."
    bench().undo()
    bench().edit_captions({"a.png": "other"})
    assert bench().redoable == "" and bench().undoable == "1 caption changed"


def test_undo_tells_what_it_undid(tmp_path):
    bench = made(tmp_path, {"a.png": "1", "a.txt": "a cat"})
    bench.edit_captions({"a.png": "a dog"})
    assert bench.undoable == "1 caption changed"
    assert bench.undo() == ("Undone: 1 caption changed.", ("a.png",), (), frozenset({"captions"}))
    assert bench.redo().sentence == "Done again: 1 caption changed."


@pytest.mark.fault(97)
def test_undo_refuses_what_someone_else_changed_since_and_undoes_no_part(tmp_path):
    bench = made(tmp_path, {"a.png": "1", "b.png": "2", "a.txt": "a", "b.txt": "b"})
    bench.edit_captions({"a.png": "A", "b.png": "B"})
    (tmp_path / "b.txt").write_text("mine")
    earlier = hashes(tmp_path)
    with pytest.raises(DatasetError, match="b.txt was changed by another program") as caught:
        bench.undo()
    assert caught.value.details == {"files": ["b.txt"]} and hashes(tmp_path) == earlier
    (tmp_path / "b.txt").write_text("B")
    assert bench.undo().names == ("a.png", "b.png")


@pytest.mark.fault(97)
def test_a_caption_that_is_not_what_was_shown_is_refused(tmp_path):
    bench = made(tmp_path, {"a.png": "1", "a.txt": "a"})
    with pytest.raises(DatasetError, match="a.png has another caption than was shown"):
        bench.edit_captions({"a.png": "A, x"}, shown={"a.png": "A"})
    assert (tmp_path / "a.txt").read_text() == "a"
    bench.edit_captions({"a.png": "a, x"}, shown={"a.png": "a"})


def test_originals_are_kept_once_and_put_back_byte_for_byte(tmp_path):
    table = '{"file_name": "t.png", "text": "\\u00e9 one",  "n": 1.0}\r\n{"file_name": "u.png", "text": "u"}\r\n'
    before = {
        "a.txt": b"\r\n a\xe9 \r\n",
        "metadata.jsonl": table.encode(),
        "j.json": b'{"tags": "x, y", "caption":"c"}',
    }
    bench = made(tmp_path, {**before, **dict.fromkeys(("a.png", "new.png", "t.png", "u.png", "j.png"), "1")})
    earlier = hashes(tmp_path)
    everything = ["a.png", "new.png", "t.png", "u.png", "j.png"]
    assert bench.restorable(everything) == []
    for text in ("first, y", "second"):
        bench.edit_captions(dict.fromkeys(everything, text))
    assert set(bench.restorable(everything)) == set(everything)
    assert {name: (tmp_path / ".lora_studio/originals" / name).read_bytes() for name in before} == before
    done = bench.restore_captions(everything)
    assert (hashes(tmp_path), set(done.names), bench.restorable(everything)) == (earlier, set(everything), [])
    bench.undo()
    assert bench.captions(everything) == dict.fromkeys(everything, "second")
    bench.restore_captions(["t.png"])
    assert bench.captions(["t.png", "u.png"]) == {"t.png": "é one", "u.png": "second"}
    assert (tmp_path / "metadata.jsonl").read_bytes().startswith(table.splitlines()[0].encode())


def test_restoring_keeps_what_another_program_added_to_an_entry(tmp_path):
    bench = made(tmp_path, {"a.png": "1", "meta_cap.json": '{"a": {"caption": "a"}}'})
    bench.edit_captions({"a.png": "b"})
    (tmp_path / "meta_cap.json").write_text('{"a": {"caption": "b", "train_resolution": [1, 2]}}')
    bench.restore_captions(["a.png"])
    assert (tmp_path / "meta_cap.json").read_text() == '{"a": {"caption": "a", "train_resolution": [1, 2]}}'


def test_a_mask_takes_the_place_of_one_in_another_format(tmp_path):
    bench = made(tmp_path, {"a.png": "1", "a-masklabel.jpg": "jpg", "masks/a.png": "folder"})
    earlier = hashes(tmp_path)
    bench.set_mask("a.png", PNG)
    assert (tmp_path / "a-masklabel.png").read_bytes() == PNG and not (tmp_path / "a-masklabel.jpg").exists()
    bench.set_mask("a.png", None)
    assert not list(tmp_path.glob("*mask*.*")) and not (tmp_path / "masks/a.png").exists()
    assert (tmp_path / ".lora_studio/originals/masks/a.png").read_bytes() == b"folder"
    bench.undo()
    bench.undo()
    assert hashes(tmp_path) == earlier


@pytest.mark.parametrize("orientation, small, large", [
    (1, Crop(0, 0, 0.1, 1), Crop(0, 0, 1, 0.1)),
    (6, Crop(0, 0, 1, 0.1), Crop(0, 0, 0.1, 1)),
    (1, Crop(0.5, 0, 0.4, 1), Crop(0.4, 0, 0.6, 1)),
])  # fmt: skip
def test_a_crop_that_is_too_small_is_refused_at_once(tmp_path, orientation, small, large):
    bench = made(tmp_path, {"a.jpg": picture(70, 160, orientation=orientation), "b.jpg": picture(160, 160)})
    with pytest.raises(DatasetError, match="The crop is smaller than 8 × 8 pixels"):
        bench.set_crops({"b.jpg": Crop(0, 0, 0.5, 0.5), "a.jpg": small})
    assert bench.undoable == "" and not preparation.read(tmp_path)[0].crops
    assert bench.set_crop("a.jpg", large).names == ("a.jpg",)


def test_choices_about_what_is_gone_are_removed_as_one_step(tmp_path):
    """They stay for ever, or go with those of a picture whose accents another system composed."""
    bench = made(tmp_path, {"a.png": picture(16, 16), "sub/e\u0301.png": "1", "b.png": picture(16, 16), "c.png": "2"})
    bench.set_crops(dict.fromkeys(("a.png", "b.png"), Crop(0, 0, 1, 0.5)))
    bench.leave_out(["sub/e\u0301.png", "c.png"])
    bench.set_folder("sub", FolderOptions(repeats=2))
    bench.set_folder("", FolderOptions(weight=2.0))
    before = preparation.read(tmp_path)[0]
    respelled = preparation.encode(before, tmp_path).replace("e\u0301", "\u00e9")
    (tmp_path / preparation.NAME).write_text(respelled)
    assert bench.forget_gone().sentence == "Nothing to change."
    (tmp_path / "b.png").unlink()
    (tmp_path / "c.png").unlink()
    assert bench.forget_gone().names == ("b.png", "c.png")
    after = preparation.read(tmp_path)[0]
    assert (after.crops.keys(), after.left_out) == ({"a.png"}, {"sub/\u00e9.png"}) and after.folders == before.folders
    bench.undo()
    assert preparation.read(tmp_path)[0].crops == before.crops


def test_what_is_the_same_already_is_no_step(tmp_path):
    bench = made(tmp_path, {"a.png": "1", "a.txt": " a \n"})
    earlier = hashes(tmp_path)
    for done in (
        bench.edit_captions({"a.png": "a"}),
        bench.take_in(["a.png"]),
        bench.set_crop("a.png", None),
        bench.set_mask("a.png", None),
        bench.set_folder("", FolderOptions()),
        bench.restore_captions(["a.png"]),
    ):
        assert done == ("Nothing to change.", (), (), frozenset())
    assert hashes(tmp_path) == earlier and bench.undoable == ""


def test_a_damaged_preparation_is_never_overwritten(tmp_path):
    bench = made(tmp_path, {"a.png": "1", ".lora_studio/preparation.json": "{"})
    with pytest.raises(DatasetError, match=r"preparation.json is damaged"):
        bench.leave_out(["a.png"])
    assert (tmp_path / ".lora_studio/preparation.json").read_text() == "{"


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.fault(96)
@pytest.mark.parametrize("writes", range(12))
def test_a_crash_at_any_write_leaves_a_step_whole_or_puts_it_back(tmp_path, monkeypatch, writes):
    names = [f"{number}.png" for number in range(3)]
    bench = made(tmp_path, dict.fromkeys(names, "1") | {f"{number}.txt": f"old {number}" for number in range(3)})
    before = hashes(tmp_path)
    crash_after(monkeypatch, writes)
    try:
        bench.edit_captions(dict.fromkeys(names, "new"))
    except Crash:
        pass
    monkeypatch.undo()
    again = Workbench(tmp_path)
    again.settle()
    captions = again.captions(names)
    assert hashes(tmp_path) == before or captions == dict.fromkeys(names, "new")
    if captions == dict.fromkeys(names, "new"):
        again.undo()
        assert hashes(tmp_path) == before
    again.edit_captions(dict.fromkeys(names, "later"))
    assert again.captions(names) == dict.fromkeys(names, "later")


@pytest.mark.fault(96)
@pytest.mark.parametrize("writes", range(5))
def test_a_crash_while_undoing_puts_the_step_back(tmp_path, monkeypatch, writes):
    names = [f"{number}.png" for number in range(3)]
    bench = made(tmp_path, dict.fromkeys(names, "1") | {f"{number}.txt": f"old {number}" for number in range(3)})
    before = hashes(tmp_path)
    bench.edit_captions(dict.fromkeys(names, "new"))
    crash_after(monkeypatch, writes)
    with pytest.raises(Crash):
        bench.undo()
    monkeypatch.undo()
    again = Workbench(tmp_path)
    again.settle()
    assert again.captions(names) == dict.fromkeys(names, "new")
    again.undo()
    assert hashes(tmp_path) == before


def crash_after(monkeypatch, writes: int) -> None:
    """Ends the process, as it were, when the file after that many gets its name: none that follows gets it either."""
    count, rename = [0], os.replace

    def counted(source, target):
        count[0] += 1
        if count[0] > writes:
            raise Crash
        rename(source, target)

    monkeypatch.setattr(os, "replace", counted)


@pytest.mark.fault(96)
@pytest.mark.parametrize("when", ["written", "renamed"])
def test_a_full_disk_in_the_middle_of_a_step_changes_nothing(tmp_path, monkeypatch, when):
    names = [f"{number}.png" for number in range(20)]
    bench = made(tmp_path, dict.fromkeys(names, "1") | {f"{number}.txt": "old" for number in range(20)})
    before, fill, rename = hashes(tmp_path), files._fill, os.replace
    full = OSError(28, "No space left on device", str(tmp_path))

    def refused(path, content):
        if path.name.startswith("13.txt") and path.parent == tmp_path:
            raise full
        fill(path, content)

    def not_renamed(source, target):
        if target == tmp_path / "13.txt":
            raise full
        rename(source, target)

    monkeypatch.setattr(*((files, "_fill", refused) if when == "written" else (os, "replace", not_renamed)))
    with pytest.raises(MachineError, match="nothing was changed: the disk is full"):
        bench.edit_captions(dict.fromkeys(names, "new"))
    assert hashes(tmp_path) == before and bench.undoable == ""


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(tmp_path):
    bench = made(tmp_path, {"a.png": "1"})
    (tmp_path / ".lora_studio").chmod(0o500)
    with pytest.raises(MachineError, match="Permission denied"):
        bench.edit_captions({"a.png": "x"})
    (tmp_path / ".lora_studio").chmod(0o700)


@pytest.mark.fault(96)
def test_what_was_interrupted_is_reported_and_what_someone_else_changed_stays(tmp_path, monkeypatch):
    names = ["a.png", "b.png"]
    bench = made(tmp_path, {**dict.fromkeys(names, "1"), "a.txt": "a", "b.txt": "b"})
    with monkeypatch.context() as patch:
        crash_after(patch, 5)  # two originals, the step, its beginning, one caption
        with pytest.raises(Crash):
            bench.edit_captions({"a.png": "A", "b.png": "B"})
    (changed_one,) = (name for name in ("a.txt", "b.txt") if (tmp_path / name).read_text() in "AB")
    (tmp_path / changed_one).write_text("mine")
    done = Workbench(tmp_path).settle()
    assert done and done.sentence == "A step was interrupted and was put back: 2 captions changed."
    assert done.notes == (f"{changed_one} was changed by another program since and stayed as it is.",)
    assert (tmp_path / changed_one).read_text() == "mine"
    assert Workbench(tmp_path).settle() is None


@pytest.mark.fault(99)
@pytest.mark.parametrize("moving", [None, 1])
def test_a_history_that_leads_out_of_the_folder_is_refused(tmp_path, moving):
    inside = tmp_path / "in"
    bench = made(inside, {"a.png": "1"})
    bench.edit_captions({"a.png": "x"})
    history = inside / ".lora_studio/history"
    for path in history.glob("0*.jsonl"):
        path.write_text(path.read_text().replace('"a.txt"', '"../a.txt"'))
    (history / "position.json").write_text(json.dumps({"done": 0 if moving else 1, "moving": moving}))
    (tmp_path / "a.txt").write_text("x\n")
    with pytest.raises(DatasetError, match="changes a file outside of it"):
        bench.undo()
    assert (tmp_path / "a.txt").read_text() == "x\n"


@pytest.mark.fault(99)
@pytest.mark.parametrize("moving", [None, 1])
@pytest.mark.parametrize(
    "file", ["b.png", "sub/b.png", "link.txt", ".git/config", ".lora_studio/lock", "run.safetensors"]
)
def test_a_history_that_changes_a_picture_is_refused(tmp_path, file, moving):
    """A dataset of someone else's deletes pictures as soon as it is opened."""
    bench = made(tmp_path, {"a.png": "1", "b.png": "x", "sub/b.png": "x", ".git/config": "x", "run.safetensors": "x"})
    os.symlink("b.png", tmp_path / "link.txt")
    bench.edit_captions({"a.png": "x"})
    history, before = tmp_path / ".lora_studio/history", hashes(tmp_path)
    for path in history.glob("0*.jsonl"):
        text = path.read_text().replace('"a.txt"', json.dumps(file))
        path.write_text(text.replace(hashlib.sha256(b"x\n").hexdigest(), hashlib.sha256(b"x").hexdigest()))
    (history / "position.json").write_text(json.dumps({"done": 0 if moving else 1, "moving": moving}))
    for act in (bench.settle, bench.undo) if moving else (bench.undo,):
        with pytest.raises(DatasetError, match="changes what is no caption, mask or choice"):
            act()
    assert hashes(tmp_path) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_what_is_no_file_is_not_written_as_a_caption(tmp_path):
    """Reading a pipe waits for ever, with the folder's lock held."""
    bench = made(tmp_path / "in", {"a.png": "1", "b.png": "2", "c.png": "3", "c.txt/d": "x"})
    os.mkfifo(tmp_path / "in/a.txt")
    (tmp_path / "b.txt").write_text("elsewhere")
    os.symlink("../b.txt", tmp_path / "in/b.txt")
    for name in "abc":
        with pytest.raises(DatasetError, match=f"{name}.txt is not read as a caption"):
            bench.edit_captions({f"{name}.png": "new"})
    assert (tmp_path / "b.txt").read_text() == "elsewhere"


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    (tmp_path / "in").mkdir()
    bench = Workbench(tmp_path / "in", own=True)
    (tmp_path / "in").rmdir()
    for act in (bench.undo, bench.redo, lambda: bench.take_in(["a.png"])):
        with pytest.raises(DatasetError, match="There is no folder"):
            act()
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("file", ["position.json", "000001.jsonl"])
def test_a_damaged_history_is_told(tmp_path, file):
    bench = made(tmp_path, {"a.png": "1"})
    bench.edit_captions({"a.png": "x"})
    (tmp_path / ".lora_studio/history" / file).write_text("{")
    assert bench.undoable == "the last step"
    with pytest.raises(DatasetError, match="list of steps that can be undone is damaged"):
        bench.undo()
    assert bench.captions(["a.png"]) == {"a.png": "x"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_file_keeps_who_may_read_it(tmp_path):
    bench = made(tmp_path, {"a.png": "1", "a.txt": "a"})
    (tmp_path / "a.txt").chmod(0o600)
    bench.edit_captions({"a.png": "x"})
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o600


def test_a_linked_caption_is_changed_where_it_is(tmp_path):
    bench = made(tmp_path, {"a.png": "1", "texts/a": "a"})
    os.symlink("texts/a", tmp_path / "a.txt")
    bench.edit_captions({"a.png": "x"})
    assert (tmp_path / "a.txt").is_symlink() and (tmp_path / "texts/a").read_text() == "x"


def test_what_cannot_be_a_caption_is_not_written_over(tmp_path):
    bench = made(tmp_path, {"a.png": "1", "a.txt": "x" * 70_000, "b.png": "2", "b.json": '{"score": 1}'})
    earlier = hashes(tmp_path)
    with pytest.raises(DatasetError, match="a.txt is not read as a caption"):
        bench.edit_captions({"a.png": "new"})
    with pytest.raises(DatasetError, match="longer than 64 KiB"):
        bench.edit_captions({"a.png": "é" * 40_000})
    bench.edit_captions({"b.png": "new"})
    assert changed(tmp_path, earlier) == {"b.txt"}


def test_two_tabs_lose_no_step(tmp_path):
    names = [f"{number}.png" for number in range(8)]
    made(tmp_path, dict.fromkeys(names, "1"))
    work = [lambda name=name: Workbench(tmp_path).edit_captions({name: "mine"}) for name in names]
    work += [lambda name=name: Workbench(tmp_path).leave_out([name]) for name in names]
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench = Workbench(tmp_path)
    assert bench.captions(names) == dict.fromkeys(names, "mine")
    assert preparation.read(tmp_path)[0].left_out == frozenset(names)
    for _ in work:
        bench.undo()
    assert bench.undoable == "" and not list(tmp_path.glob("*.txt"))
