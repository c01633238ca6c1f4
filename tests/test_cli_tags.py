"""The command ``tags``: counts, edits of all captions, undo and restore."""

import hashlib
import json

import pytest

from lora_studio import cli
from lora_studio.curation.edits import EDITS, fields
from lora_studio.curation.workbench import Workbench
from tests.dataset.made import painted

CAPTIONS = {"a": "a cat, ink, paper", "b": "a dog, Ink, paper", "c": "a drawing of a house, paper"}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "mine"
    root.mkdir()
    for seed, (name, caption) in enumerate(CAPTIONS.items()):
        painted(seed=seed).save(root / f"{name}.png")
        (root / f"{name}.txt").write_text(caption)
    return root


@pytest.fixture
def run(tmp_path, capfd):
    def run(*arguments: object) -> tuple[int, str, str]:
        status = cli.main(["tags", *map(str, arguments), "--outputs", str(tmp_path / "outputs")])
        said = capfd.readouterr()
        return status, said.out, said.err

    return run


def captions(folder) -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.txt"))}


def test_tags_are_listed_with_remarks(folder, run):
    status, out, _ = run(folder)
    assert (status, out.splitlines()) == (
        0,
        [
            "5 tags in 3 captions of 3 pictures to train on.",
            "3  paper",
            "2  ink",
            "1  a cat",
            "1  a dog",
            "1  a drawing of a house",
            out.splitlines()[6],
            out.splitlines()[7],
        ],
    )
    assert "“paper” stands in all 3 captions." in out and "how the picture is made: “ink”, “a drawing of”" in out
    result = json.loads(run(folder, "--json")[1])
    assert result["tags"][0] == {"tag": "paper", "count": 3} and result["remarks"][1]["tags"] == ["ink", "a drawing of"]
    assert not (folder / ".lora_studio").exists()


def test_pictures_left_out_are_edited_and_not_counted(folder, run):
    Workbench(folder, own=True).leave_out(["c.png"])
    assert "4 tags in 2 captions of 2 pictures to train on." in run(folder)[1]
    run(folder, "--append", "x", "--yes")
    assert captions(folder)["c"].endswith(", x")


def test_a_dry_run_shows_each_change_and_writes_nothing(folder, run):
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    status, out, _ = run(folder, "--replace", r"a (\w+)", r"the \1", "--regex", "--dry-run")
    assert status == 0 and "a.png:\n  a cat, ink, paper\n→ the cat, ink, paper\n" in out
    assert out.endswith("3 captions would change.\n")
    assert before == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_edits_are_written_undone_and_restored(folder, run):
    status, out, _ = run(folder, "--remove", "ink", "--prepend", "ana", "--yes")
    assert status == 0 and "3 captions changed: “ana” put in front, “ink” removed. --undo takes it back." in out
    changed = captions(folder)
    assert changed == {"a": "ana, a cat, paper", "b": "ana, a dog, paper", "c": "ana, a drawing of a house, paper"}
    run(folder, "--remove-style")
    assert captions(folder)["c"] == "ana, a house, paper"
    assert "Undone: words about the style removed." in run(folder, "--undo")[1]
    assert captions(folder) == changed
    assert "Done again" in run(folder, "--redo")[1]
    assert run(folder, "--restore")[1] == "3 original captions put back.\n"
    assert captions(folder) == CAPTIONS
    assert run(folder, "--remove", "nothing")[1] == "No caption has to be changed.\n"


def test_captions_are_cut_to_tokens_as_clip_counts_them(folder, run):
    run(folder, "--trim", "4", "--yes")
    assert captions(folder) == {"a": "a cat, ink", "b": "a dog, Ink", "c": "a drawing of a"}


def test_a_step_that_was_interrupted_is_put_back_and_told(folder, run):
    run(folder, "--append", "x", "--yes")
    position = folder / ".lora_studio/history/position.json"
    position.write_text(json.dumps({"done": 0, "moving": 1}))
    status, out, err = run(folder)
    assert status == 0 and "A step was interrupted and was put back: “x” put after." in err
    assert captions(folder) == CAPTIONS and "“paper” stands in all 3" in out


def test_a_folder_of_hers_is_not_written_unasked(folder, run):
    status, _, err = run(folder, "--append", "x")
    assert status == 2 and "was not allowed yet" in err and "--yes" in err
    assert captions(folder) == CAPTIONS


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--replace", "(a", "b", "--regex"], "is no regular expression"),
        (["--to", "end"], "--to belongs to --reorder, which is not given"),
        (["--ignore-case"], "--ignore-case belongs to --replace or --remove-matching"),
        (["--undo", "--restore"], "are separate steps"),
        (["--prepend", " "], "“Text” is empty"),
        (["--trim", "0"], "“Tokens” is wrong"),
    ],
)
def test_mistakes_are_told(folder, run, arguments, says):
    status, _, err = run(folder, *arguments)
    assert status == 2 and says in err and captions(folder) == CAPTIONS


def test_a_folder_that_is_not_there_is_told(tmp_path, run):
    assert "There is no folder" in run(tmp_path / "none")[2]


def test_every_edit_and_every_field_has_an_option(run):
    status, out, _ = run("x", "--help")
    assert status == 0
    for kind in EDITS:
        assert f"--{kind.replace(' ', '-')} " in out
        for field in fields(kind):
            if field.type in ("flag", "choice"):
                assert (
                    "--regex" in out
                    if field.name == "regular_expression"
                    else f"--{field.name.replace('_', '-')}" in out
                )
