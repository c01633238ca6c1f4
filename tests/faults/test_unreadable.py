"""One thing in the outputs folder that cannot be read: it says so itself, and everything else works on."""

import errno
import os

import pytest

from lora_studio import adapters, files, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import RunError, SettingsError
from lora_studio.events import State, StateChanged
from lora_studio.jobs import queue, runner, view
from lora_studio.jobs.eventlog import EventLog
from lora_studio.runs import checkpoints, library
from lora_studio.ui.pages.runs import panel_view
from lora_studio.ui.pages.runs.panel_view import PanelState
from lora_studio.ui.pages.runs.rows import RowCache
from lora_studio.ui.pages.train import setup
from lora_studio.ui.pages.train.live import RunWatcher, TabState, tick
from tests.adapters.adapter_samples import small
from tests.faults.unreadable import make_unreadable

PLACES = {
    "a foreign folder": "lost+found",
    "a run": "ink",
    "its settings": "ink/settings.toml",
    "its log": "ink/events.jsonl",
    "its worker's note": "ink/worker.json",
    "its requests": "ink/control",
    "its previews": "ink/previews",
    "its saved states": "ink/checkpoints",
    "one of its states": "ink/checkpoints/step-5",
    "its adapter": "ink/ink.safetensors",
    "the library": "library",
}
NUMBERS = [errno.EACCES, errno.EIO]


@pytest.fixture
def outputs(tmp_path):
    """Two runs, ``ink`` the newer one, with all that a run has, a library, and a folder of the disk's own."""
    folder = tmp_path / "outputs"
    for name in ("oil", "ink"):
        run = runs.create(Settings(data="pictures", name=name), folder)
        EventLog(run.events_file).append(StateChanged(state=State.INTERRUPTED))
        adapters.write(small(), run.adapter_file)
        for step in (5, 9):
            adapters.write(small(), run.checkpoint(step) / "adapter.safetensors")
            digest = files.sha256(run.checkpoint(step) / "adapter.safetensors")
            files.write(run.checkpoint(step) / checkpoints.MANIFEST, f'{{"adapter.safetensors": "{digest}"}}')
        files.write(run.worker_file, '{"pid": 0}')
        os.utime(run.settings_file, (1e9, 1e9 + (name == "ink")))
    adapters.write(small(), runs.library_folder(folder) / "found.safetensors")
    (folder / "lost+found").mkdir()
    return folder


def shown(outputs):
    """What the page shows a new tab, with the panel of all runs: all parts as one text."""
    listed = panel_view.shown(PanelState(open=True), "", RunWatcher(outputs), RowCache(outputs))
    return str(tick(TabState(), RunWatcher(outputs))) + str(listed)


@pytest.mark.fault(68)
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("place", PLACES)
def test_everything_else_works_on(outputs, monkeypatch, place, number):
    """A disk's lost+found raised PermissionError from every list of runs; the page's tick swallowed it and froze."""
    make_unreadable(monkeypatch, outputs / PLACES[place], number)
    oil = runs.find("oil", outputs)
    assert oil.name in [run.name for run in runs.existing(outputs)]
    assert runner.at_work(outputs) == [] and runner.active(outputs) is None
    assert all(queue.ahead(run) == [] for run in runs.existing(outputs))
    assert {"name": "oil", "state": "interrupted", "progress": 0.0} in RunWatcher(outputs).summary()
    assert "oil" in shown(outputs)
    kept = [entry for entry in library.catalogue(outputs).entries if entry.run == "oil"]
    assert len(kept) == 3
    assert ("Built-in starter", "starter") in setup._bases(outputs)


@pytest.mark.fault(68)
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    "place", ["a foreign folder", "a run", "its saved states", "one of its states", "its adapter", "the library"]
)
def test_the_library_says_what_cannot_be_read(outputs, monkeypatch, place, number):
    make_unreadable(monkeypatch, outputs / PLACES[place], number)
    told = [one for one in library.catalogue(outputs).unreadable if one.path.startswith(str(outputs / PLACES[place]))]
    assert told and all(os.strerror(number) in one.what and one.do for one in told)


@pytest.mark.fault(68)
@pytest.mark.parametrize("number", NUMBERS)
def test_a_file_that_can_be_read_again_is_shown_again(outputs, monkeypatch, number):
    """Permissions can be put right without a change to the file: an index that remembers the failure is wrong."""
    before = len(library.entries(outputs))
    with monkeypatch.context() as patch:
        make_unreadable(patch, outputs / "ink" / "ink.safetensors", number)
        assert len(library.entries(outputs)) == before - 1
    assert len(library.entries(outputs)) == before


@pytest.mark.fault(68)
@pytest.mark.parametrize("number", NUMBERS)
def test_a_log_that_cannot_be_read_fails_the_view_until_it_can(outputs, monkeypatch, number):
    tab, watcher = TabState(), RunWatcher(outputs)
    with monkeypatch.context() as patch:
        make_unreadable(patch, outputs / "ink" / "events.jsonl", number)
        seen = view.fold(runs.find("ink", outputs))
        assert seen.state is State.FAILED and os.strerror(number) in seen.failed.what
        assert "events.jsonl" in seen.failed.what and seen.failed.do and not seen.failed.ours
        state = tick(tab, watcher)["state"]["value"]
        assert os.strerror(number) in state
    EventLog(outputs / "ink" / "events.jsonl").append(StateChanged(state=State.INTERRUPTED))
    assert "Interrupted" in tick(tab, watcher)["state"]["value"]


@pytest.mark.fault(68)
@pytest.mark.parametrize("number", NUMBERS)
def test_the_run_itself_says_so(outputs, monkeypatch, number):
    with monkeypatch.context() as patch:
        make_unreadable(patch, outputs / "ink", number)
        with pytest.raises(RunError, match=f"ink cannot be read: {os.strerror(number)}"):
            runs.find("ink", outputs)
    with monkeypatch.context() as patch:
        make_unreadable(patch, outputs / "ink" / "settings.toml", number)
        with pytest.raises((SettingsError, RunError), match=os.strerror(number)):
            runs.find("ink", outputs).settings()


@pytest.mark.fault(68)
@pytest.mark.parametrize("number", NUMBERS)
def test_states_that_cannot_be_listed_are_never_taken_for_none(outputs, monkeypatch, number):
    """A resumed run would begin again at step 0."""
    run = runs.find("ink", outputs)
    assert checkpoints.latest(run) == run.checkpoint(9)
    make_unreadable(monkeypatch, run.checkpoints, number)
    with pytest.raises(RunError, match=f"checkpoints cannot be read: {os.strerror(number)}"):
        checkpoints.latest(run)
    assert f"checkpoints cannot be read: {os.strerror(number)}" in shown(outputs)


@pytest.mark.fault(56, 68)
@pytest.mark.parametrize("number", NUMBERS)
def test_an_outputs_folder_that_cannot_be_read_is_named_on_the_page(outputs, monkeypatch, number):
    """The drive is gone, and the page shows for ever what it showed last."""
    tab, watcher = TabState(), RunWatcher(outputs)
    tick(tab, watcher)
    with monkeypatch.context() as patch:
        make_unreadable(patch, outputs, number)
        state = tick(tab, watcher)["state"]["value"]
        assert os.strerror(number) in state and str(outputs) in state
        assert tick(tab, watcher) == {}
    assert "Interrupted" in tick(tab, watcher)["state"]["value"]


@pytest.mark.fault(68)
@pytest.mark.parametrize("text", ["rank = ", "rank = 'x'", "rnak = 3", "\0"])
def test_damaged_settings_are_shown_as_what_they_are(outputs, text):
    """The page said that the run was waiting."""
    run = runs.create(Settings(data="pictures", name="new"), outputs)
    run.settings_file.write_text(text)
    tab = tick(TabState(), RunWatcher(outputs))
    assert "settings.toml" in tab["state"]["value"] and "notice wrong" in tab["state"]["value"]
    assert "Waiting" not in tab["state"]["value"] and "<b>Damaged</b>" in tab["state"]["value"]
    assert not tab["resume"]["visible"], "it cannot be started"
    assert RowCache(outputs).row(run).state == "Damaged"


@pytest.mark.fault(68)
def test_a_run_whose_log_is_a_folder_is_not_started(outputs):
    """The command gave up, and the worker trained on unseen."""
    run = runs.find("oil", outputs)
    run.events_file.unlink()
    run.events_file.mkdir()
    with pytest.raises(RunError, match=r"events.jsonl is a folder, so it could not report anything") as caught:
        runner.start(run)
    assert "Move that folder away" in caught.value.do and not runner.alive(run)


SWAPPED = ["ink/settings.toml", "ink/events.jsonl", "ink/worker.json", "ink/ink.safetensors", "ink/manifest.json"]


@pytest.mark.fault(68)
@pytest.mark.parametrize("name", [*SWAPPED, "ink", "ink/checkpoints", "ink/previews", "ink/control", "library"])
def test_a_file_for_a_folder_or_a_folder_for_a_file_takes_nothing_along(outputs, name):
    path = outputs / name
    if path.is_dir():
        files.remove(path)
        path.write_text("a file")
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
    assert "oil" in [run.name for run in runs.existing(outputs)]
    assert runner.at_work(outputs) == [] and all(queue.ahead(run) == [] for run in runs.existing(outputs))
    assert {"name": "oil", "state": "interrupted", "progress": 0.0} in RunWatcher(outputs).summary()
    assert "oil" in shown(outputs)
    assert len([entry for entry in library.catalogue(outputs).entries if entry.run == "oil"]) == 3
