"""What the rows say, and that an optimizer needs nothing but its row."""

import pytest
import torch

from lora_studio.config.settings import Settings, check
from lora_studio.config.specs import SPECS, from_text
from lora_studio.errors import SettingsError
from lora_studio.events import Finished, StepDone
from lora_studio.optim import registry
from lora_studio.optim.registry import OPTIMIZERS, OptimizerSpec
from lora_studio.training import devices, memory
from lora_studio.training.loop import train
from tests.benchmarks.memory import shapes as exact
from tests.training.conftest import new_run, pictures, settings, tiny_base  # noqa: F401
from tests.training.test_loop import assert_same, collect, state_tensors, tensors


@pytest.mark.parametrize("spec", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_row_is_complete_and_agrees_with_itself(spec):
    assert spec.title and spec.help and not spec.help.endswith(".")
    assert Settings(optimizer=spec.name, **registry.usual_rates(spec.name)).optimizer.optimizer == spec.name
    low, high = spec.sensible_rates
    assert low < spec.learning_rate < high
    assert not spec.smaller or OPTIMIZERS[spec.smaller].state_bytes < spec.state_bytes / 2
    for other in OPTIMIZERS.values():
        if other.update_rule == spec.update_rule:
            assert registry.usual_rates(other.name) == registry.usual_rates(spec.name)


def test_the_usual_rates():
    assert registry.usual_rates("adamw") == {"learning_rate": 2e-4, "text_learning_rate": 5e-5}
    assert registry.usual_rates("prodigy") == {"learning_rate": 1.0, "lora_plus": 1.0}


@pytest.mark.parametrize(
    ("name", "rate", "said"),
    [
        ("prodigy", 3e-4, "Prodigy will learn next to nothing at a learning rate of 0.0003. Its usual"),
        ("adamw", 1.0, "AdamW is likely to diverge at a learning rate of 1. Its usual learning rate is 0.0002."),
        ("adamw8bit", 1.0, "8-bit AdamW is likely to diverge"),
        ("prodigy", 1.0, ""),
        ("adamw", 8e-4, ""),
    ],
)
def test_a_rate_that_makes_no_sense_is_warned_of(name, rate, said):
    warning = registry.rate_warning(Settings(optimizer=name, learning_rate=rate).optimizer)
    assert warning.startswith(said) and bool(warning) == bool(said)


MOMENTUM = OptimizerSpec(
    name="momentum",
    title="SGD with momentum",
    help="SGD with momentum has one moment and no more",
    path="torch.optim.SGD",
    update_rule="SGD",
    learning_rate=0.3,
    text_learning_rate=0.1,
    sensible_rates=(1e-3, 10.0),
    state_bytes=4,
    options=lambda values, steps: {"momentum": 0.9, "weight_decay": values.weight_decay},
    smaller="adafactor",
)


@pytest.fixture
def momentum(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, MOMENTUM.name, MOMENTUM)


def test_an_optimizer_of_one_row_trains_and_resumes_to_the_bit(momentum, new_run, settings):  # noqa: F811
    """With everything that draws random numbers switched on, from its usual rate."""
    random = {"dropout": 0.3, "ema": 0.9, "accumulate": 2, "flip": True, "caption_dropout": 0.5}
    settings = settings.changed(optimizer="momentum", preview_every=0, validate_every=0, **random)
    assert settings.optimizer.learning_rate == 0.3
    whole, torn = new_run(settings), new_run(settings)
    assert isinstance(collect(whole)[-1], Finished)
    for event in train(torn, settings):
        if isinstance(event, StepDone) and event.step == 3:
            break  # the worker dies here, one step after it saved a state
    collect(torn)
    assert_same(tensors(whole.adapter_file), tensors(torn.adapter_file))
    assert_same(state_tensors(whole), state_tensors(torn))
    assert any(tensor.any() for name, tensor in tensors(whole.adapter_file).items() if name.endswith(".up"))


def test_an_optimizer_of_one_row_is_offered_checked_and_estimated(momentum):
    assert "momentum" in SPECS["optimizer"].choices and from_text("optimizer", "momentum") == "momentum"
    assert SPECS["optimizer"].title("momentum") == "SGD with momentum"
    with pytest.raises(SettingsError, match="adafactor-relative, momentum; it is 'momentun'. Did you mean momentum"):
        check({"optimizer": "momentun"})
    shape = exact("sd1")
    one, two = (memory.estimate(Settings(optimizer=name), shape, "bf16").optimizer for name in ("momentum", "adamw"))
    assert 2 * one == two
    tight = Settings(optimizer="momentum", checkpointing="all", quantize="nf4")
    assert devices.out_of_memory("GPU", tight).details["changes"] == {
        "optimizer": "adafactor",
        **registry.usual_rates("adafactor"),
    }


def test_rows_are_read_without_torch():
    """Settings, page and command line read them while they start."""
    assert not any(value is torch for value in vars(registry).values())
