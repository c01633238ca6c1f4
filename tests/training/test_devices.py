"""Choosing the machine."""

import pytest
import torch

from lora_studio.errors import MachineError
from lora_studio.settings import Settings
from lora_studio.training import devices


def test_a_cpu_trains_in_float32():
    assert devices.choose(Settings(device="cpu")).dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA GPU is here")
def test_a_missing_gpu_is_said_plainly():
    with pytest.raises(MachineError, match="no CUDA GPU"):
        devices.choose(Settings(device="cuda"))


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        (Settings(batch=4), "batch", "Set batch to 2 and accumulate to 2"),
        (Settings(batch=3, accumulate=2), "batch", "Set batch to 1 and accumulate to 6"),
        (Settings(), "checkpointing", "Set checkpointing to all"),
        (Settings(checkpointing="largest"), "checkpointing", "Set checkpointing to all"),
        (Settings(checkpointing="all"), "quantize", "nf4"),
        (Settings(checkpointing="all", quantize="nf4"), "optimizer", "adamw8bit"),
        (Settings(checkpointing="all", quantize="nf4", optimizer="adamw8bit"), "resolution", "lower resolution"),
    ],
)
def test_out_of_memory_names_the_cheapest_mend(settings, field, words):
    error = devices.out_of_memory("GPU", settings)
    assert error.where == field and words in error.do
