"""Groups, rates and every optimizer of the registry."""

import pytest
import torch
from torch import nn

from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError, SettingsError
from lora_studio.optim import build, registry


def named(value: float = 0.0) -> list[tuple[str, nn.Parameter]]:
    return [
        ("to_q.lora_A.default.weight", nn.Parameter(torch.full((2, 4), value + 1))),
        ("to_q.lora_B.default.weight", nn.Parameter(torch.full((4, 2), value))),
    ]


def test_lora_plus_gives_b_its_own_rate():
    """LoRA+ with λ = 16: A at η, B at 16 η."""
    groups = build.groups(named(), Settings(learning_rate=1e-3, lora_plus=16).optimizer)
    assert {len(group["params"][0]): group["lr"] for group in groups} == {2: 1e-3, 4: 1.6e-2}


def test_plain_lora_has_one_group():
    assert len(build.groups(named(), Settings().optimizer)) == 1


def test_the_schedule_scales_every_group_and_keeps_their_ratio():
    values = Settings(learning_rate=1e-3, lora_plus=4, schedule="linear", warmup=0).optimizer
    optimizer = build.flat_optimizer(named(), values, 4).optimizer
    assert build.set_rate(optimizer, values, 2, 4) == pytest.approx(5e-4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-4, 2e-3])


@pytest.mark.parametrize("name", registry.OPTIMIZERS)
def test_an_optimizer_with_a_schedule_of_its_own_keeps_its_rate(name):
    values = Settings(optimizer=name, learning_rate=1e-3, schedule="linear", warmup=0).optimizer
    optimizer = build.flat_optimizer(named(), values, 4).optimizer
    expected = 1e-3 if registry.get(name).own_schedule else 2.5e-4
    assert build.set_rate(optimizer, values, 3, 4) == pytest.approx(expected)


@pytest.mark.parametrize("name", registry.OPTIMIZERS)
def test_every_optimizer_lowers_a_parabola(name):
    """Each name builds an optimizer that really descends ‖B − 1‖² from 4×2 zeros (8 before)."""
    rate = 1.0 if registry.get(name).one_rate else 0.05
    values = Settings(optimizer=name, learning_rate=rate, schedule="constant", warmup=0, weight_decay=0).optimizer
    parameters = named()
    optimizer, flat, _ = build.flat_optimizer(parameters, values, 80)
    b = parameters[1][1]
    build.mode(optimizer, training=True)
    for step in range(80):
        build.set_rate(optimizer, values, step, 80)
        flat.zero_grad()
        ((b - 1) ** 2).sum().add(parameters[0][1].sum() * 0).backward()
        optimizer.step()
    build.mode(optimizer, training=False)
    assert ((b - 1) ** 2).sum().item() < 4.0


def test_an_optimizer_prints_nothing(capfd, caplog):
    """Prodigy announces its way of weight decay on standard output, where ``--json`` prints results."""
    caplog.set_level("INFO")
    build.flat_optimizer(named(), Settings(optimizer="prodigy", weight_decay=0.01).optimizer, 4)
    assert capfd.readouterr().out == "" and "decoupled weight decay" in caplog.text


def test_prodigy_refuses_lora_plus_and_says_which_setting():
    with pytest.raises(SettingsError, match="lora_plus"):
        build.flat_optimizer(named(), Settings(optimizer="prodigy", lora_plus=4).optimizer, 4)


def test_a_library_that_does_not_work_is_named_with_optimizers_that_do_without_it(monkeypatch):
    """A traceback of bitsandbytes tells an artist nothing."""

    def broken(name):
        raise RuntimeError("no CUDA")

    monkeypatch.setattr(build, "import_module", broken)
    with pytest.raises(MachineError, match="bitsandbytes does not work on this machine: no CUDA") as caught:
        build.flat_optimizer(named(), Settings(optimizer="lion").optimizer, 4)
    assert caught.value.do == "Choose adamw, prodigy, schedulefree or adafactor."
