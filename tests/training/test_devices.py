"""Choosing the machine."""

import pytest
import torch

from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError
from lora_studio.optim.registry import OPTIMIZERS, rate_warning, usual_rates
from lora_studio.training import devices, memory, stepper
from tests.benchmarks.memory import shapes as exact


def test_a_cpu_trains_in_float32():
    assert devices.choose(Settings(device="cpu").machine).dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA GPU is here")
def test_a_missing_gpu_is_said_plainly():
    with pytest.raises(MachineError, match="no CUDA GPU"):
        devices.choose(Settings(device="cuda").machine)


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
def test_out_of_memory_names_the_cheapest_change(settings, field, words):
    error = devices.out_of_memory("GPU", settings)
    assert error.where == field and words in error.do
    assert settings.changed(**error.details["changes"]) != settings or field == "resolution"


TIGHT = {"checkpointing": "all", "quantize": "nf4"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_offered_optimizer_brings_its_rates(name):
    """Prodigy's rate of 1 left to 8-bit AdamW diverges in its first steps. By rule of thumb, and as estimated."""
    settings, row = Settings(optimizer=name, **usual_rates(name), **TIGHT), OPTIMIZERS[name]
    changes = devices.out_of_memory("GPU", settings).details["changes"]
    estimated = [saving.changes for saving in memory.savings(settings, exact("sdxl"), "bf16", 2**60)]
    assert changes.get("optimizer", "") == row.smaller and (changes in estimated) == bool(row.smaller)
    after = settings.changed(**changes).optimizer
    assert not rate_warning(after)
    if row.smaller and OPTIMIZERS[row.smaller].update_rule != row.update_rule:
        assert usual_rates(row.smaller).items() <= changes.items()
    else:
        assert after.learning_rate == settings.optimizer.learning_rate


def test_the_offer_to_a_run_of_prodigy_says_the_rate():
    error = devices.out_of_memory("GPU", Settings(optimizer="prodigy", learning_rate=1.0, **TIGHT))
    assert "Set optimizer to adamw8bit, learning_rate to 0.0002 and text_learning_rate to 5e-05:" in error.do


def test_what_is_estimated_to_fit_comes_before_the_rule_of_thumb():
    error = devices.out_of_memory("GPU", Settings(batch=4), {"checkpointing": "all", "tiled_vae": True})
    assert (
        error.where == "checkpointing"
        and "Set checkpointing to all and tiled_vae to on: the same training in much less memory" in error.do
    )


def test_the_least_change_that_should_fit_is_estimated_from_the_base_models_shapes(monkeypatch):
    assert memory.suggest(Settings(batch=4), "bf16", 2**40) == {"batch": 1, "accumulate": 4}
    monkeypatch.setattr(
        memory, "_on_gpu", lambda settings: False
    )  # what a GPU's libraries take is more than the starter
    assert set(memory.suggest(Settings(), "bf16", 67 * 2**20)) == {"checkpointing", "quantize", "optimizer"}, (
        "no single change is enough on a device of 67 MB"
    )
    assert memory.suggest(Settings(base="/no/such/model"), "bf16", 2**40) == {}


def test_an_intel_card_is_the_fastest_device_where_there_is_no_cuda_gpu(monkeypatch):
    """Simulated: none is here to test on."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match="no Intel GPU"):
        devices.choose(Settings(device="xpu").machine)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    chosen = devices.choose(Settings().machine)
    assert (chosen.device.type, chosen.precision) == ("xpu", "bf16")
    assert stepper.obstacle(Settings().adapter, Settings().machine, chosen.device) == "there is no CUDA GPU"
