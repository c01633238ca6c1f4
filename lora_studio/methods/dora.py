"""DoRA (Liu et al. 2024, section 4.1): the length of each output's weights learns apart from their direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lora_studio.language import tr
from lora_studio.methods.lora import Lora, copied
from lora_studio.methods.method import NAME, AdapterOptions, Layer, LayerInput, LayerShape

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

    from lora_studio.adapters.adapter import Adapter, Factors
    from lora_studio.adapters.dora import Plain, Weights


class Dora(Lora):
    """m (W + V) / ‖W + V‖ with V = (alpha / r) B A and the norm over each output's inputs."""

    name, title = "dora", "DoRA"
    help = "DoRA learns length and direction apart (slower, often closer)"
    cappable = False
    low_precision = False
    """Magnitudes are as large as the weights themselves: rounded, they would change the base model."""
    trains_magnitudes = True

    def refusal(self, options: AdapterOptions, quantize: str) -> str:
        if quantize != "int8":
            return ""
        return tr(
            "A DoRA needs the base model's weights at every step, which int8 layers do not give on every device: "
            "set quantize to nf4 or none"
        )

    def config(self, options: AdapterOptions, modules: Sequence[str]) -> LoraConfig:
        config = super().config(options, modules)
        config.use_dora = True
        return config

    def start(
        self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator
    ) -> Mapping[str, Factors] | None:
        """As a LoRA, and m = ‖W‖, which peft leaves in the base model's format: too few digits to start from."""
        super().start(layers, options, source)
        for layer in layers.values():
            _set_magnitude(layer.module, layer.weight().float())
        return None

    def read(self, layer: Layer, subtracted: Factors | None) -> Factors:
        return replace(super().read(layer, subtracted), magnitude=copied(_magnitude(layer.module)).flatten())

    def begin(self, layer: Layer, given: Factors) -> None:
        """As a LoRA, and m = ‖W + ΔW‖, so that the first answer is the given adapter's; a DoRA brings its own m."""
        super().begin(layer, replace(given, magnitude=None))
        if given.magnitude is not None:
            magnitude = _magnitude(layer.module)
            magnitude.copy_(given.magnitude.reshape(magnitude.shape))
            return
        weight = layer.weight().float()
        _set_magnitude(layer.module, weight + given.delta().reshape(weight.shape).to(weight.device))

    def plain(self, adapter: Adapter, weights: Weights, options: AdapterOptions) -> Plain:
        """The nearest LoRA of twice the rank: programs disagree on what a magnitude means."""
        from lora_studio.adapters import dora

        return dora.as_lora(adapter, weights, {path: 2 * one.rank for path, one in adapter.factors.items()})

    def parameters(self, options: AdapterOptions, shape: LayerShape) -> int:
        return super().parameters(options, shape) + shape.outputs

    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        """As a LoRA, and both of its outputs before they are scaled."""
        return super().kept(options, shape, given) + 2 * given.tokens * shape.outputs * given.element


def _magnitude(module: Any) -> torch.Tensor:
    return module.lora_magnitude_vector[NAME].weight


def _set_magnitude(module: Any, weight: torch.Tensor) -> None:
    magnitude = _magnitude(module)
    magnitude.copy_(weight.flatten(1).norm(dim=1).reshape(magnitude.shape))
