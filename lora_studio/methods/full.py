"""Full fine-tuning: the weights of the chosen layers themselves. What a LoRA approximates."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lora_studio.language import tr
from lora_studio.methods.lora import copied
from lora_studio.methods.method import AdapterOptions, Layer, LayerInput, LayerShape, Method

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lora_studio.adapters.adapter import Factors


class Full(Method):
    """W', a float32 copy of W, trains in its place. What leaves is the whole difference W' − W."""

    name, title = "full", "Full fine-tuning"
    help = "Full fine-tuning trains the chosen weights themselves, at a tenth to a hundredth of a LoRA's rate"
    low_precision = True
    """Rounded to the base model's format, the copy is the base model's own weight."""
    relative_rate = 0.05
    ignores = ("rank", "alpha", "rslora", "init", "lora_plus")

    def refusal(self, options: AdapterOptions, quantize: str) -> str:
        if quantize != "none":
            return tr(
                "full fine-tuning trains the base model's weights, which must not be packed: set quantize to none"
            )
        return tr("full fine-tuning has no dropout: set dropout to 0") if options.dropout else ""

    def inject(self, model: nn.Module, names: Sequence[str], options: AdapterOptions) -> None:
        from lora_studio.methods.full_layer import FullLayer
        from lora_studio.methods.own_layer import wrap

        wrap(model, names, FullLayer)

    def start(self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator) -> None:
        """W' = W."""
        for layer in layers.values():
            layer.module.own_weight.copy_(layer.weight())

    def read(self, layer: Layer, subtracted: Factors | None) -> Factors:
        """W' − W, whole."""
        from lora_studio.adapters import stored

        return stored.factors({"diff": copied(layer.module.own_weight) - copied(layer.weight())}, "")

    def begin(self, layer: Layer, given: Factors) -> None:
        """W' = W + ΔW."""
        weight = layer.module.own_weight
        weight.add_(given.delta().reshape(weight.shape).to(weight.device))

    def holds(self, options: AdapterOptions) -> int:
        """Any rank."""
        return sys.maxsize

    def parameters(self, options: AdapterOptions, shape: LayerShape) -> int:
        return shape.inputs * shape.outputs * shape.kernel**2

    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        """Its input, unless that is kept anyway."""
        return given.tokens * shape.inputs * given.element * (not given.shared)
