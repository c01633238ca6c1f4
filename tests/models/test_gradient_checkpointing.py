"""Gradient checkpointing: which blocks, and that it changes nothing but memory."""

import pytest
import torch

from lora_studio import models
from lora_studio.config.settings import Settings
from lora_studio.families.family import CONFIGS
from lora_studio.models import gradient_checkpointing, inject
from lora_studio.models.parts import read_json


@pytest.fixture
def base(tiny_folder):
    base = models.load(str(tiny_folder("sd1")))
    inject.add_adapter(base, Settings(rank=2, alpha=2).adapter, seed=0)
    base.unet.train()
    return base


def kept(base, which) -> tuple[int, list[torch.Tensor]]:
    """Bytes kept for the backward pass, and the gradients."""
    gradient_checkpointing.enable(base.unet, which)
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
    (off, expected), (largest, some), (everything, all_of_them) = (
        kept(base, which) for which in ("off", "largest", "all")
    )
    assert everything < largest < off
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(expected, some, all_of_them, strict=True))
    assert kept(base, "off")[0] == off


def test_text_encoders_under_training_recompute_with_all_and_their_gradient_is_the_same(tiny_folder):
    """With dropout, which must fall alike both times. SDXL's pooled text and inner states come from layers that are
    computed again.
    """
    base = models.load(str(tiny_folder("sdxl")))
    inject.add_adapter(base, Settings(rank=2, alpha=2, train_text=True, dropout=0.3).adapter, seed=0)
    for model in base.models.values():
        model.train()
    text = {path: parameter for path, parameter in inject.trainable(base).items() if path.startswith("text_encoder")}
    for path, parameter in text.items():
        if "lora_B" in path:
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(path)))

    def told(which):
        gradient_checkpointing.enable(base.unet, which, base.text_encoders.values())
        torch.manual_seed(0)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: (sizes.append(tensor.nbytes), tensor)[1], lambda tensor: tensor
        ):
            found = base.features(["a cat", "ink"])
        gradients = torch.autograd.grad(
            sum(feature.float().square().sum() for feature in found.values()), list(text.values()), allow_unused=True
        )
        return sum(sizes), [gradient for gradient in gradients if gradient is not None]

    (off, expected), (everything, found), (largest, _) = map(told, ("off", "all", "largest"))
    assert everything < off / 5 and largest == off
    assert len(expected) > 0.9 * len(text) and all(one.any() for one in expected)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(("family", "level"), [("sd1", 0), ("sd2", 0), ("sdxl", 2)])
def test_largest_is_the_level_that_keeps_the_most(family, level):
    """The exact shapes: SDXL keeps the most innermost, where ten transformer blocks stand in a row."""
    assert gradient_checkpointing.largest_level(read_json(CONFIGS / family / "unet.json")) == level


def test_largest_takes_both_sides_of_that_level_and_no_other(base):
    gradient_checkpointing.enable(base.unet, "largest")
    on = {
        ".".join(name.split(".")[:2])
        for name, module in base.unet.named_modules()
        if getattr(module, "gradient_checkpointing", False)
    }
    assert on == {"down_blocks.0", "up_blocks.3"}
