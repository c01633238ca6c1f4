"""Checkpoints: whole or not at all."""

import json
import os
import signal
import sys

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_studio import files
from lora_studio.errors import RunError
from lora_studio.runs import Run, checkpoints
from lora_studio.training import checkpoint

STATE = {
    "step": 3,
    "optimizer": {
        "state": {0: {"exp_avg": torch.arange(4.0), "step": torch.tensor(3.0)}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}],
    },
    "scaler": {},
}


def write_adapter(path):
    files.write(path, b"adapter")


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_a_state_comes_back_as_it_was(run):
    """Integer keys, tuples and 0-d tensors survive: optimizers need each of them."""
    loaded = checkpoint.load(checkpoint.save(run, 3, STATE, write_adapter))
    assert loaded["optimizer"]["param_groups"] == STATE["optimizer"]["param_groups"]
    assert isinstance(loaded["optimizer"]["param_groups"][0]["betas"], tuple)
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], torch.arange(4.0))
    assert loaded["optimizer"]["state"][0]["step"].shape == ()


@pytest.mark.fault(70)
def test_no_file_of_a_loaded_state_stays_open(run):
    """Optimizers keep the tensors that they are given, and Windows removes no file that is mapped into memory."""
    folder = checkpoint.save(run, 3, STATE, write_adapter)
    loaded = checkpoint.load(folder)
    process = psutil.Process()
    held = [one.path for one in (*process.memory_maps(), *process.open_files()) if str(folder) in one.path]
    assert held == [] and torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], torch.arange(4.0))


def test_a_state_takes_the_place_of_an_older_one_of_its_step_and_keeps_its_star(run):
    """After a rollback the older one is of a course that was given up."""
    checkpoint.save(run, 1, state(1), write_adapter)
    checkpoints.star(run, 1)
    checkpoint.save(run, 1, state(9), write_adapter)
    (saved,) = checkpoints.listed(run)
    assert checkpoint.load(saved.folder)["step"] == 9 and saved.starred


trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(trees)
def test_any_tree_survives_json(tree):
    node = json.loads(json.dumps(checkpoint.flatten(tree, {})))
    assert checkpoint.unflatten(node, {}) == tree


@pytest.mark.parametrize("name", ["adapter.safetensors", "state.safetensors", "state.json", "manifest.json"])
def test_a_damaged_file_makes_the_older_checkpoint_the_latest(run, name):
    checkpoint.save(run, 1, STATE, write_adapter)
    newer = checkpoint.save(run, 2, STATE, write_adapter)
    assert checkpoints.latest(run) == newer
    (newer / name).write_bytes(b"{}")
    assert checkpoints.latest(run) == run.checkpoint(1)
    with pytest.raises(RunError, match="incomplete"):
        checkpoint.load(newer)


@pytest.mark.fault(41)
def test_a_full_disk_leaves_what_was_there_and_the_room_is_named(run, monkeypatch):
    checkpoint.save(run, 1, STATE, write_adapter)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(files.DiskFull, match=r"step 2 could not be saved: the disk is full, [\d,]+ MB are free"):
        checkpoint.save(run, 2, STATE, write_adapter)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-1"] and checkpoints.complete(run.checkpoint(1))


def state(step):
    return {"step": step, "weights": torch.full((4,), float(step))}


def assert_one_is_whole(run, *steps):
    """The latest checkpoint loads, and is one of ``steps`` in every bit."""
    loaded = checkpoint.load(checkpoints.latest(run))
    assert loaded["step"] in steps and torch.equal(loaded["weights"], torch.full((4,), float(loaded["step"])))


@pytest.mark.fault(39, 43)
@pytest.mark.skipif(os.name == "nt", reason="fork and SIGKILL")
def test_killed_at_every_phase_of_saving_and_pruning_the_latest_whole_one_loads(run):
    """A process of its own is killed at the first thing it does to a file, then another at the second, until one comes
    through.
    """
    checkpoint.save(run, 1, state(1), write_adapter)
    deaths = 0

    def save():
        checkpoint.save(run, 2 + deaths, state(2 + deaths), write_adapter)
        checkpoints.prune(run, 1, 0)

    while _child_dies(save, run, deaths):
        assert_one_is_whole(run, *range(1, deaths + 3))
        files.sweep(run.folder, lives=lambda process: False)
        assert not [*run.folder.rglob("*" + files.PARTIAL)]
        assert_one_is_whole(run, *range(1, deaths + 3))
        deaths += 1
    assert deaths > 20, "a save opens, renames and removes more files than that"
    assert checkpoints.latest(run) == run.checkpoint(2 + deaths) and len(checkpoints.listed(run)) == 1


def _child_dies(act, run, after):
    """Whether a child that does ``act`` comes to its file operation number ``after``, at which it is killed."""
    child = os.fork()
    if not child:
        left = [after]

        def hook(event, arguments):
            if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir") and str(run.folder) in str(
                arguments[0]
            ):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

        try:
            sys.addaudithook(hook)
            act()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_shared_tensors_are_saved(run):
    """8-bit optimizers share their quantization map between parameters, which safetensors refuses to store as it is."""
    shared = torch.arange(3.0)
    loaded = checkpoint.load(checkpoint.save(run, 1, {"a": shared, "b": shared}, write_adapter))
    assert torch.equal(loaded["a"], loaded["b"])
