"""What is between a UNet's matrix products, in as few passes over memory as possible: in Triton on a GPU, in plain
torch elsewhere.

All weights here are frozen: if one takes a gradient, plain torch does the work. What is added to the input of a norm (a
convolution's bias or a time embedding) is never written to memory. The gradient of a residual connection past a norm is
added to the norm's own while that is written.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora_studio.models.fused import triton_support

_FORMATS = (torch.bfloat16, torch.float16, torch.float32)
_LAST = torch.channels_last


def fused(x: Tensor, *weights: Tensor | None) -> bool:
    """Whether Triton computes ``x`` and ``weights``: on a GPU where it works, in one format, with frozen weights."""
    return (
        x.is_cuda
        and x.dtype in _FORMATS
        and all(one is None or one.dtype == x.dtype and not one.requires_grad for one in weights)
        and triton_support.kernels() is not None
    )


def group_norm(
    norm: nn.GroupNorm, x: Tensor, silu: bool = False, shift: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``norm`` of x + shift + bias, then SiLU if asked for.

    Args:
        x: (N, C, H, W).
        shift: (N, C); may take a gradient.
        bias: (C,), frozen.

    Returns:
        The norm, and x for the residual connection: the gradients of both are summed in one pass.
    """
    if not fused(x, norm.weight, norm.bias, bias) or shift is not None and shift.dtype != x.dtype:
        added = x if shift is None else x + shift[:, :, None, None]
        added = added if bias is None else added + bias[:, None, None]
        y = F.group_norm(added, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return F.silu(y) if silu else y, x
    x = x.contiguous(memory_format=_LAST)
    shift = None if shift is None else shift.contiguous()
    if torch.is_grad_enabled() and (x.requires_grad or shift is not None and shift.requires_grad):
        return _GroupNorm.apply(x, shift, bias, norm, silu)
    return triton_support.kernels().group_norm(x, shift, bias, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)[
        0
    ], x


def layer_norm(norm: nn.LayerNorm, a: Tensor, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``norm`` of a + b, (…, C) each, over the last axis, and the sum itself for the residual connection; b may be
    None.
    """
    if not fused(a, b if b is None else b.detach(), norm.weight, norm.bias):
        total = a if b is None else a + b
        return F.layer_norm(total, norm.normalized_shape, norm.weight, norm.bias, norm.eps), total
    a, b = a.contiguous(), None if b is None else b.contiguous()
    if torch.is_grad_enabled() and (a.requires_grad or b is not None and b.requires_grad):
        return _LayerNorm.apply(a, b, norm)
    total, y, _, _ = triton_support.kernels().layer_norm(a, b, norm.weight, norm.bias, norm.eps)
    return y, total


def geglu(projection: Tensor) -> Tensor:
    """hidden · gelu(gate) of (…, 2 D): hidden first, then gate; (…, D)."""
    if not fused(projection):
        hidden, gate = projection.chunk(2, dim=-1)
        return hidden * F.gelu(gate)
    projection = projection.contiguous()
    if torch.is_grad_enabled() and projection.requires_grad:
        return _GEGLU.apply(projection)
    return triton_support.kernels().geglu(projection)


def add(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a + b + bias: (N, C, H, W) twice, and (C,) frozen or None."""
    if bias is None:
        return a + b
    if a.dtype != b.dtype or not fused(a, bias):
        return a + (b + bias[:, None, None])
    a, b = a.contiguous(memory_format=_LAST), b.contiguous(memory_format=_LAST)
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _Add.apply(a, b, bias)
    return triton_support.kernels().add(a, b, bias)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shift: Tensor | None, bias: Tensor | None, norm: nn.GroupNorm, silu: bool
    ) -> tuple[Tensor, Tensor]:
        y, mean, rstd = triton_support.kernels().group_norm(
            x, shift, bias, norm.weight, norm.bias, norm.num_groups, norm.eps, silu
        )
        ctx.save_for_backward(x, shift, mean, rstd)
        ctx.bias, ctx.norm, ctx.silu = bias, norm, silu
        ctx.set_materialize_grads(False)
        return y, x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, more: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return more, None, None, None, None
        x, shift, mean, rstd = ctx.saved_tensors
        apart = more if ctx.needs_input_grad[1] else None  # the shift's gradient is of the norm alone
        more = more if apart is None else None
        dx = triton_support.kernels().group_norm_gradient(
            _last(dy), _last(more), x, shift, ctx.bias, ctx.norm.weight, ctx.norm.bias, mean, rstd, ctx.silu
        )
        dshift = dx.sum((2, 3)) if ctx.needs_input_grad[1] else None
        return dx if apart is None else dx + apart, dshift, None, None, None


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        total, y, mean, rstd = triton_support.kernels().layer_norm(a, b, norm.weight, norm.bias, norm.eps)
        ctx.save_for_backward(total, mean, rstd)
        ctx.norm, ctx.alone = norm, b is None
        ctx.set_materialize_grads(False)
        return y, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, more: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is not None:
            total, mean, rstd = ctx.saved_tensors
            more = triton_support.kernels().layer_norm_gradient(
                dy.contiguous(), None if more is None else more.contiguous(), total, ctx.norm.weight, mean, rstd
            )
        return more, None if ctx.alone else more, None


class _GEGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projection: Tensor) -> Tensor:
        ctx.save_for_backward(projection)
        return triton_support.kernels().geglu(projection)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return triton_support.kernels().geglu_gradient(dy.contiguous(), *ctx.saved_tensors)


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
        return triton_support.kernels().add(a, b, bias)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        return slopes[0], slopes[0], None


def _last(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous(memory_format=_LAST)
