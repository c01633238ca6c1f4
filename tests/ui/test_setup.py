"""Starting a run from the form: once, and with everything that is wrong said beforehand."""

import re
import threading

import gradio as gr
import pytest
from PIL import Image

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.errors import StudioError
from lora_studio.jobs import runner
from lora_studio.runs import checkpoints
from lora_studio.ui.fields import to_field
from lora_studio.ui.pages.train.setup import Setup
from tests.ui.played import Part, save


@pytest.fixture
def setup(tmp_path):
    with gr.Blocks():
        return Setup(tmp_path / "outputs")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my pictures").mkdir()
    for i in range(4):
        Image.new("RGB", (64, 64), (60 * i, 99, 0)).save(tmp_path / "my pictures" / f"{i}.png")
    return tmp_path / "my pictures"


def values(setup, **changes):
    """What the fields hold, in their order."""
    return [changes.get(key, to_field(SPECS[key], SPECS[key].default)) for key in setup.form.fields]


@pytest.fixture
def workers(monkeypatch, part):
    """Workers that start at once and do nothing."""
    started = []
    monkeypatch.setattr(runner, "start", lambda run: (Part(run).lives(), started.append(run.name)))
    return started


@pytest.mark.fault(47, 52)
def test_two_presses_start_one_run(setup, folder, workers):
    """Two tabs, or a double click, start two trainings on one device."""
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(setup.begin(*values(setup, data=str(folder))))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(workers) == {"my-pictures"} and len(runs.existing(setup.outputs)) == 1
    assert {run.name for run in results} == {"my-pictures"}, "each press shows the run that the first one started"


def test_another_run_is_put_behind_the_one_at_work(setup, folder, workers):
    """The user has to stay up until the first run has ended to start the second."""
    first = setup.begin(*values(setup, data=str(folder)))
    second = setup.begin(*values(setup, data=str(folder), rank=8))
    third = setup.begin(*values(setup, data=str(folder), rank=8, name="by-another-name"))
    assert (first.name, second.name, third.name) == ("my-pictures", "my-pictures-2", "by-another-name")
    assert setup.begin(*values(setup, data=str(folder), rank=8)) == second


def test_a_branch_begins_with_its_parents_settings_at_its_state(setup, folder, workers):
    """A branch that silently begins anew, or a second press that makes a second one."""
    parent = setup.begin(*values(setup, data=str(folder), rank=8, trigger="inkstyle"))
    save(parent, 250)
    updates = setup.branch_from(parent, 250)
    typed = {key: updates[field]["value"] for key, field in setup.form.fields.items()}
    assert updates[setup.origin] == "my-pictures@250" and updates[setup.branch]["visible"]
    assert "step 250" in updates[setup.branch_from_line]
    assert (typed["rank"], typed["trigger"]) == ("8", "inkstyle")
    made = [setup.begin(*(typed | {"learning_rate": 1e-5}).values(), origin="my-pictures@250") for _ in range(2)]
    assert made[0] == made[1] and made[0].name == "my-pictures-from-250"
    assert (
        made[0].settings().optimizer.learning_rate == 1e-5
        and made[0].parent()["goes_on"]
        and checkpoints.latest(made[0]).name == "step-250"
    )
    with pytest.raises(StudioError, match="no saved state of step 300"):
        setup.begin(*typed.values(), origin="my-pictures@300")


def test_the_run_has_the_forms_settings(setup, folder, workers, monkeypatch):
    """A pasted path with quotes, or a relative one, is not found by the worker."""
    monkeypatch.chdir(folder.parent)
    run = setup.begin(*values(setup, data=" 'my pictures' ", name="x: y", rank=3.0, preview_prompts="a\nb"))
    settings = run.settings()
    assert (settings.run.data, settings.adapter.rank, settings.previews.preview_prompts, run.name) == (
        str(folder.resolve()),
        3,
        ["a", "b"],
        "x-y",
    )


@pytest.mark.parametrize(("changes", "said"), [
    ({"data": ""}, "No pictures are chosen"),
    ({"data": "/no/such/folder"}, "There is no folder"),
    ({"rank": 0}, "Rank must be"),
    ({"steps": None}, "Steps is empty"),
    ({"name": "ink/2"}, r"Name must not contain / or \\\."),
])  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_is_made(setup, folder, workers, changes, said):
    """A press on Start leaves a run that cannot train."""
    with pytest.raises(StudioError, match=said):
        setup.begin(*values(setup, **{"data": str(folder), **changes}))
    assert not workers and not runs.existing(setup.outputs)


@pytest.mark.fault(1)
def test_an_empty_folder_cannot_start(setup, tmp_path, workers):
    """Training begins with nothing to learn from."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudioError, match="no picture"):
        setup.begin(*values(setup, data=str(tmp_path / "empty")))


@pytest.mark.fault(62)
def test_a_name_that_exists_gets_a_number(setup, folder, workers):
    """A second run overwrites the first one's adapter."""
    names = []
    for _ in range(2):
        run = setup.begin(*values(setup, data=str(folder), name="same"))
        names.append(run.name)
        run.worker_file.unlink()
    assert names == ["same", "same-2"]


@pytest.mark.fault(20)
def test_the_report_shows_names_as_text(setup, tmp_path):
    """A folder's name runs as a script."""
    html = setup.look(str(tmp_path / "<b>'\" onload='x'"))[setup.report]
    assert "&lt;b&gt;" in html and "<b>'" not in html and "\" onload='x'" not in html


@pytest.mark.fault(22)
def test_the_pictures_are_told_shortly_and_what_is_wrong_is_folded_by_kind(setup, tmp_path):
    """Five thousand pictures make the page crawl, or a warning for each of them pushes the form away."""
    noise = Image.effect_noise((160, 160), 80)
    for name, text in (("a", "a boat\na ship"), ("b", "a cat"), ("c", ""), ("e", ""), ("f", "a dog")):
        noise.rotate(17 * ord(name)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(text)
    for name in ("g", "h"):
        (tmp_path / f"{name}.png").write_bytes(b"no picture")
    html = setup.look(str(tmp_path))[setup.report]
    assert "4 pictures train, 1 held out for validation." in html and "Nothing to fix" not in html
    assert re.findall("<summary>(.*?)</summary>", html) == ["Cannot be read: 2", "2 pictures have no caption"]
    assert html.count("<img") == 5 and "g.png" in html.partition("<details")[2]


def test_nothing_to_fix_is_said_and_what_is_cropped_depends_on_the_resolution(setup, tmp_path):
    for i in range(4):
        Image.effect_noise((160, 160), 80 + i).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("a boat")
    assert "3 pictures train, 1 held out for validation. Nothing to fix." in setup.look(str(tmp_path))[setup.report]
    html = setup.look(str(tmp_path), Settings(resolution=512))[setup.report]
    small = "4 pictures are too small for 512 × 512 and are trained on at a smaller size"
    assert re.findall("<summary>(.*?)</summary>", html) == [small]
    for i in range(3):
        Image.effect_noise((160, 1200), 80 + i).save(tmp_path / f"{i}.png")
    html = setup.look(str(tmp_path))[setup.report]
    assert re.findall("<summary>(.*?)</summary>", html) == ["3 pictures are cropped by more than 30%"]


def test_pairs_of_prompts_are_told_in_place_of_pictures_and_train(setup, tmp_path, workers):
    path = tmp_path / "size.toml"
    path.write_text('[[pair]]\nprompt = "a cat"\ntowards = "a large cat"\naway = "a small cat"\n' * 2, "utf-8")
    html = setup.look(str(path))[setup.report]
    for part in ("2 pairs of prompts", "negative weights", "no pictures, so nothing is validated or judged"):
        assert part in html
    assert "#pictures" not in html
    run = setup.begin(*values(setup, data=str(path)))
    assert workers == ["size"] and run.settings().run.has_pairs
    path.write_text("[[pair]]", "utf-8")
    assert "prompt is missing." in setup.look(str(path))[setup.report]
    with pytest.raises(StudioError, match="prompt is missing"):
        setup.begin(*values(setup, data=str(path)))


def test_looking_does_not_undo_what_is_typed_meanwhile(setup, folder):
    """The answer to an earlier look overwrites the path that the user is typing."""
    assert setup.look(str(folder))[setup.data] == gr.skip()
    assert setup.look(f' "{folder}" ')[setup.data] == str(folder)
    assert setup.look("")[setup.data] == gr.skip()


def test_a_preset_is_explained_right_below_its_choice(setup):
    """Between the two, the text seems to belong to something else."""
    blurb = setup.preset_form.blurb
    blocks = blurb.parent.children
    assert setup.preset.parent.parent is blocks[blocks.index(blurb) - 1]


def test_a_broken_preset_is_told_and_the_others_work(monkeypatch, tmp_path):
    """One bad file in presets/ keeps the studio from opening."""
    from lora_studio.config import presets

    (tmp_path / "good.toml").write_text('title = "Good"\nblurb = "b"\n[settings]\nrank = 4\n')
    (tmp_path / "bad.toml").write_text('title = "Bad"\n[settings]\nrnk = 4\n')
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    with gr.Blocks():
        setup = Setup(tmp_path / "outputs")
    assert (
        list(setup.preset_form.found) == ["good"]
        and "Did you mean rank?" in setup.preset_form.blurb.value
        and setup.form.fields["rank"].value == "4"
    )


def test_nested_folders_are_looked_into_on_request(setup, folder):
    above = str(folder.parent)
    assert "my pictures (4 pictures)" in setup.look(above)[setup.report]
    assert (
        "3 pictures train, 1 held out for validation"
        in (html := setup.look(above, Settings(nested=True))[setup.report])
        and "not read" not in html
    )
