"""Preservation: without the trigger word the base model's own answer is the target."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from lora_studio.config.settings import Settings
from lora_studio.diffusion.gaussian import Epsilon
from lora_studio.errors import SettingsError
from lora_studio.models import fused
from lora_studio.training import preservation
from lora_studio.training.batches import Batch, Texts
from tests.training.test_loss import NOISE, SCHEDULE, X0
from tests.training.test_stepper import prepared, quiet

PLAIN = Texts({"hidden": torch.tensor([[1.0], [3.0]])}, ["a", "b"], 0)


def linear(up: float) -> nn.Module:
    """y = 2 x as the base, and (2 + up) x with its adapter."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    inject_adapter_in_model(LoraConfig(r=1, lora_alpha=1, target_modules=["0"]), model)
    with torch.no_grad():
        model[0].weight.fill_(2)
        model[0].lora_A["default"].weight.fill_(1)
        model[0].lora_B["default"].weight.fill_(up)
    return model


def preserved(up: float) -> tuple[torch.Tensor, nn.Module]:
    """The loss of a model that answers its texts alone, of 1 and 3."""
    model = linear(up)
    base = SimpleNamespace(
        process=Epsilon(SCHEDULE),
        models={"unet": model},
        start=None,
        loaded=None,
        words=SimpleNamespace(without=nullcontext),
        predict=lambda noisy, timesteps, text, sizes, inpainting: model(text["hidden"]).view(2, 1, 1, 1),
    )
    batch = Batch(X0, NOISE, torch.tensor([0, 1]), torch.zeros(2, 6), {}, [], weights=torch.zeros(2, 1, 1, 1))
    return preservation.losses(base, batch, PLAIN, lambda texts: texts.features), model


def test_an_adapter_that_changes_nothing_has_no_loss():
    assert preserved(0.0)[0].tolist() == [0.0, 0.0]


def test_the_loss_is_the_squared_distance_from_the_base_and_its_gradient_goes_to_the_adapter():
    """Answers of 2.5 and 7.5 in place of 2 and 6, whatever a mask says; d(½ (0.5² + 1.5²))/d up = 0.5 + 4.5."""
    found, model = preserved(0.5)
    assert found.tolist() == [0.25, 2.25]
    found.mean().backward()
    assert model[0].lora_B["default"].weight.grad.item() == pytest.approx(5.0)
    assert model[0].base_layer.weight.grad is None and not model[0].disable_adapters


def test_it_needs_a_trigger_word():
    with pytest.raises(SettingsError, match="preserve_weight needs a trigger word"):
        Settings(trigger="ink").changed(preserve_weight=1, trigger=" ")


PRESERVED = {"preserve_weight": 1, "preserve_every": 2, "preserve_class": "thing", "caption_dropout": 1}


def test_every_nth_batch_preserves_its_captions_also_where_they_are_dropped(new_run, settings):
    session = prepared(new_run(quiet(settings, **PRESERVED)))
    first, second, third = (session.data.batches.draw(number) for number in range(3))
    assert second.plain is None and first.plain and third.plain and first.captions == ["", ""]
    assert all(text.startswith("thing, disc number ") for text in first.plain.captions)
    expected = session.data.cache.of_captions(first.plain.captions)["hidden"]
    assert torch.equal(first.plain.features["hidden"], expected) and "plain hidden" in first.tensors()
    assert "plain hidden" not in second.tensors() and not torch.equal(expected, first.text["hidden"])
    moved = first.replaced({name: tensor + 1 for name, tensor in first.tensors().items()})
    assert torch.equal(moved.plain.features["hidden"], expected + 1)


@pytest.mark.parametrize("train_text", [False, True])
def test_a_step_adds_the_gradient_of_what_is_preserved_by_its_weight(new_run, settings, train_text):
    """Nothing for a new adapter; twice the weight, twice as much for one that has learned something."""
    session = prepared(new_run(quiet(settings, **PRESERVED, train_text=train_text)))
    fused.disable(session.base.unet)
    stepper, batch, found = session.stepper, session.data.batches.draw(0), []

    def gradient(weight: float) -> torch.Tensor:
        stepper.settings = session.settings.changed(preserve_weight=weight)
        stepper.flat.zero_grad()
        stepper.loss.zero_()
        stepper.backward(batch if weight else batch._replace(plain=None))
        found.append(stepper.loss.item())
        return stepper.flat.gradients.clone()

    assert torch.equal(gradient(0), gradient(1))
    stepper.flat.values.add_(0.05 * torch.randn(len(stepper.flat.values), generator=torch.Generator().manual_seed(1)))
    without, once, twice = gradient(0), gradient(1), gradient(2)
    assert (once - without).norm() > 0.001 * without.norm()
    assert torch.allclose(twice - without, 2 * (once - without), atol=1e-4 * float(once.abs().max()))
    assert len(set(found[2:])) == 1, "the loss that is shown is that of the pictures"
