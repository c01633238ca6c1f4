"""Groups, rates and every optimizer of the registry."""

import json

import pytest
import torch
from torch import nn

from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError, SettingsError
from lora_studio.optim import build, registry
from lora_studio.training import checkpoint


def named(value: float = 0.0) -> list[tuple[str, nn.Parameter]]:
    return [
        ("to_q.lora_A.default.weight", nn.Parameter(torch.full((2, 4), value + 1))),
        ("to_q.lora_B.default.weight", nn.Parameter(torch.full((4, 2), value))),
    ]


def test_lora_plus_gives_b_its_own_rate():
    """LoRA+ with λ = 16: A at η, B at 16 η."""
    groups = build.groups(named(), Settings(learning_rate=1e-3, lora_plus=16).optimizer)
    assert {len(group["params"][0]): group["lr"] for group in groups} == {2: 1e-3, 4: 1.6e-2}


def test_a_blocks_rate_multiplies_its_parameters():
    """With LoRA+ and a rate of the text encoders' own: the rate that is reported is the setting's."""
    parameters = {
        f"{place}.{factor}.style.weight": nn.Parameter(torch.zeros(1))
        for place in ("unet.mid_block.to_q", "unet.up_blocks.0.to_q", "text_encoder.layers.8.q_proj")
        for factor in ("lora_A", "lora_B")
    }
    factors = {name: 0.5 if "mid" in name else 2.0 for name in parameters if "up_blocks" not in name}
    values = Settings(learning_rate=1e-3, text_learning_rate=1e-4, lora_plus=4, schedule="constant", warmup=0).optimizer
    groups = build.groups(parameters.items(), values, factors)
    found = {id(one): group["lr"] for group in groups for one in group["params"]}
    rates = [found[id(parameter)] for parameter in parameters.values()]
    assert rates == pytest.approx([5e-4, 2e-3, 1e-3, 4e-3, 2e-4, 8e-4])
    assert build.set_rate(build.optimizer(groups, values, 4), values, 2, 4) == pytest.approx(1e-3)


def test_one_rate_for_all_refuses_rates_by_block():
    with pytest.raises(SettingsError, match="blocks cannot have others"):
        build.flat_optimizer(
            named(), Settings(optimizer="prodigy").optimizer, 4, factors={"to_q.lora_A.default.weight": 2}
        )


def test_plain_lora_has_one_group():
    assert len(build.groups(named(), Settings().optimizer)) == 1


def test_equal_rates_of_two_settings_stay_apart():
    """Else another text encoders' rate would group the moments otherwise, and no saved state would fit it."""
    parameters = {
        f"{place}.lora_A.style.weight": nn.Parameter(torch.zeros(1)) for place in ("unet.q", "text_encoder.q")
    }
    for text in (1e-3, 5e-4):
        groups = build.groups(parameters.items(), Settings(learning_rate=1e-3, text_learning_rate=text).optimizer)
        assert [(group["lr"], len(group["params"])) for group in groups] == [(1e-3, 1), (text, 1)]


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
    rate = 0.5 if name == "adafactor-relative" else 1.0 if registry.get(name).one_rate else 0.05
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


def descended(values, begin: int, end: int, state: dict | None = None) -> tuple[list, torch.optim.Optimizer]:
    """The parameters, and what moved them, after steps ``begin`` to ``end`` of eight, from a saved ``state``."""
    parameters = [*named(), ("to_q.magnitude", nn.Parameter(torch.ones(3)))]
    optimizer, flat, _ = build.flat_optimizer(parameters, values, 8)
    if state is not None:
        for (_, parameter), saved in zip(parameters, state["parameters"], strict=True):
            parameter.data.copy_(saved)
        build.load_state(optimizer, state["optimizer"])
    build.mode(optimizer, training=True)
    for step in range(begin, end):
        build.set_rate(optimizer, values, step, 8)
        flat.zero_grad()
        source = torch.Generator().manual_seed(step)
        sum((torch.randn(one.shape, generator=source) * (one - 2) ** 2).sum() for _, one in parameters).backward()
        optimizer.step()
    return [parameter for _, parameter in parameters], optimizer


@pytest.mark.fault(44)
@pytest.mark.parametrize("name", registry.OPTIMIZERS)
def test_every_optimizer_resumes_to_the_bit(name):
    """Eight steps, and three and five with a saved state between them: the same weights, and the same state with its
    number formats.
    """
    values = Settings(optimizer=name, **registry.usual_rates(name), weight_decay=0.1).optimizer
    whole, undisturbed = descended(values, 0, 8)
    parameters, optimizer = descended(values, 0, 3)
    tensors: dict[str, torch.Tensor] = {}
    tree = checkpoint.flatten({"parameters": parameters, "optimizer": optimizer.state_dict()}, tensors)
    state = checkpoint.unflatten(json.loads(json.dumps(tree)), tensors)
    found, resumed = descended(values, 3, 8, state)
    assert all(torch.equal(one, other) for one, other in zip(whole, found, strict=True))
    left, right = {}, {}
    same = checkpoint.flatten(undisturbed.state_dict(), left), checkpoint.flatten(resumed.state_dict(), right)
    assert same[0] == same[1] and all(torch.equal(left[key], right[key]) for key in left)
    assert {key: left[key].dtype for key in left} == {key: right[key].dtype for key in right}


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
    assert caught.value.do.startswith("Choose adamw, stableadamw, prodigy, ") and "8bit" not in caught.value.do


def test_ademamix_raises_its_slow_average_over_the_whole_run():
    """α and β₃ reach their full values at the last step (Pagliardini et al. 2024, §3.1): α is 5 · 1/4 at the first of
    four.
    """
    values = Settings(optimizer="ademamix").optimizer
    (group,) = build.flat_optimizer(named(), values, 4).optimizer.param_groups
    assert (group["t_alpha"], group["t_beta3"], group["alpha"], group["betas"][2]) == (4, 4, 5.0, 0.999)


@pytest.mark.parametrize(("weight", "rate", "expected"), [(3.0, 0.01, 2.97), (3.0, 2.0, 0.0), (0.0, 0.01, -1e-5)])
def test_adafactors_relative_step_is_a_share_of_the_weights(weight, rate, expected):
    """Shazeer & Stern 2018, §8: the first step takes min(rate, 1/√1) of the weights' RMS, which counts as at least
    0.001.
    """
    parameter = nn.Parameter(torch.full((2, 2), weight))
    values = Settings(optimizer="adafactor-relative", weight_decay=0).optimizer
    optimizer = build.optimizer([{"params": [parameter], "lr": rate, "base_lr": rate}], values, 4)
    parameter.grad = torch.ones(2, 2)
    optimizer.step()
    assert parameter.tolist() == [[pytest.approx(expected, abs=1e-6)] * 2] * 2
