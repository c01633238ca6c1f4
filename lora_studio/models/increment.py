"""Σ wᵢ ΔWᵢ x of one module, and where the weights wᵢ of many modules lie.

Legend: N samples with weights of their own, R the ranks of all adapters of a module one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_studio.adapters.adapter import Factors
from lora_studio.models import modules
from lora_studio.models.unpacked import weight_of


class Increment:
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
        self.scale: Tensor = self.down.new_empty(0)
        """(N, R); see ``IncrementScales``."""
        self.gain: Tensor | None = None
        self._gains = Rows()

    @property
    def columns(self) -> list[int]:
        """The adapter of each of the R ranks."""
        return [index for index, rank in enumerate(self.ranks) for _ in range(rank)]

    def weigh(self, weights: Tensor) -> None:
        """``weights`` (N, adapters) float32 -> with a DoRA ``gain`` (N, out)."""
        if self.gains:
            gain = weights[:, list(self.gains)] @ torch.stack(list(self.gains.values()))
            self.gain = self._gains.placed(gain, self.down)

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """``x``: the module's input; ``output``: its own output, bias included."""
        self._follow(x.device)
        x = x.to(self.down.dtype)
        linear = isinstance(self.module, nn.Linear)
        channels = -1 if linear else 1
        if linear:
            change = F.linear(F.linear(x, self.down) * broadcast(self.scale, x, channels), self.up)
        else:
            middle = F.conv2d(x, self.down, None, self.module.stride, self.module.padding, self.module.dilation)
            change = F.conv2d(middle * broadcast(self.scale, x, channels), self.up)
        if self.gain is None:
            return change
        bare = output if self.module.bias is None else output - broadcast(self.module.bias[None], x, channels)
        return change + broadcast(self.gain, x, channels) * bare

    def delta(self) -> Tensor:
        """Σ wᵢ ΔWᵢ of the shape of the module's weight, for weights that all samples share."""
        weight = self.module.weight
        self._follow(weight.device)
        delta = ((self.up.flatten(1) * self.scale[0]) @ self.down.flatten(1)).reshape(weight.shape)
        return delta if self.gain is None else delta + self.gain[0].reshape(-1, *[1] * (weight.ndim - 1)) * weight

    def _follow(self, device: torch.device) -> None:
        """Moves with a model that has been moved."""
        if self.down.device != device:
            self.down, self.up, self.scale = (tensor.to(device) for tensor in (self.down, self.up, self.scale))
            self.gain = None if self.gain is None else self.gain.to(device)


class IncrementScales:
    """The ``scale`` of all increments of one model, in one tensor: new weights are copied there once, and not module by
    module, which a GPU would have to be waited for each time.
    """

    def __init__(self, increments: Sequence[Increment]):
        self._increments, self._rows = increments, Rows()
        columns = [one.columns for one in increments]
        self._columns, self._widths = torch.tensor(list(chain.from_iterable(columns))), list(map(len, columns))

    def weigh(self, weights: Tensor) -> None:
        """``weights`` (N, adapters) float32 -> ``scale`` (N, R) of each increment."""
        whole = self._rows.placed(weights[:, self._columns], self._increments[0].down)
        for one, scale in zip(self._increments, whole.split(self._widths, dim=1), strict=True):
            one.scale = scale.to(one.down.device)  # a module that did not compute since the model was moved


class Rows:
    """Where what differs from sample to sample lies, a tensor (N, …) for each N that there was: a recorded forward pass
    for N samples reads it there again, also after other numbers of samples were drawn.
    """

    def __init__(self) -> None:
        self._of: dict[int, Tensor] = {}

    def placed(self, values: Tensor, like: Tensor) -> Tensor:
        """``values`` (N, …) in the format and on the device of ``like``."""
        before = self._of.get(len(values))
        if before is None or before.shape != values.shape or before.device != like.device:
            self._of[len(values)] = values.to(like, copy=True)
        else:
            before.copy_(values)
        return self._of[len(values)]


def broadcast(rows: Tensor, x: Tensor, channels: int) -> Tensor:
    """``rows`` (N, C) so that they multiply a batch of the shape of ``x`` (B, …): N repeated up to B, unless it is 1,
    and C at the axis ``channels``.
    """
    rows = repeated(rows, len(x))
    shape = [len(rows), *(1 for _ in x.shape[1:])]
    shape[channels] = rows.shape[1]
    return rows.reshape(shape)


def repeated(rows: Tensor, count: int) -> Tensor:
    """``rows`` (N, C), N repeated up to ``count``, unless it is 1."""
    if len(rows) == 1:
        return rows
    times, rest = divmod(count, len(rows))
    if rest or not times:
        raise ValueError(f"A batch of {count} cannot be divided among {len(rows)} rows of weights.")
    return rows.repeat(times, 1)


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
