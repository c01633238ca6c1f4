"""Gradient checkpointing: which blocks, and that it changes nothing but memory."""

import pytest
import torch

from lora_studio import models
from lora_studio.models import inject, recompute, single
from lora_studio.models.parts import read_json
from lora_studio.settings import Settings


@pytest.fixture
def base(tiny_folder):
    base = models.load(str(tiny_folder("sd1")))
    inject.add_adapter(base, Settings(rank=2, alpha=2), seed=0)
    base.unet.train()
    return base


def kept(base, which) -> tuple[int, list[torch.Tensor]]:
    """Bytes that the way back keeps, and the gradients."""
    recompute.enable(base.unet, which)
    torch.manual_seed(0)
    for parameter in inject.trainable(base).values():
        parameter.grad = None
    held: dict[int, int] = {}

    def hold(tensor):
        held[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        answer = base.predict(torch.randn(1, 4, 16, 16), torch.tensor([500]), base.encode_text(["a cat"]))
    size = sum(held.values())
    answer.square().mean().backward()
    return size, [parameter.grad.clone() for parameter in inject.trainable(base).values()]


def test_the_gradient_is_the_same_and_less_is_kept(base):
    """``largest`` stands between; a second choice undoes the first."""
    (off, expected), (largest, some), (everything, all_of_them) = (kept(base, which) for which in ("off", "largest", "all"))
    assert everything < largest < off
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(expected, some, all_of_them, strict=True))
    assert kept(base, "off")[0] == off


@pytest.mark.parametrize(("family", "level"), [("sd1", 0), ("sd2", 0), ("sdxl", 2)])
def test_largest_is_the_level_that_keeps_the_most(family, level):
    """The exact shapes: SDXL keeps the most innermost, where ten transformer blocks stand in a row."""
    assert recompute.largest_level(read_json(single.CONFIGS / family / "unet.json")) == level


def test_largest_takes_both_sides_of_that_level_and_no_other(base):
    recompute.enable(base.unet, "largest")
    on = {".".join(name.split(".")[:2]) for name, module in base.unet.named_modules() if getattr(module, "gradient_checkpointing", False)}
    assert on == {"down_blocks.0", "up_blocks.3"}
