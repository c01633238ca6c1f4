"""Problems as data: sentences that follow their count, and kinds that programs rely on."""

import re
from pathlib import Path
from typing import get_args

from lora_studio.dataset.folder import scan
from lora_studio.dataset.problems import Kind, Problem, grouped
from tests.dataset import made

DOCS = Path(__file__).parents[2] / "docs" / "datasets.md"


def test_a_group_is_one_problem_with_all_names():
    names = [f"{index}.png" for index in range(7)]
    assert grouped("warning", "small", [], "picture is", "pictures are", "Do.") == []
    (one,) = grouped("warning", "small", ["a.png"], "picture is", "pictures are", "Do.", {"a.png": "tiny"})
    assert one == Problem("warning", "small", "a.png", "1 picture is: a.png (tiny).", "Do.", ("a.png",))
    (many,) = grouped("warning", "small", names, "picture is", "pictures are", "Do.")
    assert many.what == "7 pictures are: 0.png, 1.png, 2.png, 3.png, 4.png and 2 more." and many.files == tuple(names)


def test_the_documentation_names_every_kind():
    assert re.findall(r"^\| `(.+?)` \|", DOCS.read_text("utf-8").partition("## Problems")[2], re.M) == [*get_args(Kind)]


def test_identical_and_similar_pictures_are_given_as_groups(tmp_path):
    made.style_folder(tmp_path, 3)
    for name, source in (("b.png", "0.png"), ("c.png", "0.png"), ("d.png", "1.png")):
        (tmp_path / name).write_bytes((tmp_path / source).read_bytes())
    made.painted(80, 80, seed=2).save(tmp_path / "large.png")
    dataset = scan(tmp_path)
    assert dataset.groups("identical") == [("0.png", "b.png", "c.png"), ("1.png", "d.png")]
    assert dataset.groups("alike") == [("2.png", "large.png")] and dataset.groups("unreadable") == []
    assert dataset.groups("no caption") == [("b.png", "c.png", "d.png", "large.png")]
