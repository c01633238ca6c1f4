"""The base model's large weights in four or eight bits, so that it fits a small card; what is trained keeps its
precision.

Dettmers et al. 2023, *QLoRA: Efficient Finetuning of Quantized LLMs*, §3: weights in NF4 with their scales quantised
once more, products in the base model's format. Dettmers et al. 2022, *LLM.int8()*, §3. The arithmetic is bitsandbytes'.
Only the transformers' linear layers are
packed: they are most of a UNet, and what stands around them (convolutions, time embedding) suffers more than it saves.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lora_studio.errors import MachineError

if TYPE_CHECKING:
    from lora_studio.models.base import Base

OUTLIER = 6.0
"""Inputs of larger magnitude are multiplied in full precision under int8 (LLM.int8(), §3.2)."""
KINDS = ("nf4", "int8")
_BLOCKS = ".transformer_blocks."


def quantize(base: Base, kind: str, device: torch.device) -> None:
    """Packs the UNet's transformers and moves ``base``, loaded on the CPU, to ``device``: one layer at a time, so that
    the whole UNet is never there unpacked.

    Args:
        kind: ``nf4`` or ``int8``.

    Raises:
        MachineError: bitsandbytes does not work on this machine.
    """
    bnb = _bitsandbytes()
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
    return [name for name, module in unet.named_modules() if isinstance(module, nn.Linear) and _BLOCKS in name]


def weight_of(module: nn.Linear | nn.Conv2d) -> Tensor:
    """The module's weight, unpacked where it is packed: (out, in) or (out, in, kh, kw). It shares no gradient with the
    module.

    peft has a function for this too, but on the CPU it leaves an int8 layer without its scales.
    """
    weight = module.weight.detach()
    if (state := getattr(module.weight, "quant_state", None)) is not None:
        return _bitsandbytes().functional.dequantize_4bit(weight.data, state)
    if weight.dtype == torch.int8:
        scales = module.weight.SCB if module.state.SCB is None else module.state.SCB
        return weight.float() * (scales / 127)[:, None]
    return weight


def _nf4(bnb, layer: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    fresh = bnb.nn.Linear4bit(
        layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=dtype, device="meta"
    )
    fresh.weight = bnb.nn.Params4bit(
        layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=fresh
    )
    fresh.bias = layer.bias
    fresh.support_avx512bf16_for_cpu = (
        False  # on such CPUs a preview would repack the weights into a layout that has no gradient
    )
    return fresh.eval()


def _int8(bnb, layer: nn.Linear, dtype: torch.dtype) -> nn.Linear:
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


def _bitsandbytes():
    try:
        import bitsandbytes
    except (ImportError, OSError, RuntimeError) as error:
        raise MachineError(
            f"bitsandbytes does not work on this machine: {error}.", where="quantize", do="Set quantize to none."
        ) from error
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(
        logging.ERROR
    )  # it would warn of int8's rounding at every layer of every step
    return bitsandbytes
