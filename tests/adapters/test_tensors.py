"""Our writer of the container against the library's: the same bytes, and what a stream leaves behind."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from lora_studio.adapters.head import head
from lora_studio.adapters.tensors import DTYPES, body, laid_out, load, stream
from tests.adapters.adapter_samples import drawn

TENSORS = {
    "b": drawn("b", (3, 2), torch.float16),
    "a": drawn("a", (2, 2)),
    "z": torch.zeros(1, dtype=torch.float64),
    "s": torch.tensor(2.5),
    "e": torch.zeros(0, 4),
    "i": torch.arange(5),
    "h": drawn("h", (5,), torch.bfloat16),
    "é": torch.ones(1, dtype=torch.uint8),
}


def test_our_bytes_are_the_librarys():
    """Hashes that other programs compute over the file depend on its exact layout."""
    entries, data = body(TENSORS)
    assert head(entries, {"ss_title": 'quo"te\nü'}) + data == safetensors.torch.save(TENSORS, {"ss_title": 'quo"te\nü'})
    assert head(entries, {}) + data == safetensors.torch.save(TENSORS)


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_every_number_format_comes_back(dtype, tmp_path):
    tensor = torch.tensor([[0, 1, 2]]).to(dtype)
    safetensors.torch.save_file({"x": tensor}, tmp_path / "x.safetensors")
    (back, _) = load(tmp_path / "x.safetensors")
    assert back["x"].dtype == dtype and torch.equal(back["x"].to(torch.float64), tensor.to(torch.float64))


def test_streaming_writes_the_same_file(tmp_path):
    entries = laid_out({name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()})
    assert list(stream(tmp_path / "x.safetensors", entries, {}, TENSORS.__getitem__)) == list(entries)
    assert (tmp_path / "x.safetensors").read_bytes() == safetensors.torch.save(TENSORS)


def test_a_stream_that_is_given_up_leaves_nothing(tmp_path):
    entries = laid_out({name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()})
    stopped = stream(tmp_path / "x.safetensors", entries, {}, TENSORS.__getitem__)
    next(stopped)
    assert len(list(tmp_path.iterdir())) == 1
    stopped.close()
    assert not list(tmp_path.iterdir())
