"""LoKr (Edalati et al. 2022, KronA; Yeh et al. 2024, section 3): a Kronecker product of a small and a large factor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lora_studio.language import tr
from lora_studio.methods.loha import parts_of
from lora_studio.methods.lora import copied
from lora_studio.methods.method import AdapterOptions, Layer, LayerInput, LayerShape, Method

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lora_studio.adapters.adapter import Factors
    from lora_studio.adapters.output_change import OutputChange

Sides = tuple[tuple[int, int], tuple[int, int]]
"""((l, k), (m, n)): outputs l·k, inputs m·n, the smaller number first."""


class Lokr(Method):
    """W + s w1 ⊗ w2. w2 is the product of two thin factors with s = alpha / r, or whole with s = 1 where r is at least
    half of its longer side.

    peft's layers of this kind draw random numbers outside the run's own, know no packed weights and no dropout of
    inputs, and multiply ΔW out; hence a layer of our own, which is tested against theirs.
    """

    name, title = "lokr", "LoKr"
    help = "LoKr is a Kronecker product: the smallest files, or with rank 1024 and factor 4 to 8 close to full training"
    low_precision = True
    usual = {"rank": 1024, "lokr_factor": 8}
    """About as large as a LoRA of rank 8 (LyCORIS' ``Guidelines.md``: 12 MB and 9.5 MB for SD 1.5)."""
    ignores = ("init",)
    own_start = tr("A LoKr begins from nothing or from a LoKr of its sizes, since other changes are no such products.")
    own_kind = "lokr"

    def inject(self, model: nn.Module, names: Sequence[str], options: AdapterOptions) -> None:
        from lora_studio.methods.increment_layer import dimensions
        from lora_studio.methods.lokr_layer import LokrLayer
        from lora_studio.methods.own_layer import wrap

        def made(base: nn.Linear | nn.Conv2d) -> LokrLayer:
            outputs, inputs, _ = dimensions(base)
            sides = _sides(options, outputs, inputs)
            rank = _rank(options, sides)
            scale = options.alpha / (math.sqrt(rank) if options.rslora else rank) if rank else 1.0
            return LokrLayer(base, sides, rank, scale, options.dropout)

        wrap(model, names, made)

    def start(self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator) -> None:
        """As LyCORIS: Kaiming's uniform distribution, and the last factor of w2 zero."""
        import torch
        from torch import nn

        for layer in layers.values():
            for role in layer.module.parts:
                parameter = getattr(layer.module, role)
                fresh = nn.init.kaiming_uniform_(torch.empty(parameter.shape), a=math.sqrt(5), generator=source)
                parameter.copy_(fresh * (role not in ("lokr_w2", "lokr_w2_b")))

    def read(self, layer: Layer, subtracted: Factors | None) -> Factors:
        import torch

        from lora_studio.adapters import stored

        module = layer.module
        parts = {role: copied(getattr(module, role)) for role in module.parts}
        return stored.factors(
            {**parts, "alpha": torch.tensor(module.scale * max(module.rank, 1))}, "", kernel=module.kernel
        )

    def begin(self, layer: Layer, given: Factors) -> None:
        raise NotImplementedError("own_start says why")

    def fits(self, layer: Layer, given: Factors | OutputChange) -> bool:
        """A LoKr whose parts have the same shapes."""
        module, (parts, _) = layer.module, parts_of(given)
        own = {role: getattr(module, role).numel() for role in module.parts}
        if own != {role: one.numel() for role, one in parts.items()}:
            return False
        if parts["lokr_w1"].shape != module.lokr_w1.shape:
            return False
        return not module.rank or len(parts["lokr_w2_b"]) == module.rank

    def take(self, layer: Layer, given: Factors | OutputChange) -> None:
        """A scale of another size goes into w1."""
        module, (parts, scale) = layer.module, parts_of(given)
        for role in module.parts:
            parameter = getattr(module, role)
            parameter.copy_(parts[role].reshape(parameter.shape))
        module.lokr_w1.mul_(scale / module.scale)

    def parameters(self, options: AdapterOptions, shape: LayerShape) -> int:
        (l, k), (m, n) = sides = _sides(options, shape.outputs, shape.inputs)
        rank, area = _rank(options, sides), shape.kernel**2
        return l * m + (rank * (k + n * area) if rank else k * n * area)

    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        """Its input, unless it is kept anyway and dropout does not change it; what the first factor makes of it, and of
        a factored w2 what w1 makes of that; dropout's mask.
        """
        (l, k), (m, _) = sides = _sides(options, shape.outputs, shape.inputs)
        rank = _rank(options, sides)
        elements = m * k if not rank else (m + l) * rank
        elements += shape.inputs * (options.dropout > 0 or not given.shared)
        return given.tokens * (elements * given.element + shape.inputs * (options.dropout > 0))


def _sides(options: AdapterOptions, outputs: int, inputs: int) -> Sides:
    return split(outputs, options.lokr_factor), split(inputs, options.lokr_factor)


def _rank(options: AdapterOptions, sides: Sides) -> int:
    """Of w2; 0 where it is whole."""
    (_, k), (_, n) = sides
    return options.rank if options.rank < max(k, n) / 2 else 0


def split(number: int, factor: int) -> tuple[int, int]:
    """``number`` as a product, the smaller first: of ``factor`` where that divides it, else of the divisor nearest
    below (-1: below the square root), as LyCORIS splits it.

    >>> split(320, 8), split(320, -1), split(250, 8), split(7, 4)
    ((8, 40), (16, 20), (5, 50), (1, 7))
    """
    if factor > 0 and number % factor == 0:
        return min(factor, number // factor), max(factor, number // factor)
    limit = math.isqrt(number) if factor < 0 else min(factor, math.isqrt(number))
    small = next(divisor for divisor in range(limit, 0, -1) if number % divisor == 0)
    return small, number // small
