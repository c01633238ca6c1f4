"""One buffer for many small parameters: nothing changes but the number of kernels."""

import pytest
import torch
from torch import nn

from lora_studio.config.settings import Settings
from lora_studio.optim import build, flat, registry
from lora_studio.optim.flat import FlatParameters

SHAPES = {
    "q.lora_A.style.weight": (4, 20),
    "q.lora_B.style.weight": (20, 4),
    "c.lora_A.style.weight": (4, 3, 3, 3),
    "c.lora_B.style.weight": (9, 4, 1, 1),
}


def parameters() -> dict[str, nn.Parameter]:
    source = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=source)) for name, shape in SHAPES.items()}


def test_parameters_keep_their_values_and_share_the_buffers():
    expected, found = parameters(), parameters()
    buffer = FlatParameters([list(found.values())[:1], list(found.values())[1:]])
    assert all(torch.equal(expected[name], found[name]) and found[name].is_leaf for name in SHAPES)
    assert [len(group) for group in buffer.groups] == [96, 96 + 128 + 64], "each rounded up to 32"
    buffer.groups[1].data.fill_(7)
    assert torch.equal(found["q.lora_A.style.weight"], expected["q.lora_A.style.weight"]) and found[
        "c.lora_B.style.weight"
    ].unique().tolist() == [7]


def test_the_backward_pass_fills_the_buffer_and_adds_up():
    """Autograd must add in place: a gradient that it puts elsewhere would never reach the optimizer."""
    found = parameters()
    buffer = FlatParameters([list(found.values())])
    for _ in range(2):
        sum((index + 1) * parameter.sum() for index, parameter in enumerate(found.values())).backward()
    assert [parameter.grad.unique().tolist() for parameter in found.values()] == [[2], [4], [6], [8]]
    assert (
        buffer.gradients.sum() == 2 * 80 + 4 * 80 + 6 * 108 + 8 * 36
        and buffer.groups[0].grad.data_ptr() == buffer.gradients.data_ptr()
    )
    buffer.gradients.zero_()
    assert not any(parameter.grad.any() for parameter in found.values())


@pytest.mark.parametrize(("longest", "after"), [(1.0, 1.0), (8.0, 5.0), (0.0, 5.0)])
def test_clip(longest, after):
    """3, 4 is 5 long; a limit above it or 0 leaves it alone."""
    gradients = torch.tensor([3.0, 4.0])
    flat.clip(gradients, gradients.norm(), longest)
    assert gradients.norm().item() == pytest.approx(after, rel=1e-5)


def test_clip_is_torchs():
    found = parameters()
    buffer = FlatParameters([list(found.values())])
    buffer.gradients.copy_(torch.randn(len(buffer.gradients), generator=torch.Generator().manual_seed(1)))
    copies = [nn.Parameter(group.detach().clone()) for group in found.values()]
    for copy, parameter in zip(copies, found.values(), strict=True):
        copy.grad = parameter.grad.clone()
        parameter.grad.add_(0)
    buffer.gradients.zero_()
    for copy, parameter in zip(copies, found.values(), strict=True):
        parameter.grad.copy_(copy.grad)
    expected = torch.nn.utils.clip_grad_norm_(copies, 1.0).item()
    assert (norm := buffer.gradients.norm()).item() == pytest.approx(expected, rel=1e-6)
    flat.clip(buffer.gradients, norm, 1.0)
    assert all(
        torch.allclose(copy.grad, parameter.grad, rtol=1e-5)
        for copy, parameter in zip(copies, found.values(), strict=True)
    )


@pytest.mark.parametrize("name", registry.OPTIMIZERS)
@pytest.mark.parametrize("lora_plus", [1, 4])
def test_ten_steps_are_those_of_parameters_one_by_one(name, lora_plus):
    """Those that go by shapes must be the same. Those of 8 bits, which round by blocks of neighbours, and schedule-free
    Prodigy, which looks at every eleventh number, must be near.
    """
    one_rate = registry.get(name).one_rate
    if one_rate and lora_plus != 1:
        pytest.skip("one rate holds for all parameters")
    rate = 1.0 if one_rate else 1e-2
    values = Settings(optimizer=name, learning_rate=rate, lora_plus=lora_plus, weight_decay=0.1).optimizer
    ours, theirs = parameters(), parameters()
    built = build.flat_optimizer(ours.items(), values, 1000)
    plain = build.optimizer(build.groups(theirs.items(), values), values, 1000)
    for step in range(10):
        for one, optimizer in ((ours, built.optimizer), (theirs, plain)):
            build.mode(optimizer, training=True)
            build.set_rate(optimizer, values, step, 1000)
            sum(((parameter - index) ** 2).sum() for index, parameter in enumerate(one.values())).backward()
            optimizer.step()
        built.flat.zero_grad()
        plain.zero_grad()
    near = 2e-3 if name.endswith("8bit") or name == "prodigy-schedulefree" else 1e-5
    assert all(torch.allclose(ours[key], theirs[key], rtol=near, atol=near) for key in SHAPES)


def test_a_model_in_a_smaller_format_learns_in_float32():
    """A rate times a gradient below bf16's last digit would never move a bf16 weight: the buffer keeps what the copies
    cannot show.
    """
    found = {"w": nn.Parameter(torch.ones(2, 3))}
    buffer = FlatParameters([list(found.values())], torch.bfloat16)
    assert (
        found["w"].dtype == found["w"].grad.dtype == torch.bfloat16
        and buffer.parameters[0][0].dtype == buffer.gradients.dtype == torch.float32
    )
    for _ in range(2):
        (found["w"] * torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16)).sum().backward()
        buffer.accumulate_gradients()
    assert buffer.parameters[0][0].grad.tolist() == [[2, 4, 6]] * 2 and not found["w"].grad.any()
    for _ in range(4):
        buffer.values.add_(-buffer.gradients, alpha=0.001)
        buffer.sync_copies()
    assert torch.allclose(buffer.parameters[0][0][0], torch.tensor([0.992, 0.984, 0.976])) and found["w"][
        0
    ].tolist() == [
        0.9921875,
        0.984375,
        0.9765625,
    ]


def test_a_model_in_a_smaller_format_shows_and_takes_every_digit_where_asked():
    """An export from the copies would be rounded; a start that is given would be too."""
    found = {"w": nn.Parameter(torch.tensor([[1.001, -0.3]]))}
    buffer = FlatParameters([list(found.values())], torch.bfloat16)
    assert found["w"].tolist() == [[1.0, -0.30078125]]
    with buffer.full_precision(), torch.no_grad():
        assert found["w"].dtype == torch.float32 and torch.equal(found["w"], torch.tensor([[1.001, -0.3]]))
        found["w"].copy_(torch.tensor([[2.003, 4.0]]))
    assert found["w"].tolist() == [[2.0, 4.0]] and buffer.values[:2].tolist() == pytest.approx([2.003, 4.0])
    found["w"].sum().backward()
    buffer.accumulate_gradients()
    assert buffer.gradients[:2].tolist() == [1, 1]
