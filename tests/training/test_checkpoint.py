"""Checkpoints: whole or not at all."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_studio import files
from lora_studio.errors import RunError
from lora_studio.runs import Run
from lora_studio.training import checkpoint

STATE = {"step": 3, "optimizer": {"state": {0: {"exp_avg": torch.arange(4.0), "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}]}, "scaler": {}}


def write_adapter(path):
    path.write_bytes(b"adapter")


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


trees = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(), lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner))


@given(trees)
def test_any_tree_survives_json(tree):
    node = json.loads(json.dumps(checkpoint.flatten(tree, {})))
    assert checkpoint.unflatten(node, {}) == tree


@pytest.mark.parametrize("name", ["adapter.safetensors", "state.safetensors", "state.json", "manifest.json"])
def test_a_damaged_file_makes_the_older_checkpoint_the_latest(run, name):
    checkpoint.save(run, 1, STATE, write_adapter)
    newer = checkpoint.save(run, 2, STATE, write_adapter)
    assert checkpoint.latest(run) == newer
    (newer / name).write_bytes(b"{}")
    assert checkpoint.latest(run) == run.checkpoint(1)
    with pytest.raises(RunError, match="incomplete"):
        checkpoint.load(newer)


def test_a_full_disk_leaves_what_was_there(run, monkeypatch):
    checkpoint.save(run, 1, STATE, write_adapter)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync_file", full)
    with pytest.raises(RunError, match="No space left"):
        checkpoint.save(run, 2, STATE, write_adapter)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-1"]


def test_shared_tensors_are_saved(run):
    """8-bit optimizers share their quantisation map between parameters, which safetensors refuses to store as it is."""
    shared = torch.arange(3.0)
    loaded = checkpoint.load(checkpoint.save(run, 1, {"a": shared, "b": shared}, write_adapter))
    assert torch.equal(loaded["a"], loaded["b"])
