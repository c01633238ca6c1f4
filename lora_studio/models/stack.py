"""Frozen adapters on top of a model, blended exactly, with weights that can be changed at any time.

Every module that they change adds Σ wᵢ ΔWᵢ x to its answer through a forward hook; its own weights stay as they are, also when they
are quantised or in a short number format. The factors of all adapters of a module are laid end to end, so that any number of
adapters costs two thin products: ΔW = up · diag(w) · down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from lora_studio.adapters import detect
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.errors import AdapterError
from lora_studio.models import modules


class Stack:
    """Adapters added to ``models`` until ``remove``.

    Args:
        models: UNet and text encoders by component.
        adapters: each with its weight: 1 is as trained, 0 switches it off.
        family: of the models, for messages.
        dtype: of the factors while they compute.

    Raises:
        AdapterError: an adapter does not fit, or a weight is not finite.
    """

    def __init__(self, models: Mapping[str, nn.Module], adapters: Sequence[tuple[Adapter, float]], family: str, dtype: torch.dtype):
        self.enabled = True
        self.adapters = [adapter for adapter, _ in adapters]
        found = modules.adaptable(models)
        for adapter, _ in adapters:
            require_fit(adapter, found, family)
        paths = sorted({path for adapter, _ in adapters for path in adapter.factors})
        self._increments = {path: _Increment(found[path], [adapter.factors.get(path) for adapter, _ in adapters], dtype) for path in paths}
        self._hooks = [found[path].register_forward_hook(partial(self._add, increment)) for path, increment in self._increments.items()]
        self.set_weights([weight for _, weight in adapters])

    def set_weights(self, weights: Sequence[float]) -> None:
        """Gives the adapters other weights, in their order. Takes effect with the next prediction.

        Raises:
            AdapterError: a weight is not finite, or there is not one for each adapter.
        """
        if not all(math.isfinite(weight) for weight in weights):
            raise AdapterError(f"An adapter's weight must be a finite number (they are {list(weights)}).", where="weight",
                               do="Weights from -2 to 2 make sense; 1 is as trained.")
        for increment in self._increments.values():
            increment.weigh(weights)

    def remove(self) -> None:
        """Takes the adapters off again."""
        for hook in self._hooks:
            hook.remove()

    def _add(self, increment: _Increment, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + increment(inputs[0], output).to(output.dtype) if self.enabled else output


class _Increment:
    """Σ wᵢ ΔWᵢ x of one module."""

    def __init__(self, module: nn.Linear | nn.Conv2d, factors: Sequence[Factors | None], dtype: torch.dtype):
        self.module = module
        self.ranks = [0 if one is None else one.rank for one in factors]
        present = [one.map(partial(torch.Tensor.to, device=module.weight.device, dtype=torch.float32)) for one in factors if one is not None]
        gains = [gain(dequantize_module_weight(module).float(), one) for one in present]
        kernel = modules.weight_shape(module)[2:]
        self.down = torch.cat([one.down.reshape(one.rank, -1, *kernel) for one in present]).to(dtype)
        ups = [one.scale * (one.up.flatten(1) if g is None else g[:, None] * one.up.flatten(1)) for one, g in zip(present, gains, strict=True)]
        self.up = torch.cat(ups, dim=1).reshape(-1, sum(self.ranks), *(1 for _ in kernel)).to(dtype)
        self.scale = torch.ones(sum(self.ranks), dtype=dtype, device=self.up.device)
        given = iter(gains)
        self.turns = [(index, (g - 1).to(dtype)) for index, one in enumerate(factors) if one is not None and (g := next(given)) is not None]
        """A DoRA also turns W itself: which adapter, and g − 1 (out,)."""
        self.turn = torch.zeros(len(self.up), dtype=dtype, device=self.up.device) if self.turns else None

    def weigh(self, weights: Sequence[float]) -> None:
        if len(weights) != len(self.ranks):
            raise AdapterError(f"There are {len(self.ranks)} adapters and {len(weights)} weights.", where="weight", do="Give one weight for each adapter.")
        self.scale.copy_(torch.tensor([weight for weight, rank in zip(weights, self.ranks, strict=True) for _ in range(rank)]))
        if self.turn is not None:
            self.turn.copy_(sum(weights[index] * turn.to(self.turn.device) for index, turn in self.turns))

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """``x``: the module's input; ``output``: its own answer to it, bias included."""
        self._follow(x.device)
        x = x.to(self.down.dtype)
        if isinstance(self.module, nn.Linear):
            change = F.linear(F.linear(x, self.down) * self.scale, self.up)
        else:
            middle = F.conv2d(x, self.down, None, self.module.stride, self.module.padding, self.module.dilation)
            change = F.conv2d(middle * self.scale[:, None, None], self.up)
        if self.turn is None:
            return change
        wide = (-1,) if isinstance(self.module, nn.Linear) else (-1, 1, 1)
        bare = output if self.module.bias is None else output - self.module.bias.reshape(wide)
        return change + self.turn.reshape(wide) * bare

    def _follow(self, device: torch.device) -> None:
        """A model may have been moved since."""
        if self.down.device != device:
            self.down, self.up, self.scale = (tensor.to(device) for tensor in (self.down, self.up, self.scale))
            self.turn = None if self.turn is None else self.turn.to(device)


def gain(weight: Tensor, factors: Factors) -> Tensor | None:
    """g = m / ‖W + V‖ for each output (out,), V being the factors' product, so that a DoRA's weight is g ⊙ (W + V); None for a plain LoRA.

    Liu et al. 2024, *DoRA: Weight-Decomposed Low-Rank Adaptation*, eq. 5, with the norm over each output as peft has it.
    """
    if factors.magnitude is None:
        return None
    norm = (weight + factors.delta().reshape(weight.shape)).flatten(1).norm(dim=1)
    return factors.magnitude / norm.clamp_min(torch.finfo(torch.float32).tiny)


def require_fit(adapter: Adapter, found: Mapping[str, nn.Module], family: str) -> None:
    """Raises AdapterError unless every module that ``adapter`` changes is in ``found``, with a weight of the right shape."""
    fitting = [path for path, factors in adapter.factors.items() if path in found and _squeezed(factors.shape) == _squeezed(modules.weight_shape(found[path]))]
    total = len(adapter.factors)
    if len(fitting) == total > 0:
        return
    made_for = adapter.family
    if made_for not in (family, "unknown"):
        what = f"The adapter was made for {detect.label(made_for)}; the base model loaded is {detect.label(family)}"
    else:
        what = "The adapter does not fit the base model"
    raise AdapterError(f"{what}: {len(fitting)} of its {total} modules match.", where=adapter.metadata.get("ss_output_name", ""),
                       do="Choose an adapter that was made for this base model, or the base model that it was made for.")


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """A 1×1 convolution and a linear layer of the same widths change alike."""
    return tuple(shape[:2]) if tuple(shape[2:]) == (1, 1) else tuple(shape)
