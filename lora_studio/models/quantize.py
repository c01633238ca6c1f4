"""The base model's large weights in four or eight bits, so that it fits a small card; what is trained keeps its
precision.

Dettmers et al. 2023, *QLoRA: Efficient Finetuning of Quantized LLMs*, §3: weights in NF4 with their scales quantized
once more, products in the base model's format. Dettmers et al. 2022, *LLM.int8()*, §3. The arithmetic is bitsandbytes'.

Only the transformers' linear layers are packed: they are most of a UNet, and packing the rest (convolutions, time
embedding) would cost more quality than it saves memory.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import nn

from lora_studio.models.base import Base
from lora_studio.models.unpacked import bitsandbytes

OUTLIER = 6.0
"""Inputs of larger magnitude are multiplied in full precision under int8 (LLM.int8(), §3.2)."""
KINDS = ("nf4", "int8")
_BLOCKS = ".transformer_blocks."


def quantize(base: Base, kind: str, device: torch.device) -> None:
    """Packs the UNet's transformers and moves ``base``, loaded on the CPU, to ``device``: one layer at a time, so that
    the whole UNet is never on the device unpacked.

    Args:
        kind: ``nf4`` or ``int8``.

    Raises:
        MachineError: bitsandbytes does not work on this machine.
    """
    bnb = bitsandbytes()
    for name in packed(base.unet):
        parent, _, child = name.rpartition(".")
        owner = base.unet.get_submodule(parent)
        layer = _nf4 if kind == "nf4" else _int8
        setattr(owner, child, layer(bnb, getattr(owner, child), base.dtype).to(device))
    setattr(base.unet, {"nf4": "is_loaded_in_4bit", "int8": "is_loaded_in_8bit"}[kind], True)  # what peft goes by
    base.unet.to(device)
    base.device = device
    if not base.in_turn:
        base.encoders_to(device)


def packed(unet: nn.Module) -> list[str]:
    """Names within ``unet`` of the layers that ``quantize`` packs."""
    return [name for name, module in unet.named_modules() if isinstance(module, nn.Linear) and _BLOCKS in f".{name}"]


def _nf4(bnb: ModuleType, layer: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    fresh = bnb.nn.Linear4bit(
        layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=dtype, device="meta"
    )
    fresh.weight = bnb.nn.Params4bit(
        layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=fresh
    )
    fresh.bias = layer.bias
    # else a preview would repack the weights, on CPUs that can, into a layout that has no gradient
    fresh.support_avx512bf16_for_cpu = False
    return fresh.eval()


def _int8(bnb: ModuleType, layer: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    fresh = bnb.nn.Linear8bitLt(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        has_fp16_weights=False,
        threshold=OUTLIER,
        device="meta",
    )
    fresh.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    fresh.bias = layer.bias
    return fresh.eval()
