"""OFT (Qiu et al. 2023; OFTv2, Qiu et al. 2025): a layer's outputs are rotated in blocks, and keep their lengths."""

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


class Oft(Method):
    """R W with orthogonal blocks. As in OFTv2 (section 3) what flows through the layer is rotated, and no weight.

    peft rotates inputs, W R, which no other program reads; LyCORIS, kohya, ComfyUI and A1111 rotate outputs, as here.
    The inverse in Cayley's transform is theirs as well, where OFTv2 and peft have a series (section 4).
    """

    name, title = "oft", "OFT"
    help = "OFT rotates what layers answer without changing its size, which spares what the base model knows"
    low_precision = True
    ignores = ("rank", "alpha", "rslora", "init")
    own_start = tr("An OFT begins from nothing or from an OFT of its block size, since other changes are no rotations.")
    own_kind = "oft"

    def inject(self, model: nn.Module, names: Sequence[str], options: AdapterOptions) -> None:
        from lora_studio.methods.increment_layer import dimensions
        from lora_studio.methods.oft_layer import OftLayer
        from lora_studio.methods.own_layer import wrap

        size = options.oft_block_size
        wrap(model, names, lambda base: OftLayer(base, block(dimensions(base)[0], size), options.dropout))

    def start(self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator) -> None:
        """R = I."""
        for layer in layers.values():
            layer.module.oft_skew.zero_()

    def read(self, layer: Layer, subtracted: Factors | None) -> OutputChange:
        from lora_studio.adapters.oft import OftChange

        return OftChange(copied(layer.module.blocks()))

    def begin(self, layer: Layer, given: Factors) -> None:
        raise NotImplementedError("own_start says why")

    def fits(self, layer: Layer, given: Factors | OutputChange) -> bool:
        """An OFT with blocks of the same size."""
        from lora_studio.adapters.oft import OftChange

        sizes = layer.module.count, layer.module.size, layer.module.size
        return isinstance(given, OftChange) and tuple(given.blocks.shape) == sizes

    def take(self, layer: Layer, given: Factors | OutputChange) -> None:
        from lora_studio.adapters.oft import OftChange

        assert isinstance(given, OftChange)
        module = layer.module
        rows, columns = module.get_buffer("places").cpu()
        skew = given.blocks.float() - given.blocks.float().mT
        module.oft_skew.copy_(skew[:, rows, columns])

    def parameters(self, options: AdapterOptions, shape: LayerShape) -> int:
        return shape.outputs * (block(shape.outputs, options.oft_block_size) - 1) // 2

    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        """The layer's answer; of each block the transform's system, its solution, and R, in the model's format too."""
        size = block(shape.outputs, options.oft_block_size)
        return given.tokens * shape.outputs * given.element + shape.outputs * size * (3 * 4 + given.element)


def block(outputs: int, size: int) -> int:
    """The size of the blocks of a layer: the largest divisor of its outputs up to ``size``.

    >>> block(320, 32), block(1280, 48), block(4, 32)
    (32, 40, 4)
    """
    return next(divisor for divisor in range(min(size, outputs), 0, -1) if outputs % divisor == 0)
