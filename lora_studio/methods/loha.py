"""LoHa (Hyeon-Woo et al. 2022, FedPara, section 2; LyCORIS): a product of two LoRAs, entry by entry."""

from __future__ import annotations

import math
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


class Loha(Method):
    """W + (alpha / r) (A₁ B₁) ∘ (A₂ B₂), of rank r² with the parameters of a LoRA of rank 2 r.

    peft's layers of this kind draw random numbers outside the run's own, know no packed weights and no dropout of
    inputs, and always multiply ΔW out; hence a layer of our own, which is tested against theirs.
    """

    name, title = "loha", "LoHa"
    help = "LoHa multiplies two LoRAs, so that few parameters reach a high rank; it copies less and mixes well"
    low_precision = True
    usual = {"rank": 8, "alpha": 4.0}
    """Of a LoRA of rank 16; LyCORIS' ``Algo-List.md``: alpha from 1 to half the rank, rank at most 32."""
    own_start = tr("A LoHa begins from nothing or from a LoHa of its rank, since other changes are no such products.")
    own_kind = "loha"
    keeps_rank = True

    def refusal(self, options: AdapterOptions, quantize: str) -> str:
        if options.init in ("gaussian", "kaiming"):
            return ""
        return tr("A LoHa starts from gaussian or kaiming: set init to one of them")

    def inject(self, model: nn.Module, names: Sequence[str], options: AdapterOptions) -> None:
        from lora_studio.methods.loha_layer import LohaLayer
        from lora_studio.methods.own_layer import wrap

        scale = options.alpha / (math.sqrt(options.rank) if options.rslora else options.rank)
        wrap(model, names, lambda base: LohaLayer(base, options.rank, scale, options.dropout))

    def start(self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator) -> None:
        """LyCORIS' standard deviations: 1 for both b and .1 for w1_a; w2_a is zero. With ``kaiming`` as in peft:
        uniform, and w2_b is zero.
        """
        import torch
        from torch import nn

        deviations = {"hada_w1_b": 1.0, "hada_w1_a": 0.1, "hada_w2_b": 1.0, "hada_w2_a": 0.0}
        for layer in layers.values():
            for role, deviation in deviations.items():
                parameter = getattr(layer.module, role)
                fresh = torch.empty(parameter.shape)
                if options.init == "kaiming":
                    nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=source).mul_(role != "hada_w2_b")
                else:
                    fresh.normal_(std=1.0, generator=source).mul_(deviation)
                parameter.copy_(fresh)

    def read(self, layer: Layer, subtracted: Factors | None) -> Factors:
        import torch

        from lora_studio.adapters import stored
        from lora_studio.methods.loha_layer import PARTS

        module = layer.module
        parts = {role: copied(getattr(module, role)) for role in PARTS}
        return stored.factors({**parts, "alpha": torch.tensor(module.scale * module.rank)}, "", kernel=module.kernel)

    def begin(self, layer: Layer, given: Factors) -> None:
        raise NotImplementedError("own_start says why")

    def fits(self, layer: Layer, given: Factors | OutputChange) -> bool:
        """A LoHa of the same rank without Tucker cores."""
        from lora_studio.methods.loha_layer import PARTS

        parts, _ = parts_of(given)
        return set(PARTS) == parts.keys() and len(parts["hada_w1_b"]) == layer.module.rank

    def take(self, layer: Layer, given: Factors | OutputChange) -> None:
        """A scale of another size goes into w2_a."""
        from lora_studio.methods.loha_layer import PARTS

        parts, scale = parts_of(given)
        for role in PARTS:
            getattr(layer.module, role).copy_(parts[role])
        layer.module.hada_w2_a.mul_(scale / layer.module.scale)

    def parameters(self, options: AdapterOptions, shape: LayerShape) -> int:
        return 2 * options.rank * (shape.inputs * shape.kernel**2 + shape.outputs)

    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        """Its input, unless it is kept anyway and dropout does not change it; the factors of rank r² and what the first
        makes of the input, or ΔW with both of its products; dropout's mask.
        """
        inputs, square = shape.inputs * shape.kernel**2, options.rank**2
        if square * (inputs + shape.outputs) > inputs * shape.outputs:
            products = 3.0 * inputs * shape.outputs
        else:
            products = square * (inputs + shape.outputs + given.tokens) + options.rank * shape.outputs
        read = given.tokens * shape.inputs * (options.dropout > 0 or not given.shared)
        return (products + read) * given.element + given.tokens * shape.inputs * (options.dropout > 0)


def parts_of(given: Factors | OutputChange) -> tuple[Mapping[str, torch.Tensor], float]:
    """The parts of a LoHa or LoKr by role, without alpha, and the scale that alpha gives; of other changes none."""
    from lora_studio.adapters.adapter import Factors

    if not isinstance(given, Factors) or not given.parts or given.magnitude is not None:
        return {}, 1.0
    return {role: one for role, one in given.parts.tensors.items() if role != "alpha"}, given.scale
