"""(IA)³ (Liu et al. 2022, section 3.3): learned factors of keys, values and the feed-forward's hidden values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lora_studio.language import tr
from lora_studio.methods.lora import copied
from lora_studio.methods.method import AdapterOptions, Layer, LayerInput, LayerShape, Method

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lora_studio.adapters.adapter import Factors
    from lora_studio.adapters.output_change import OutputChange

_ON_OUTPUT = (".to_k", ".to_v", ".k_proj", ".v_proj")
_ON_INPUT = (".ff.net.2", ".mlp.fc2")
"""The second layers of feed-forwards, whose inputs are the hidden values."""


class Ia3(Method):
    """diag(1 + l) W of keys and values, W diag(1 + l) of the layer that reads the hidden values: LyCORIS' layout."""

    name, title = "ia3", "(IA)³"
    help = "(IA)³ only scales keys, values and hidden values: a file of some 300 KB, at 25 times a LoRA's rate"
    low_precision = True
    relative_rate = 25.0
    """LyCORIS' ``Algo-List.md`` asks for 5e-3 to 1e-2, Liu et al. (section 3.3) for 3e-3; LoRAs have 2e-4 here."""
    ignores = ("rank", "alpha", "rslora", "init")
    own_start = tr(
        "An (IA)³ begins from nothing or from another (IA)³, since other changes are no factors of its values."
    )
    own_kind = "ia3"

    def takes(self, path: str) -> bool:
        return path.endswith(_ON_OUTPUT + _ON_INPUT)

    def inject(self, model: nn.Module, names: Sequence[str], options: AdapterOptions) -> None:
        from lora_studio.methods.ia3_layer import Ia3Layer
        from lora_studio.methods.own_layer import wrap

        for on_input in (False, True):
            some = [name for name in names if f".{name}".endswith(_ON_INPUT) == on_input]
            wrap(model, some, lambda base, on_input=on_input: Ia3Layer(base, on_input, options.dropout))

    def start(self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator) -> None:
        """l = 0."""
        for layer in layers.values():
            layer.module.ia3_l.zero_()

    def read(self, layer: Layer, subtracted: Factors | None) -> OutputChange:
        from lora_studio.adapters.ia3 import Ia3Change

        return Ia3Change(copied(layer.module.ia3_l), layer.module.on_input)

    def begin(self, layer: Layer, given: Factors) -> None:
        raise NotImplementedError("own_start says why")

    def fits(self, layer: Layer, given: Factors | OutputChange) -> bool:
        """An (IA)³ on the same side of the layer."""
        from lora_studio.adapters.ia3 import Ia3Change

        own = layer.module.on_input, len(layer.module.ia3_l)
        return isinstance(given, Ia3Change) and (given.on_input, len(given.vector)) == own

    def take(self, layer: Layer, given: Factors | OutputChange) -> None:
        from lora_studio.adapters.ia3 import Ia3Change

        assert isinstance(given, Ia3Change)
        layer.module.ia3_l.copy_(given.vector)

    def parameters(self, options: AdapterOptions, shape: LayerShape) -> int:
        return shape.inputs if shape.path.endswith(_ON_INPUT) else shape.outputs

    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        """What it scales: the input, unless that is kept anyway, or the answer."""
        if shape.path.endswith(_ON_INPUT):
            return given.tokens * shape.inputs * given.element * (not given.shared)
        return given.tokens * shape.outputs * given.element
