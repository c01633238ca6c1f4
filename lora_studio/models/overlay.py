"""Frozen adapters on top of a model, blended exactly, with weights that can be changed at any time.

Every module that they change adds Σ wᵢ ΔWᵢ x to its output through a forward hook; its own weights stay as they are,
also if they are quantized or in a short number format. The factors of all adapters of a module are concatenated, so
that any number of adapters costs two thin products: ΔW = up · diag(w) · down. As w is between the two, it may differ
from sample to sample of a batch. Output changes follow one after the other, each at its weight.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lora_studio.adapters import detect, foreign
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.adapters.output_change import OutputChange, Pass
from lora_studio.errors import AdapterError
from lora_studio.families import layout
from lora_studio.language import tr
from lora_studio.models import modules
from lora_studio.models.increment import Increment, IncrementScales, Rows, repeated

MOST_FOLDED = 2**29
"""Bytes of weights that are kept twice while adapters are folded into them; in larger models the thin products are a
small part of the work.
"""
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
        paths = sorted({path for adapter in self.adapters for path in adapter.changes})
        self._changed = [
            _Changed(
                found[path],
                [adapter.factors.get(path) for adapter in self.adapters],
                [adapter.outputs.get(path) for adapter in self.adapters],
                dtype,
            )
            for path in paths
        ]
        by_model: dict[str, list[Increment]] = {}
        for path, changed in zip(paths, self._changed, strict=True):
            if changed.increment:
                by_model.setdefault(path.partition(".")[0], []).append(changed.increment)
        self._scales = [IncrementScales(some) for some in by_model.values()]
        self._hook(self._changed)
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
                    tr("An adapter's weight must be a finite number (they are {weights}).", weights=str(list(row))),
                    where="weight",
                    do=tr("Weights from -2 to 2 make sense; 1 is as trained."),
                )
            if len(row) != len(self.adapters):
                raise AdapterError(
                    tr(
                        "There are {adapters} adapters and {weights} weights.",
                        adapters=len(self.adapters),
                        weights=len(row),
                    ),
                    where="weight",
                    do=tr("Give one weight for each adapter."),
                )
        for index, adapter in enumerate(self.adapters):
            if not adapter.shares_batch and len({bool(row[index]) for row in rows}) > 1:
                what = tr(
                    "{adapter} is {a_title}, which a whole batch has or has not.",
                    adapter=adapter.file or tr("An adapter"),
                    a_title=adapter.kind.a_title,
                )
                raise AdapterError(
                    what, where="weight", do=tr("Draw samples with it and without it one after the other.")
                )
        self.weights = rows
        table = torch.tensor(rows, dtype=torch.float32)
        for scales in self._scales:
            scales.weigh(table)
        for changed in self._changed:
            changed.weigh(table)

    @property
    def form(self) -> tuple[bool | int, ...]:
        """What decides which operations a forward pass consists of, besides the adapters."""
        alone = [index for index, adapter in enumerate(self.adapters) if not adapter.shares_batch]
        return self.enabled, len(self.weights), *(any(row[index] for row in self.weights) for index in alone)

    @property
    def reads_texts(self) -> bool:
        """Whether the adapters change what the text encoders answer."""
        return any(one.embeddings or any(map(_of_text, one.changes)) for one in self.adapters)

    def remove(self) -> None:
        """Removes the adapters."""
        for changed in self._changed:
            changed.unhook()

    @contextmanager
    def folded(self, model: nn.Module) -> Generator[None]:
        """Within it the modules of ``model`` hold the sum of their own weights and the adapters', as they are weighted
        now: the same answers up to rounding, without the thin products. Afterwards they hold their own, to the bit.

        Does nothing where that would not be the same or too large: weights of which samples have their own, in a
        short number format or packed, or of more than ``MOST_FOLDED`` bytes.
        """
        own = set(model.modules())
        folded = [one for one in self._changed if one.module in own and one.foldable]
        weights = [one.module.weight for one in folded]
        wide = all(weight.dtype in (torch.float32, torch.float64) for weight in weights)
        if (
            not self.enabled
            or len(self.weights) > 1
            or not wide
            or sum(weight.nbytes for weight in weights) > MOST_FOLDED
        ):
            yield
            return
        kept = [weight.detach().clone() for weight in weights]
        try:
            for one in folded:
                one.unhook()
                one.module.weight.data += one.delta()
            yield
        finally:
            for weight, original in zip(weights, kept, strict=True):
                weight.data.copy_(original)
            self._hook(folded)

    def _hook(self, modules: Iterable[_Changed]) -> None:
        for changed in modules:
            changed.hook = changed.module.register_forward_hook(partial(self._change, changed))

    def _change(self, changed: _Changed, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return changed(inputs[0], output) if self.enabled else output


class _Changed:
    """One module with all that the adapters do to it; of each adapter its factors and its output change, or None."""

    def __init__(
        self,
        module: nn.Linear | nn.Conv2d,
        factors: Sequence[Factors | None],
        outputs: Sequence[OutputChange | None],
        dtype: torch.dtype,
    ):
        self.module = module
        self.increment = Increment(module, factors, dtype) if any(one is not None for one in factors) else None
        self.outputs = [_Output(index, one, module, dtype) for index, one in enumerate(outputs) if one is not None]
        self.foldable = all(one.change.changes_weight for one in self.outputs)
        self.hook: RemovableHandle | None = None
        """On the module, while this changes its output."""

    def weigh(self, weights: Tensor) -> None:
        """Takes over ``weights`` (N, adapters) float32, but for the increment's scale."""
        if self.increment:
            self.increment.weigh(weights)
        for one in self.outputs:
            one.weigh(weights)

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """``x``: the module's input; ``output``: its own output, bias included."""
        total = output if self.increment is None else output + self.increment(x, output).to(output.dtype)
        for one in self.outputs:
            total = one(x, output, total)
        return total

    def delta(self) -> Tensor:
        """Σ wᵢ ΔWᵢ of the shape of the module's weight, for weights that all samples share."""
        weight = self.module.weight
        delta = torch.zeros_like(weight) if self.increment is None else self.increment.delta()
        for one in self.outputs:
            delta = delta + one.weights[0].to(weight.device) * one.change.change(weight.detach()).to(weight.dtype)
        return delta

    def unhook(self) -> None:
        """Takes this off the module."""
        if self.hook:
            self.hook.remove()
        self.hook = None


class _Output:
    """The output change of the adapter number ``index`` at one module."""

    def __init__(self, index: int, change: OutputChange, module: nn.Linear | nn.Conv2d, dtype: torch.dtype):
        self.index, self.module, self.dtype = index, module, dtype
        self.change = change.placed(module.weight.device, dtype)
        self.weights, self._rows = torch.empty(0, device=module.weight.device), Rows()
        self.left_out = False

    def weigh(self, weights: Tensor) -> None:
        """As of an increment."""
        self.left_out = not self.change.shares_batch and not weights[:, self.index].any()
        self.weights = self._rows.placed(self.change.strength(weights[:, self.index]), self.weights)

    def __call__(self, x: Tensor, output: Tensor, total: Tensor) -> Tensor:
        if self.left_out:
            return total
        if self.weights.device != x.device:  # the model has been moved
            self.weights = self.weights.to(x.device)
            self.change = self.change.placed(x.device, self.dtype)
        rows = repeated(self.weights[:, None], len(x))[:, 0]
        x, output, total = (self._last(one) for one in (x, output, total))
        return self._first(self.change.apply(Pass(x, output, self.module.bias, total, rows, self._again)))

    def _again(self, x: Tensor) -> Tensor:
        """The module's own output for ``x``, without hooks; both with their channels last."""
        return self._last(self.module.forward(self._first(x)))

    def _last(self, x: Tensor) -> Tensor:
        """A convolution's channels to the last axis."""
        return x if isinstance(self.module, nn.Linear) else x.movedim(1, -1)

    def _first(self, x: Tensor) -> Tensor:
        return x if isinstance(self.module, nn.Linear) else x.movedim(-1, 1)


def require_fit(adapter: Adapter, found: Mapping[str, nn.Linear | nn.Conv2d], family: str) -> None:
    """Raises AdapterError unless every module that ``adapter`` changes is in ``found``, with a weight of the right
    shape.
    """
    fitting = [
        path
        for path, change in adapter.changes.items()
        if path in found and _fits(change.shape, modules.weight_shape(found[path]))
    ]
    total = len(adapter.changes)
    made_for = adapter.family
    foreign.require_not_apart(made_for, family, adapter.metadata.get("ss_output_name", ""))
    if len(fitting) == total and (total or adapter.embeddings):
        return
    if made_for not in (family, "unknown"):
        what = tr(
            "The adapter was made for {made_for}; the base model loaded is {family}: {fitting} of its {total} modules "
            "match.",
            made_for=detect.label(made_for),
            family=detect.label(family),
            fitting=len(fitting),
            total=total,
        )
    else:
        what = tr(
            "The adapter does not fit the base model: {fitting} of its {total} modules match.",
            fitting=len(fitting),
            total=total,
        )
    raise AdapterError(
        what,
        where=adapter.metadata.get("ss_output_name", ""),
        do=tr("Choose an adapter that was made for this base model, or the base model that it was made for."),
    )


def _of_text(path: str) -> bool:
    return path.startswith("text_encoder")


def _fits(shape: Sequence[int], own: Sequence[int]) -> bool:
    return _squeezed(layout.completed(tuple(shape), tuple(own))) == _squeezed(own)


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """A 1×1 convolution and a linear layer of the same widths take the same change."""
    return tuple(shape[:2]) if tuple(shape[2:]) == (1, 1) else tuple(shape)
