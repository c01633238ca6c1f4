"""Names that a system takes and a log, a page or another system does not: named, and in nobody's way."""

import os
import shutil
import sys

import orjson
import pytest

from lora_studio import adapters, cli, files, runs
from lora_studio.config.settings import Settings
from lora_studio.config.specs import from_text
from lora_studio.errors import RunError, SettingsError
from lora_studio.runs import branching, checkpoints, library
from lora_studio.ui import paths, words
from lora_studio.ui.pages.train import pictures, setup
from lora_studio.ui.pages.train.live import RunWatcher, TabState, tick
from tests.adapters.adapter_samples import small

FOREIGN, SHOWN = os.fsdecode(b"ink\xff"), "ink\\udcff"
"""A name of another encoding, as Python reads it, and as it is shown."""
LONG = "x" * 300
"""Longer than a system takes for one part of a path."""
NOT_ON_MACS = pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names")


@pytest.fixture
def outputs(tmp_path):
    """One good run with an adapter and a state."""
    run = runs.create(Settings(data="pictures", name="oil"), tmp_path / "outputs")
    adapters.write(small(), run.adapter_file)
    adapters.write(small(), run.checkpoint(5) / "adapter.safetensors")
    digest = files.sha256(run.checkpoint(5) / "adapter.safetensors")
    files.write(run.checkpoint(5) / checkpoints.MANIFEST, f'{{"adapter.safetensors": "{digest}"}}')
    return tmp_path / "outputs"


def page(outputs) -> bytes:
    """What the page sends to a new tab."""
    return orjson.dumps({name: {**update} for name, update in tick(TabState(), RunWatcher(outputs)).items()})


@NOT_ON_MACS
@pytest.mark.fault(76)
def test_a_run_of_a_foreign_name_is_named_and_hides_no_other(outputs):
    """The page could not send the list of runs: its answers were not valid JSON."""
    shutil.copytree(outputs / "oil", outputs / FOREIGN)
    assert [run.name for run in runs.existing(outputs)] == ["oil"]
    (told,) = library.catalogue(outputs).unreadable
    assert (told.what, told.do) == (f"{SHOWN} is not a valid Unicode name.", "Rename it.")
    assert b"oil" in page(outputs) and RunWatcher(outputs).find(FOREIGN) is None
    with pytest.raises(RunError, match="not a valid Unicode name"):
        runs.find(FOREIGN, outputs)


@NOT_ON_MACS
@pytest.mark.fault(76)
def test_an_adapter_of_a_foreign_name_is_named_and_hides_no_other(outputs):
    runs.library_folder(outputs).mkdir()
    shutil.copy(outputs / "oil" / "oil.safetensors", runs.library_folder(outputs) / f"{FOREIGN}.safetensors")
    for _ in range(2):
        found = library.catalogue(outputs)
        assert len(found.entries) == 2
        assert [one.what for one in found.unreadable] == [f"{SHOWN}.safetensors is not a valid Unicode name."]


@pytest.mark.fault(76)
@pytest.mark.parametrize("name", ["step-²", "step-", "step-5x", "step-١", f"step-{'9' * 200}", "step-05"])
def test_a_folder_that_is_named_almost_like_a_state_hides_no_state(outputs, name):
    """int("²") raised an error that ended every list of saved states, and the library."""
    run = runs.find("oil", outputs)
    shutil.copytree(run.checkpoint(5), run.checkpoints / name)
    assert [saved.step for saved in checkpoints.listed(run)] == [5]
    found = library.catalogue(outputs)
    assert [entry.step for entry in found.entries if entry.step is not None] == [5]
    assert [one.what for one in found.unreadable] == [f"{name} in oil is not named like a saved state."]
    with pytest.raises(RunError, match="no run named 'oil@²'"):
        branching.branch_point("oil@²", outputs)


@pytest.mark.fault(76)
@pytest.mark.parametrize("key", ["data", "base", "name", "trigger", "preview_prompts"])
def test_a_setting_of_a_foreign_name_is_refused_before_a_run_is_made(outputs, key):
    """The run's folder was made, and then its settings could not be written."""
    value = [FOREIGN] if key == "preview_prompts" else FOREIGN
    with pytest.raises(SettingsError, match=rf"{key}: ink\\udcff is not valid Unicode"):
        Settings().changed(**{key: value})
    assert from_text("trigger", "été") == "été"


@NOT_ON_MACS
@pytest.mark.fault(76)
def test_an_outputs_folder_of_a_foreign_name_is_refused(tmp_path):
    with pytest.raises(RunError, match="outputs folder is not valid Unicode") as caught:
        runs.create(Settings(data="pictures"), tmp_path / FOREIGN)
    assert SHOWN in caught.value.where and not (tmp_path / FOREIGN).exists()


@pytest.mark.fault(76)
def test_the_page_takes_any_name(outputs):
    assert words.text(f"<{FOREIGN}>") == f"&lt;{SHOWN}&gt;"
    for typed in (LONG, FOREIGN, "\0", "~nobody/pictures", "~" + LONG):
        assert paths.tidy(typed) == typed
        (problem,) = pictures.scan(typed, outputs).problems
        assert problem.severity == "blocking" and "no folder" in problem.what
        assert RunWatcher(outputs).find(typed) is None
    assert setup._bases(outputs) == [("Built-in starter", "starter")]


@pytest.mark.fault(76)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--data", LONG], "There is no folder"),
        (["train", "--data", "~nobody/x"], "There is no folder"),
        (["train", "--data", ".", "--preset", LONG], "no preset named"),
        (["checkpoints", LONG], "File name too long"),
        (["inspect", f"{LONG}.safetensors"], "File name too long. [x"),
        (["add", f"{LONG}.safetensors"], "shorter names"),
    ],
)
def test_the_command_line_takes_any_name(outputs, capfd, arguments, said):
    """They ended as a fault of the studio, with a traceback."""
    if arguments[0] != "inspect":
        arguments = [*arguments, "--outputs", str(outputs)]
    assert cli.main(arguments) == 2
    err = capfd.readouterr().err
    assert said in err and "Traceback" not in err and "Internal error" not in err
