"""Groups, rates and every optimizer by name."""

import pytest
import torch
from torch import nn

from lora_studio.config.settings import SPECS, Settings
from lora_studio.errors import SettingsError
from lora_studio.optim import registry

NAMES = SPECS["optimizer"].choices


def named(value: float = 0.0) -> list[tuple[str, nn.Parameter]]:
    return [
        ("to_q.lora_A.default.weight", nn.Parameter(torch.full((2, 4), value + 1))),
        ("to_q.lora_B.default.weight", nn.Parameter(torch.full((4, 2), value))),
    ]


def test_lora_plus_gives_b_its_own_rate():
    """LoRA+ with λ = 16: A at η, B at 16 η."""
    rates = {
        len(group["params"][0]): group["lr"]
        for group in registry.groups(named(), Settings(learning_rate=1e-3, lora_plus=16))
    }
    assert rates == {2: 1e-3, 4: 1.6e-2}


def test_plain_lora_has_one_group():
    assert len(registry.groups(named(), Settings())) == 1


def test_the_schedule_scales_every_group_and_keeps_their_ratio():
    settings = Settings(learning_rate=1e-3, lora_plus=4, steps=4, schedule="linear", warmup=0)
    optimizer = registry.build(named(), settings).optimizer
    assert registry.set_rate(optimizer, 2, settings) == pytest.approx(5e-4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-4, 2e-3])


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_lowers_a_parabola(name):
    """Each name builds an optimizer that really descends ‖B − 1‖² from 4×2 zeros (8 before)."""
    settings = Settings(
        optimizer=name,
        learning_rate=1.0 if name == "prodigy" else 0.05,
        steps=80,
        schedule="constant",
        warmup=0,
        weight_decay=0,
    )
    parameters = named()
    optimizer, flat, _ = registry.build(parameters, settings)
    b = parameters[1][1]
    registry.mode(optimizer, training=True)
    for step in range(80):
        registry.set_rate(optimizer, step, settings)
        flat.clear()
        ((b - 1) ** 2).sum().add(parameters[0][1].sum() * 0).backward()
        optimizer.step()
    registry.mode(optimizer, training=False)
    assert ((b - 1) ** 2).sum().item() < 4.0


def test_prodigy_refuses_lora_plus_and_says_which_setting():
    with pytest.raises(SettingsError, match="lora_plus"):
        registry.build(named(), Settings(optimizer="prodigy", lora_plus=4))
