"""Linear layers with a LoRA on them, several of one input at once: what peft's layers compute, in fewer products.

y = W x + b + s B A x (Hu et al. 2021, §4.1). The thin products A x of all layers are one. The product that computes
B (s A x) also adds it, in the forward and the backward pass, and the gradient by x is summed by the products that it
consists of. So are the gradients of A and B if they exist already, as in the optimizer's buffer: they are added to in
place, as ``backward`` would, and nothing is left for autograd to add (``torch.autograd.grad`` finds nothing then). W is
frozen, whole or in NF4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora_studio.models.unpacked import weight_of


class _Layer(NamedTuple):
    base: Any
    """The frozen linear layer, whole or packed."""
    down: Tensor | None = None
    """A (r, in); None without an adapter."""
    up: Tensor | None = None
    """B (out, r)."""
    scale: float = 1.0


def linear(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)`` for a linear layer, peft's or plain; x (…, in)."""
    return linears((module,), x)[0]


def linears(given: Sequence[nn.Module], x: Tensor) -> tuple[Tensor, ...]:
    """``module(x)`` for each of several linear layers, peft's or plain. Layers of a kind that is not known here are
    simply called.
    """
    layers = [layer for module in given if (layer := _layer(module, x)) is not None]
    if len(layers) < len(given) or len({layer.scale for layer in layers if layer.down is not None}) > 1:
        return tuple(module(x) for module in given)
    factors = [factor for layer in layers for factor in (layer.down, layer.up)]
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in (x, *factors)):
        return _Linears.apply(x, layers, *factors)
    return tuple(_forward(x, layers)[0])


def _layer(module: nn.Module, x: Tensor) -> _Layer | None:
    """What ``linears`` needs of ``module``; None if it is of another kind, or hooked."""
    if hooked(module) or torch.is_autocast_enabled(x.device.type):
        return None
    if not isinstance(module, BaseTunerLayer):
        return _Layer(module) if _frozen(module, x) else None
    if not isinstance(module, LoraLayer):
        return None
    base, name = module.get_base_layer(), module.active_adapters[0] if len(module.active_adapters) == 1 else None
    if not _frozen(base, x) or module.merged:
        return None
    if module.disable_adapters:
        return _Layer(base)
    if (
        name not in module.lora_A
        or name in module.lora_variant
        or not (type(module) is LoraLinear or type(module).__name__ == "Linear4bit")
    ):
        return None
    down, up, dropout = module.lora_A[name], module.lora_B[name], module.lora_dropout[name]
    if up.bias is not None or down.weight.dtype != x.dtype or up.weight.dtype != x.dtype or hooked(down) or hooked(up):
        return None
    if not (isinstance(dropout, nn.Identity) or not dropout.training):
        return None
    return _Layer(base, down.weight, up.weight, module.scaling[name])


def _frozen(base: nn.Module, x: Tensor) -> bool:
    """Whether ``base`` is a frozen linear layer in the format of x, whole or packed in four bits."""
    if (
        hooked(base)
        or base.weight.requires_grad
        or base.bias is not None
        and (base.bias.requires_grad or base.bias.dtype != x.dtype)
    ):
        return False
    if type(base) is nn.Linear:
        return base.weight.dtype == x.dtype
    state = getattr(base.weight, "quant_state", None)
    return type(base).__name__ == "Linear4bit" and state is not None and state.dtype == x.dtype == base.compute_dtype


def hooked(module: nn.Module) -> bool:
    """Whether ``module`` has hooks, so that it has to be called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _weight(base: nn.Linear) -> Tensor:
    return base.weight if type(base) is nn.Linear else weight_of(base)


def _forward(x: Tensor, layers: Sequence[_Layer]) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
    """The outputs; and if there is an adapter s x Aᵀ (M, R) and A (R, in), with the layers' ranks in a row."""
    rows = x.reshape(-1, x.shape[-1])
    downs = [layer.down for layer in layers if layer.down is not None]
    answers = [F.linear(rows, _weight(layer.base), layer.base.bias) for layer in layers]
    down = thin = None
    if downs:
        down = _joined(downs)
        down = torch.cat(downs) if down is None else down
        thin = _scaled(rows, down.T, next(layer.scale for layer in layers if layer.down is not None))
        for answer, layer, part in zip(answers, layers, _parts(thin, layers), strict=True):
            if layer.up is not None:
                answer.addmm_(part, layer.up.T)
    return [answer.view(*x.shape[:-1], answer.shape[-1]) for answer in answers], thin, down


def _joined(parts: Sequence[Tensor]) -> Tensor | None:
    """One matrix over the memory of several (r, in) that are end to end in one buffer; None if they are not."""
    first, end = parts[0].detach(), parts[0].storage_offset()
    for part in parts:
        if (
            part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
            or part.storage_offset() != end
            or not part.is_contiguous()
        ):
            return None
        end += part.numel()
    return first.as_strided((sum(map(len, parts)), first.shape[1]), (first.shape[1], 1))


def _parts(thin: Tensor, layers: Sequence[_Layer]) -> Sequence[Tensor]:
    """Each layer's columns of ``thin`` (M, R): none, (M, 0), for one without an adapter."""
    return thin.split([0 if layer.down is None else len(layer.down) for layer in layers], dim=1)


def _scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale · a b, in one product."""
    return a.new_empty((len(a), b.shape[1])).addmm_(a, b, beta=0, alpha=scale)


class _Linears(torch.autograd.Function):
    """``layers`` are read from the modules; ``factors`` are their A and B once more, for autograd to see."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: list[_Layer], *factors: Tensor | None) -> tuple[Tensor, ...]:
        answers, thin, down = _forward(x, layers)
        ctx.layers = [_Layer(layer.base, scale=layer.scale) for layer in layers]
        ctx.save_for_backward(x if thin is not None else None, thin, down, *factors)
        ctx.shape = x.shape
        return tuple(answers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, thin, down, *factors = ctx.saved_tensors
        layers = [
            layer._replace(down=a, up=b) for layer, a, b in zip(ctx.layers, factors[::2], factors[1::2], strict=True)
        ]
        flat = [slope.reshape(-1, slope.shape[-1]) for slope in slopes]
        gradients: list[Tensor | None] = [None] * len(factors)
        back = None
        if thin is not None:
            back = torch.empty_like(thin)  # s dy B, the layers' ranks in a row
            for slope, layer, part in zip(flat, layers, _parts(back, layers), strict=True):
                if layer.up is not None:
                    part.addmm_(slope, layer.up, beta=0, alpha=layer.scale)
            if any(ctx.needs_input_grad[2:]):
                rows = x.reshape(-1, x.shape[-1])
                gradients = _factor_gradients(rows, flat, layers, thin, back)  # of all factors of a model or of none
        dx = _input_gradient(flat, layers, back, down).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return dx, None, *gradients


def _factor_gradients(
    rows: Tensor, slopes: Sequence[Tensor], layers: Sequence[_Layer], thin: Tensor, back: Tensor
) -> list[Tensor | None]:
    """dA = (s dy B)ᵀ x and dB = dyᵀ (s x Aᵀ) of each layer in turn; None for what was added to an existing
    gradient.
    """
    downs = iter(_down_gradients(rows, [layer.down for layer in layers if layer.down is not None], back))
    gradients: list[Tensor | None] = []
    for slope, layer, part in zip(slopes, layers, _parts(thin, layers), strict=True):
        gradients += [None, None] if layer.up is None else [next(downs), _product(layer.up.grad, slope.T, part)]
    return gradients


def _down_gradients(rows: Tensor, downs: Sequence[Tensor], back: Tensor) -> Sequence[Tensor | None]:
    """One product if the gradients are end to end in memory, as the factors then are too."""
    ranks, there = [len(down) for down in downs], [down.grad for down in downs if down.grad is not None]
    if len(there) < len(downs):
        return (back.T @ rows).split(ranks)
    if (joined := _joined(there)) is not None:
        there, ranks = [joined], [len(joined)]
    return [
        _product(gradient, part.T, rows) for gradient, part in zip(there, back.split(ranks, dim=1), strict=True)
    ] + [None] * (len(downs) - len(there))


def _product(gradient: Tensor | None, a: Tensor, b: Tensor) -> Tensor | None:
    """a b, or None where it was added to ``gradient``."""
    if gradient is None:
        return a @ b
    gradient.addmm_(a, b)
    return None


def _input_gradient(
    slopes: Sequence[Tensor], layers: Sequence[_Layer], back: Tensor | None, down: Tensor | None
) -> Tensor:
    """dx = Σ dy W + (s dy B) A, (M, in)."""
    dx = slopes[0] @ _weight(layers[0].base)
    for slope, layer in zip(slopes[1:], layers[1:], strict=True):
        dx.addmm_(slope, _weight(layer.base))
    return dx if back is None or down is None else dx.addmm_(back, down)
