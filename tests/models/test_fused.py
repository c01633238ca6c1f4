"""A fused UNet is the same UNet: its outputs, and the gradients of every kind of adapter, on every family."""

import copy

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from lora_studio import libraries, models
from lora_studio.config.settings import Settings
from lora_studio.models import fused, gradient_checkpointing, inject
from lora_studio.models.fused import lora
from lora_studio.models.fused.blocks import FusedBlock, FusedResnet, FusedTransformer
from lora_studio.optim import build
from tests.models.test_inject import learn, settings

METHODS = [
    {"dropout": 0.5, "targets": "qv"},
    {"targets": "attention+ff+conv", "alpha": 6},
    {"method": "dora", "targets": "qv"},
]


def step(base) -> dict[str, torch.Tensor]:
    """The answer to a fixed question, and its gradients towards the text and each of the adapter's parameters."""
    torch.manual_seed(3)
    noisy, text = torch.randn(2, 4, 16, 16), base.encode_text(["a cat", "a dog"])
    wanted = {"text": text["hidden"].requires_grad_(), **inject.trainable(base)}
    answer = base.predict(noisy, torch.tensor([5, 900]), text)
    gradients = torch.autograd.grad(answer.square().mean(), list(wanted.values()))
    return {"answer": answer.detach(), **dict(zip(wanted, gradients, strict=True))}


def plain(base) -> dict[str, torch.Tensor]:
    """The same from diffusers' and peft's own blocks."""
    fused.disable(base.unet)
    try:
        return step(base)
    finally:
        fused.enable(base.unet)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() <= 2e-5 * tensor.abs().max() + 1e-9, name


def add(base, **method) -> None:
    inject.add_adapter(base, settings(**method).adapter, seed=0)
    learn(base)
    base.unet.train()


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_each_family_is_covered_and_the_same(tiny_folder, family):
    """Every block but those that turn sizes; and ``disable`` gives each its class back."""
    base = models.load(str(tiny_folder(family)))
    fused.enable(base.unet)
    found = [
        type(module)
        for module in base.unet.modules()
        if isinstance(module, ResnetBlock2D) or "Transformer" in type(module).__name__
    ]
    assert found and set(found) <= {FusedResnet, FusedTransformer, FusedBlock}
    assert_same(step(base), plain(base))
    fused.disable(base.unet)
    assert not any(
        kind.__module__.startswith(fused.__name__) for kind in {type(module) for module in base.unet.modules()}
    )


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_adapters_learn_the_same(base, method):
    fused.enable(base.unet)
    add(base, **method)
    assert_same(step(base), plain(base))


def test_with_recomputation(base):
    fused.enable(base.unet)
    add(base, targets="qv")
    expected = plain(base)
    gradient_checkpointing.enable(base.unet, "all")
    assert_same(step(base), expected)


@pytest.mark.parametrize(
    ("method", "together"),
    [({}, True), ({}, False), ({"targets": "qv"}, True), ({"targets": "attention+ff+conv"}, True)],
    ids=str,
)
def test_gradients_that_are_there_are_added_to_in_place(base, method, together):
    """As the optimizer's buffer holds them, the A's of one input end to end, or each on its own; a second backward
    pass adds to the first.
    """
    add(base, **method)
    expected = plain(base)
    parameters = inject.trainable(base)
    if together:
        parameters = build.flat_optimizer(parameters.items(), Settings().optimizer, 1).parameters
    else:
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
    for _ in range(2):
        torch.manual_seed(3)
        base.predict(
            torch.randn(2, 4, 16, 16), torch.tensor([5, 900]), base.encode_text(["a cat", "a dog"])
        ).square().mean().backward()
    assert_same(
        {name: parameter.grad for name, parameter in parameters.items()},
        {name: 2 * expected[name] for name in parameters},
    )


def test_neighbours_in_one_buffer_are_one_matrix_without_a_copy():
    """Others are not: apart, in another order, or in memory of their own."""
    buffer = torch.arange(24.0)
    first, second, third = buffer[:8].view(2, 4), buffer[8:12].view(1, 4), buffer[16:24].view(2, 4)
    joined = lora._joined([first, second])
    assert joined.data_ptr() == buffer.data_ptr() and torch.equal(joined, buffer[:12].view(3, 4))
    for parts in ([second, first], [second, third], [first, second.clone()]):
        assert lora._joined(parts) is None


def test_on_nf4(tiny_folder):
    base = models.load(str(tiny_folder("sd1")), quantize="nf4")
    fused.enable(base.unet)
    add(base)
    assert any(isinstance(module, libraries.bitsandbytes().nn.Linear4bit) for module in base.unet.modules())
    assert_same(step(base), plain(base))


def test_finished_adapters_on_top_are_heard(base):
    """They hook linear layers and convolutions, which are therefore called, also under the adapter in training."""
    fused.enable(base.unet)
    add(base, targets="qv")
    finished = inject.read_adapter(base)
    before = step(base)["answer"]
    inject.load_adapters(base, [(finished, 0.7)])
    assert not torch.equal(step(base)["answer"], before)
    assert_same(step(base), plain(base))


def test_a_mask_or_another_argument_is_not_lost(base):
    """What the fused blocks do not know goes to diffusers' own."""
    fused.enable(base.unet)
    torch.manual_seed(3)
    x, text = torch.randn(1, 4, 16, 16), torch.randn(1, 7, 32)
    with torch.no_grad():
        ask = {"encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0, 0, 0]]), "cross_attention_kwargs": {}}
        found = base.unet(x, 5, text, **ask)[0]
        assert not torch.allclose(found, base.unet(x, 5, text)[0])
        fused.disable(base.unet)
        assert torch.allclose(found, base.unet(x, 5, text, **ask)[0], atol=1e-6)
    fused.enable(base.unet)


def test_a_block_of_another_kind_keeps_its_forward():
    """Scaling by time, dropout, or another activation is not what the fused resnet computes."""
    odd = [
        ResnetBlock2D(in_channels=32, temb_channels=8, **more)
        for more in (
            {"time_embedding_norm": "scale_shift"},
            {"dropout": 0.1},
            {"non_linearity": "mish"},
            {"output_scale_factor": 2.0},
            {"up": True},
        )
    ]
    assert not any(FusedResnet.fits(block) for block in odd) and FusedResnet.fits(
        ResnetBlock2D(in_channels=32, temb_channels=8)
    )


def test_layers_of_one_input_equal_their_own_answers():
    """Also where only some have an adapter, ranks differ, and one has no bias."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {name: nn.Linear(6, width, bias=name != "k") for name, width in {"q": 4, "k": 5, "v": 3}.items()}
    ).requires_grad_(False)
    inject_adapter_in_model(
        LoraConfig(
            r=2, rank_pattern={"v": 1}, alpha_pattern={"v": 4}, target_modules=["k", "v"], init_lora_weights=False
        ),
        model,
    )
    x = torch.randn(2, 7, 6, requires_grad=True)
    layers = list(model.values())
    parameters = [x, *(one for one in model.parameters() if one.requires_grad)]
    assert len(parameters) == 5
    expected = [layer(x) for layer in layers]
    found = lora.linears(layers, x)
    assert len({one.grad_fn for one in found}) == 1, "one function for all three"
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    slopes = [torch.randn_like(one) for one in found]
    for one, other in zip(
        torch.autograd.grad(found, parameters, slopes), torch.autograd.grad(expected, parameters, slopes), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)


def test_weights_that_are_not_frozen_get_their_gradients(base):
    """A base model whose own weights take gradients is left to torch, which gives them theirs."""
    unet = copy.deepcopy(base.unet).requires_grad_(True)
    fused.enable(unet)
    x, text = torch.randn(1, 4, 16, 16), torch.randn(1, 7, 32)
    unet(x, 5, text)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in unet.parameters())
