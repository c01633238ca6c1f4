"""LoRA (Hu et al. 2021), and with ``rslora`` its scale of alpha / √r (Kalajdzievski 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from lora_studio.methods.method import NAME, AdapterOptions, Directions, Layer, LayerInput, LayerShape, Method

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

    from lora_studio.adapters.adapter import Factors


class Lora(Method):
    """W + (alpha / r) B A."""

    name, title, help = "lora", "LoRA", "LoRA is small, fast, and what every program reads"
    low_precision = True
    cappable = True

    def config(self, options: AdapterOptions, modules: Sequence[str]) -> LoraConfig:
        from peft import LoraConfig

        return LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,  # ty: ignore[invalid-argument-type]  # peft takes any number
            lora_dropout=options.dropout,
            use_rslora=options.rslora,
            target_modules=list(modules),
        )

    def start(
        self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator
    ) -> Mapping[str, Factors] | None:
        """A from ``source`` and B zero, as in peft (gaussian: standard deviation 1 / r; kaiming: uniform), but drawn on
        the CPU for every device; orthogonal: orthonormal rows, so that no two directions of A overlap. So are, at
        first, those of EVA: what its inputs do not fill stays as long as what they do.
        """
        import torch
        from torch import nn

        for layer in layers.values():
            down, up = factors_of(layer.module)
            fresh = torch.empty(down.shape)
            if options.init == "gaussian":
                fresh.normal_(std=1 / len(fresh), generator=source)
            elif options.init in ("orthogonal", "eva"):
                nn.init.orthogonal_(fresh, generator=source)
            else:
                nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=source)
            down.copy_(fresh)
            up.zero_()
        return None

    def looks_at(self, options: AdapterOptions) -> Literal["", "inputs", "gradients"]:
        return "inputs" if options.init == "eva" else ""

    def start_along(
        self, layers: Mapping[str, Layer], options: AdapterOptions, seen: Mapping[str, Directions]
    ) -> Mapping[str, Factors] | None:
        """EVA (Paischer et al. 2024, *One Initialization to Rule them All: Fine-tuning via Explained Variance
        Adaptation*, section 3): A's rows are the main directions of the layer's inputs, B stays zero. Every layer keeps
        its rank, which the paper also shifts between layers.
        """
        for path, layer in layers.items():
            down, _ = factors_of(layer.module)
            rows = seen[path].right[: len(down)]
            down[: len(rows)] = rows.reshape(len(rows), *down.shape[1:])
        return None

    def read(self, layer: Layer, subtracted: Factors | None) -> Factors:
        from lora_studio.adapters.adapter import Factors

        module = layer.module
        down, up = factors_of(module)
        return Factors(copied(down), copied(up), module.scaling[NAME] * module.r[NAME])

    def begin(self, layer: Layer, given: Factors) -> None:
        """The scale is shared evenly between both factors. Rows of A that ``given`` does not fill stay as they were
        drawn, their columns of B zero, so that they can still learn.
        """
        from lora_studio.adapters import resize
        from lora_studio.adapters.adapter import Adapter

        nearest = resize.to_rank(Adapter({"": given}), layer.module.r[NAME]).adapter.factors[""]
        down, up = factors_of(layer.module)
        ratio = nearest.scale / layer.module.scaling[NAME]
        root, rank = abs(ratio) ** 0.5, nearest.rank
        up.zero_()
        down[:rank] = (root * nearest.down.float()).reshape(rank, *down.shape[1:]).to(down.device)
        signed = root * (1 if ratio > 0 else -1) * nearest.up.float()
        up[:, :rank] = signed.reshape(-1, rank, *up.shape[2:]).to(up.device)

    def parameters(self, options: AdapterOptions, shape: LayerShape) -> int:
        return options.rank * (shape.inputs * shape.kernel**2 + shape.outputs)

    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        """Its input, unless it is kept anyway and dropout does not change it; A x; dropout's mask, a byte each."""
        dropout = options.dropout > 0
        elements = shape.inputs * (dropout or not given.shared) + options.rank
        return given.tokens * (elements * given.element + shape.inputs * dropout)


def factors_of(module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A (r, in) and B (out, r) of peft's LoRA layer; for a convolution (r, in, kh, kw) and (out, r, 1, 1)."""
    return module.lora_A[NAME].weight, module.lora_B[NAME].weight


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """A float32 copy on the CPU, without a gradient."""
    import torch

    return tensor.detach().to("cpu", torch.float32, copy=True)
