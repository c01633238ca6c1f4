"""Frozen adapters on top of a model, blended exactly, with weights that can be changed at any time.

Every module that they change adds Σ wᵢ ΔWᵢ x to its output through a forward hook; its own weights stay as they are,
also if they are quantized or in a short number format. The factors of all adapters of a module are concatenated, so
that any number of adapters costs two thin products: ΔW = up · diag(w) · down. As w is between the two, it may differ
from sample to sample of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_studio.adapters import detect, foreign
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.errors import AdapterError
from lora_studio.models import modules
from lora_studio.models.unpacked import weight_of

Weights = Sequence[float] | Sequence[Sequence[float]]
"""One for each adapter, for all samples; or a row of them for each sample."""


class AdapterOverlay:
    """Adapters added to ``models`` until ``remove``.

    Args:
        models: UNet and text encoders by component.
        adapters: each with its weight: 1 is as trained, 0 switches it off.
        family: of the models, for messages.
        dtype: of the factors while they compute.

    Raises:
        AdapterError: an adapter does not fit, or a weight is not finite.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        adapters: Sequence[tuple[Adapter, float]],
        family: str,
        dtype: torch.dtype,
    ):
        self.enabled = True
        self.weights: list[Sequence[float]] = []
        """Rows of weights, as ``set_weights`` takes them."""
        self.adapters = [adapter for adapter, _ in adapters]
        found = modules.adaptable(models)
        for adapter, _ in adapters:
            require_fit(adapter, found, family)
        paths = sorted({path for adapter, _ in adapters for path in adapter.factors})
        self._increments = {
            path: _Increment(found[path], [adapter.factors.get(path) for adapter, _ in adapters], dtype)
            for path in paths
        }
        self._hooks = [
            found[path].register_forward_hook(partial(self._add, increment))
            for path, increment in self._increments.items()
        ]
        self.set_weights([weight for _, weight in adapters])

    def set_weights(self, weights: Weights) -> None:
        """Gives the adapters other weights, in their order. Takes effect with the next prediction.

        Args:
            weights: one for each adapter; or N rows of them, for batches of N samples, or of a multiple of N, as
                guidance makes them.

        Raises:
            AdapterError: a weight is not finite, or there is not one for each adapter.
        """
        rows = cast(list[Sequence[float]], weights if any(isinstance(row, Sequence) for row in weights) else [weights])
        for row in rows:
            if not all(math.isfinite(weight) for weight in row):
                raise AdapterError(
                    f"An adapter's weight must be a finite number (they are {list(row)}).",
                    where="weight",
                    do="Weights from -2 to 2 make sense; 1 is as trained.",
                )
            if len(row) != len(self.adapters):
                raise AdapterError(
                    f"There are {len(self.adapters)} adapters and {len(row)} weights.",
                    where="weight",
                    do="Give one weight for each adapter.",
                )
        self.weights = rows
        table = torch.tensor(rows, dtype=torch.float32)
        for increment in self._increments.values():
            increment.weigh(table)

    def remove(self) -> None:
        """Removes the adapters."""
        for hook in self._hooks:
            hook.remove()

    def _add(self, increment: _Increment, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + increment(inputs[0], output).to(output.dtype) if self.enabled else output


class _Increment:
    """Σ wᵢ ΔWᵢ x of one module."""

    def __init__(self, module: nn.Linear | nn.Conv2d, factors: Sequence[Factors | None], dtype: torch.dtype):
        self.module = module
        self.ranks = [0 if one is None else one.rank for one in factors]
        present = [
            one.map(partial(torch.Tensor.to, device=module.weight.device, dtype=torch.float32))
            for one in factors
            if one is not None
        ]
        gains = [None if one.magnitude is None else gain(weight_of(module).float(), one) for one in present]
        kernel = modules.weight_shape(module)[2:]
        self.down = torch.cat([one.down.reshape(one.rank, -1, *kernel) for one in present]).to(dtype)
        ups = [
            one.scale * (one.up.flatten(1) if g is None else g[:, None] * one.up.flatten(1))
            for one, g in zip(present, gains, strict=True)
        ]
        self.up = torch.cat(ups, dim=1).reshape(-1, sum(self.ranks), *(1 for _ in kernel)).to(dtype)
        given = iter(gains)
        self.gains = {
            index: g.cpu() - 1
            for index, one in enumerate(factors)
            if one is not None and (g := next(given)) is not None
        }
        """A DoRA also scales W itself: which adapter, and g − 1 (out,)."""
        self.scale: Tensor
        self.gain: Tensor | None = None

    def weigh(self, weights: Tensor) -> None:
        """``weights`` (N, adapters) float32 -> ``scale`` (N, R), and with a DoRA ``gain`` (N, out)."""
        self.scale = weights.repeat_interleave(torch.tensor(self.ranks), dim=1).to(self.down)
        if self.gains:
            self.gain = (weights[:, list(self.gains)] @ torch.stack(list(self.gains.values()))).to(self.down)

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """``x``: the module's input; ``output``: its own output, bias included."""
        self._follow(x.device)
        x = x.to(self.down.dtype)
        linear = isinstance(self.module, nn.Linear)
        channels = -1 if linear else 1
        if linear:
            change = F.linear(F.linear(x, self.down) * _broadcast(self.scale, x, channels), self.up)
        else:
            middle = F.conv2d(x, self.down, None, self.module.stride, self.module.padding, self.module.dilation)
            change = F.conv2d(middle * _broadcast(self.scale, x, channels), self.up)
        if self.gain is None:
            return change
        bare = output if self.module.bias is None else output - _broadcast(self.module.bias[None], x, channels)
        return change + _broadcast(self.gain, x, channels) * bare

    def _follow(self, device: torch.device) -> None:
        """Moves with a model that has been moved."""
        if self.down.device != device:
            self.down, self.up, self.scale = (tensor.to(device) for tensor in (self.down, self.up, self.scale))
            self.gain = None if self.gain is None else self.gain.to(device)


def _broadcast(rows: Tensor, x: Tensor, channels: int) -> Tensor:
    """``rows`` (N, C) so that they multiply a batch of the shape of ``x`` (B, …): N repeated up to B, unless it is 1,
    and C at the axis ``channels``.
    """
    if len(rows) > 1:
        times, rest = divmod(len(x), len(rows))
        if rest or not times:
            raise ValueError(f"A batch of {len(x)} cannot be divided among {len(rows)} rows of weights.")
        rows = rows.repeat(times, 1)
    shape = [len(rows), *(1 for _ in x.shape[1:])]
    shape[channels] = rows.shape[1]
    return rows.reshape(shape)


def gain(weight: Tensor, factors: Factors) -> Tensor | None:
    """g = m / ‖W + V‖ for each output (out,), with V the factors' product, so that a DoRA's weight is g ⊙ (W + V);
    None for a plain LoRA.

    Liu et al. 2024, *DoRA: Weight-Decomposed Low-Rank Adaptation*, eq. 5, with the norm over each output as peft has
    it.
    """
    if factors.magnitude is None:
        return None
    norm = (weight + factors.delta().reshape(weight.shape)).flatten(1).norm(dim=1)
    return factors.magnitude / norm.clamp_min(torch.finfo(torch.float32).tiny)


def require_fit(adapter: Adapter, found: Mapping[str, nn.Linear | nn.Conv2d], family: str) -> None:
    """Raises AdapterError unless every module that ``adapter`` changes is in ``found``, with a weight of the right
    shape.
    """
    fitting = [
        path
        for path, factors in adapter.factors.items()
        if path in found and _squeezed(factors.shape) == _squeezed(modules.weight_shape(found[path]))
    ]
    total = len(adapter.factors)
    made_for = adapter.family
    foreign.require_not_apart(made_for, family, adapter.metadata.get("ss_output_name", ""))
    if len(fitting) == total > 0:
        return
    if made_for not in (family, "unknown"):
        what = f"The adapter was made for {detect.label(made_for)}; the base model loaded is {detect.label(family)}"
    else:
        what = "The adapter does not fit the base model"
    raise AdapterError(
        f"{what}: {len(fitting)} of its {total} modules match.",
        where=adapter.metadata.get("ss_output_name", ""),
        do="Choose an adapter that was made for this base model, or the base model that it was made for.",
    )


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """A 1×1 convolution and a linear layer of the same widths take the same change."""
    return tuple(shape[:2]) if tuple(shape[2:]) == (1, 1) else tuple(shape)
