"""A frozen layer's weight as plain numbers, also where ``quantize`` has packed it."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lora_studio import libraries
from lora_studio.errors import MachineError
from lora_studio.language import tr


def weight_of(module: nn.Linear | nn.Conv2d) -> Tensor:
    """The module's weight, unpacked where it is packed: (out, in) or (out, in, kh, kw). It shares no gradient with the
    module.

    peft has a function for this too, but on the CPU it leaves an int8 layer without its scales.
    """
    held: Any = module.weight
    weight = held.detach()
    if (state := getattr(held, "quant_state", None)) is not None:
        return bitsandbytes().functional.dequantize_4bit(weight.data, state)
    if weight.dtype == torch.int8:
        packed: Any = module
        scales = held.SCB if packed.state.SCB is None else packed.state.SCB
        return weight.float() * (scales / 127)[:, None]
    return weight


def bitsandbytes() -> ModuleType:
    """The library that packs weights.

    Raises:
        MachineError: it does not work on this machine.
    """
    try:
        found = libraries.bitsandbytes()
    except (ImportError, OSError, RuntimeError) as error:
        raise MachineError(
            tr("bitsandbytes does not work on this machine: {error}.", error=error),
            where="quantize",
            do=tr("Set quantize to none."),
        ) from error
    # it would warn of int8's rounding at every layer of every step
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return found
