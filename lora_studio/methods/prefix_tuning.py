"""Prefix tuning (Li & Liang 2021): keys and values of each attention to the text, learned beside those of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lora_studio.errors import SettingsError
from lora_studio.language import tr
from lora_studio.methods.lora import copied
from lora_studio.methods.method import AdapterOptions, Layer, LayerInput, LayerShape, Method

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lora_studio.adapters.adapter import Factors
    from lora_studio.adapters.output_change import OutputChange

_KEYS, _VALUES = ".attn2.to_k", ".attn2.to_v"
_SPREAD = 0.1
"""Standard deviation of the first keys: they must differ, since equal ones would get equal gradients for ever."""
_TOKENS = 77
"""Of a text of one chunk, for memory."""


class PrefixTuning(Method):
    """softmax(q [K; Pₖ]ᵀ / √d) [V; Pᵥ], with ``rank`` rows in Pₖ and Pᵥ of every attention to the text.

    The values start at zero and the keys near it. Step 0 is close to the base model, and not the model itself: with Z
    the sum of the text's exponentiated scores, the rows take n / (Z + n) of the attention, and give nothing for it.
    """

    name, title = "prefix-tuning", "Prefix tuning"
    help = "Prefix tuning learns keys and values beside the text's: only the studio draws with its files"
    low_precision = True
    own_start = tr(
        "Prefix tuning begins from values of zero or from a prefix of its rank, not from a change of weights."
    )
    own_kind = "prefix"
    keeps_rank = True
    usual = {"rank": 4}
    ignores = ("alpha", "rslora", "dropout", "init", "train_text")

    def takes(self, path: str) -> bool:
        return path.endswith((_KEYS, _VALUES))

    def inject(self, model: nn.Module, names: Sequence[str], options: AdapterOptions) -> None:
        from lora_studio.adapters.prefix import KEYS, VALUES
        from lora_studio.methods.own_layer import wrap
        from lora_studio.methods.prefix_layer import PrefixLayer

        keys, values = ([name for name in names if name.endswith(end)] for end in (_KEYS, _VALUES))
        if [name.removesuffix(_KEYS) for name in keys] != [name.removesuffix(_VALUES) for name in values]:
            raise SettingsError(
                tr("Prefix tuning needs the keys and the values of each attention, and some of them are left out."),
                where="targets",
                do=tr("Set targets to attention or more, and let blocks name whole blocks."),
            )
        wrap(model, keys, partial(PrefixLayer, count=options.rank, role=KEYS))
        wrap(model, values, partial(PrefixLayer, count=options.rank, role=VALUES))

    def start(self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator) -> None:
        """Keys from ``source``, values of zero."""
        import torch

        for path, layer in layers.items():
            rows = layer.module.rows
            rows.copy_(_SPREAD * torch.randn(rows.shape, generator=source) if path.endswith(_KEYS) else rows * 0)

    def read(self, layer: Layer, subtracted: Factors | None) -> OutputChange:
        from lora_studio.adapters.prefix import Prefix

        return Prefix(copied(layer.module.rows), layer.module.role)

    def begin(self, layer: Layer, given: Factors) -> None:
        raise NotImplementedError("own_start says why")

    def fits(self, layer: Layer, given: Factors | OutputChange) -> bool:
        """A prefix of the same rank."""
        from lora_studio.adapters.prefix import Prefix

        own = layer.module.role, layer.module.rows.shape
        return isinstance(given, Prefix) and (given.role, given.rows.shape) == own

    def take(self, layer: Layer, given: Factors | OutputChange) -> None:
        from lora_studio.adapters.prefix import Prefix

        assert isinstance(given, Prefix)
        layer.module.rows.copy_(given.rows)

    def parameters(self, options: AdapterOptions, shape: LayerShape) -> int:
        return options.rank * shape.outputs

    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        """The rows among the keys or values, for each sample."""
        return given.tokens / _TOKENS * options.rank * shape.outputs * given.element
