"""Adapter layers (Houlsby et al. 2019): what LoRA is compared with. They cannot be folded, so they always cost time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lora_studio.language import tr
from lora_studio.methods.lora import copied
from lora_studio.methods.method import AdapterOptions, Layer, LayerInput, LayerShape, Method

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lora_studio.adapters.adapter import Factors
    from lora_studio.adapters.output_change import OutputChange

_OUTPUTS = re.compile(r"\.(to_out\.0|ff\.net\.2|self_attn\.out_proj|mlp\.fc2)$")
"""The last projections of attention and feed-forward."""
_DEVIATION = 0.01
"""Of D at the start, as published."""


class AdapterLayers(Method):
    """A bottleneck of ``rank`` behind the last projection of each attention and feed-forward that are chosen."""

    name, title = "adapter-layers", "Adapter layers"
    help = "Adapter layers are small networks behind attention and feed-forward, which the studio alone reads (slower)"
    low_precision = True
    """What they add is nothing at the start, in any format."""
    ignores = ("alpha", "rslora", "init", "lora_plus")
    own_start = tr(
        "Adapter layers begin from nothing or from adapter layers of their rank, since others change weights."
    )
    own_kind = "adapter-layers"
    keeps_rank = True

    def refusal(self, options: AdapterOptions, quantize: str) -> str:
        return tr("adapter layers have no dropout: set dropout to 0") if options.dropout else ""

    def takes(self, path: str) -> bool:
        """Only where attention and feed-forward end."""
        return bool(_OUTPUTS.search(path))

    def inject(self, model: nn.Module, names: Sequence[str], options: AdapterOptions) -> None:
        from lora_studio.methods.bottleneck_layer import BottleneckLayer
        from lora_studio.methods.own_layer import wrap

        wrap(model, names, partial(BottleneckLayer, rank=options.rank))

    def start(self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator) -> None:
        """D from ``source``, all else zero."""
        import torch

        for layer in layers.values():
            module = layer.module
            module.down.copy_(torch.empty(module.down.shape).normal_(std=_DEVIATION, generator=source))
            for rest in (module.down_bias, module.up, module.up_bias):
                rest.zero_()

    def read(self, layer: Layer, subtracted: Factors | None) -> OutputChange:
        from lora_studio.adapters.bottleneck import Bottleneck

        module = layer.module
        return Bottleneck(*map(copied, (module.down, module.down_bias, module.up, module.up_bias)))

    def begin(self, layer: Layer, given: Factors) -> None:
        raise NotImplementedError("own_start says why")

    def fits(self, layer: Layer, given: Factors | OutputChange) -> bool:
        """An adapter layer of the same rank."""
        from lora_studio.adapters.bottleneck import Bottleneck

        return isinstance(given, Bottleneck) and given.down.shape == layer.module.down.shape

    def take(self, layer: Layer, given: Factors | OutputChange) -> None:
        for name in ("down", "down_bias", "up", "up_bias"):
            getattr(layer.module, name).copy_(getattr(given, name))

    def parameters(self, options: AdapterOptions, shape: LayerShape) -> int:
        return (2 * shape.outputs + 1) * options.rank + shape.outputs

    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        """The layer's output, D y, and its GELU."""
        return given.tokens * (shape.outputs + 2 * options.rank) * given.element
