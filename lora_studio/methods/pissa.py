"""PiSSA (Meng et al. 2024, section 3): a LoRA that starts from the main directions of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lora_studio.language import declared, tr
from lora_studio.methods.lora import Lora, factors_of
from lora_studio.methods.method import NAME, AdapterOptions, Layer, LayerInput, LayerShape

if TYPE_CHECKING:
    import torch

    from lora_studio.adapters.adapter import Adapter, Factors
    from lora_studio.adapters.dora import Plain, Weights


class Pissa(Lora):
    """W − (alpha / r) B₀ A₀ + (alpha / r) B A.

    The paper trains over W − B₀ A₀. So that W itself need not be changed, B₀ A₀ is subtracted by factors of its own.
    """

    name, title = "pissa", "PiSSA"
    help = "PiSSA starts from the weights' main directions"
    cappable = False
    low_precision = False
    """Its start is as large as the weights themselves: rounded, it would change the base model."""
    own_start = tr("PiSSA begins from the base model's own main directions, not from an adapter.")

    def refusal(self, options: AdapterOptions, quantize: str) -> str:
        if options.init != "eva":
            return ""
        return tr(
            "{method} has a start of its own, and no room for EVA's: set init to gaussian, or method to lora",
            method=declared(self.title),
        )

    def start(
        self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator
    ) -> Mapping[str, Factors] | None:
        """A₀ and B₀ from the leading r singular triples of each W: (alpha / r) B₀ A₀ ≈ W. Both have the same size;
        where W has fewer than r, the rest starts as a LoRA.
        """
        from lora_studio.adapters import svd

        super().start(layers, options, source)
        for layer in layers.values():
            (down, up), scale = factors_of(layer.module), layer.module.scaling[NAME]
            left, strength, right = svd.randomized(layer.weight().float().flatten(1), len(down), source)
            count, root = len(strength), (strength / scale).sqrt()
            down[:count] = (root[:, None] * right).reshape(count, *down.shape[1:])
            up[:, :count] = (left * root).reshape(-1, count, *up.shape[2:])
        return {path: super(Pissa, self).read(layer, None) for path, layer in layers.items()}

    def read(self, layer: Layer, subtracted: Factors | None) -> Factors:
        """An ordinary LoRA of twice the rank: ΔW = (alpha / r) (B A − B₀ A₀); where nothing is subtracted, a LoRA."""
        import torch

        from lora_studio.adapters.adapter import Factors

        now = super().read(layer, None)
        if subtracted is None:
            return now
        down, up = torch.cat([now.down, subtracted.down]), torch.cat([now.up, -subtracted.up], dim=1)
        return Factors(down, up, 2 * now.alpha)

    def plain(self, adapter: Adapter, weights: Weights, options: AdapterOptions) -> Plain:
        """In factors that can be rounded: those of ``read`` are as large as the weights, and cancel each other."""
        from lora_studio.adapters import resize
        from lora_studio.adapters.dora import Plain

        return Plain(resize.balanced(adapter), {}, 0.0)

    def frozen(self, options: AdapterOptions, shape: LayerShape) -> int:
        """A₀ and B₀."""
        return self.parameters(options, shape)

    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        """As a LoRA, and of the factors that are subtracted: under autocast their casts; for a convolution A₀ x, and
        under autocast its input.
        """
        cast = self.frozen(options, shape) * given.element * given.autocast
        wide = given.tokens * (shape.inputs * given.autocast + options.rank) * given.element * (shape.kernel > 1)
        return super().kept(options, shape, given) + cast + wide
