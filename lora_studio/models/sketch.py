"""The main directions of a layer's inputs, or of the loss's gradient by its weight, without forming either's matrix.

Symbols: X (n, in) what goes into a layer, a token or a convolution's patch each row; D (n, out) the loss's gradient by
what comes out; k the width of a sketch.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from lora_studio.methods.method import Directions
from lora_studio.models import modules

PASSES = 2
"""How often the same batches are looked at."""
_SPARE = 16
"""Directions beyond those that are wanted, so that these come out well (Halko et al. 2011, section 4.2)."""
_ROUNDING = 1e-6
"""A direction weaker than this, relative to the strongest, is rounding."""


class Sketch:
    """Finds the main directions of M = Σ XᵀX, or of M = Σ DᵀX with ``gradients``, a sum over all that is looked at.

    Randomized SVD (Halko, Martinsson, Tropp 2011, algorithms 4.3 and 5.1): the first pass makes M S of a random S, and
    the second Mᵀ Q of an orthonormal basis Q of that. Only thin products are held, (in + out) · k numbers.

    Args:
        layer: the base model's linear layer or convolution; its weight is not read, and may be packed.
        wanted: how many directions are wanted.
        source: on the CPU, so that every device gets the same S.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, gradients: bool, wanted: int, source: torch.Generator):
        self.layer, self.gradients = layer, gradients
        outputs, *inputs = modules.weight_shape(layer)
        width = min(wanted + _SPARE, math.prod(inputs), outputs if gradients else math.prod(inputs))
        self.basis = torch.randn(math.prod(inputs), width, generator=source)
        """What the present pass multiplies M by: S, then Q."""
        self.product: Tensor | None = None
        self.turned = False
        """Whether it is the second pass."""

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self.basis.nbytes + (0 if self.product is None else self.product.nbytes)

    @torch.no_grad()
    def look(self, x: Tensor, gradient: Tensor | None = None) -> None:
        """Adds what one call of the layer shows.

        Args:
            x: the layer's input.
            gradient: the loss's, by the layer's output; needed with ``gradients``.
        """
        with torch.autocast(x.device.type, enabled=False):
            x, self.basis = x.float(), self.basis.to(x.device)
            if not self.gradients:
                found = self._back(x, self._ahead(x))
            else:
                assert gradient is not None, "the sketch is of gradients"
                D = gradient.float()
                found = self._back(x, self._mapped(D)) if self.turned else self._rows(D).T @ self._rows(self._ahead(x))
            self.product = found if self.product is None else self.product + found

    def turn(self) -> None:
        """Ends the first pass."""
        if self.product is not None:
            self.basis, self.product, self.turned = torch.linalg.qr(self.product).Q, None, True

    def finite(self) -> bool:
        """Whether all that was seen is."""
        return self.product is None or bool(self.product.isfinite().all())

    def directions(self) -> Directions:
        """What was found, after the second pass; no direction where the layer was never called."""
        if self.product is None:
            empty = self.basis.new_empty
            return Directions(empty(modules.weight_shape(self.layer)[0], 0), empty(0), empty(0, len(self.basis)))
        U, S, Vt = torch.linalg.svd(self.product.T, full_matrices=False)
        count = int((S > _ROUNDING * S[0]).sum())
        return Directions(self.basis @ U[:, :count], S[:count], Vt[:count])

    def _rows(self, y: Tensor) -> Tensor:
        """(n, channels): what a layer gives, a token or pixel each row."""
        return (y if isinstance(self.layer, nn.Linear) else y.movedim(1, -1)).flatten(0, -2)

    def _ahead(self, x: Tensor) -> Tensor:
        """X S, with k channels in place of the layer's own outputs."""
        if isinstance(self.layer, nn.Linear):
            return x @ self.basis
        kernels = self.basis.T.reshape(-1, *modules.weight_shape(self.layer)[1:])
        return F.conv2d(x, kernels, None, self.layer.stride, self.layer.padding, self.layer.dilation)

    def _mapped(self, D: Tensor) -> Tensor:
        """D Q, likewise."""
        return D @ self.basis if isinstance(self.layer, nn.Linear) else (D.movedim(1, -1) @ self.basis).movedim(-1, 1)

    def _back(self, x: Tensor, T: Tensor) -> Tensor:
        """Xᵀ T (in·kh·kw, k) for T with k channels; a convolution's is the gradient of its kernels."""
        if isinstance(self.layer, nn.Linear):
            return self._rows(x).T @ self._rows(T)
        layer, shape = self.layer, (T.shape[1], *modules.weight_shape(self.layer)[1:])
        padding = cast(Any, layer.padding)  # numbers in every model that diffusers builds
        return conv2d_weight(x, shape, T, layer.stride, padding, layer.dilation).flatten(1).T


@contextmanager
def watching(layers: Mapping[str, Any], sketches: Mapping[str, Sketch]) -> Generator[None]:
    """Within it every pass through the model shows itself to the ``sketches``: a forward pass its inputs, a backward
    pass its gradients.

    Args:
        layers: a method's layers by the paths of ``sketches``. They are watched, and not the base model's inside them,
            since what comes out of them always has a gradient.
    """
    handles = [layers[path].register_forward_hook(partial(_seen, sketch)) for path, sketch in sketches.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _seen(sketch: Sketch, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
    if sketch.gradients:
        return _Watched.apply(output, inputs[0], sketch)
    sketch.look(inputs[0])
    return None


class _Watched(torch.autograd.Function):
    """The identity, whose gradient is looked at. The input is kept as autograd keeps it, so that gradient checkpointing
    holds.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, x: Tensor, sketch: Sketch) -> Tensor:
        ctx.sketch = sketch
        ctx.save_for_backward(x)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        ctx.sketch.look(x, gradients[0])
        return gradients[0], None, None
