"""Triton kernels for what is between a UNet's matrix products: norms, activations, additions. Importing it needs
Triton; ``triton_support`` says whether that works.

Images are (N, H, W, C) in memory (channels last). Inputs and outputs have the tensors' formats, sums are float32. There
are gradients of activations only, since the base model is frozen. Every sum has a fixed order, so that the same input
gives the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _COLUMNS = 64, 64
"""A tile of an image: pixels and channels. The widths of all supported models are multiples of 64."""
_STRIDE = 1024
"""Partial sums that one program takes at a time."""
# Sizes that say nothing about alignment are not specialized on: each kernel is compiled once and not for every size
# that is divisible by 16, or 1.


@triton.jit
def _tile(HW, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """This program's channels, the offsets of its tile, and which of them exist. Axes of the grid: channels, pixels,
    samples.
    """
    channels = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    pixels = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    offsets = tl.program_id(2).to(tl.int64) * HW * C + pixels[:, None] * C + channels[None, :]
    return channels, offsets, (pixels < HW)[:, None] & (channels < C)[None, :]


@triton.jit
def _shifted(x, shift, bias, channels, offsets, inside, C):
    """x + shift + bias in float32; either may be None."""
    value = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    if shift is not None:
        value += tl.load(shift + tl.program_id(2) * C + channels, mask=channels < C, other=0.0).to(tl.float32)[None, :]
    if bias is not None:
        value += tl.load(bias + channels, mask=channels < C, other=0.0).to(tl.float32)[None, :]
    return value


@triton.jit
def _normalized(value, gamma, beta, means, rstds, channels, C, D):
    """x̂ and γ x̂ + β; also γ and 1/σ of the channels."""
    groups = tl.program_id(2) * (C // D) + channels // D
    known = channels < C
    mean, rstd = tl.load(means + groups, mask=known, other=0.0), tl.load(rstds + groups, mask=known, other=0.0)
    scale = tl.load(gamma + channels, mask=known, other=0.0).to(tl.float32)
    offset = tl.load(beta + channels, mask=known, other=0.0).to(tl.float32)
    normal = (value - mean[None, :]) * rstd[None, :]
    return normal, normal * scale[None, :] + offset[None, :], scale, rstd


@triton.jit(do_not_specialize=["HW"])
def _moments(x, shift, bias, means, squares, HW, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Mean and Σ (x − mean)² of each channel of a tile, so that large means cost no precision (Chan et al. 1979)."""
    channels, offsets, inside = _tile(HW, C, ROWS, COLUMNS)
    value = tl.where(inside, _shifted(x, shift, bias, channels, offsets, inside, C), 0.0)
    mean = tl.sum(value, 0) / tl.minimum(ROWS, HW - tl.program_id(1) * ROWS)
    apart = tl.where(inside, value - mean[None, :], 0.0)
    to = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * C + channels
    tl.store(means + to, mean, mask=channels < C)
    tl.store(squares + to, tl.sum(apart * apart, 0), mask=channels < C)


@triton.jit(do_not_specialize=["HW", "D", "chunks"])
def _statistics(means, squares, mean, rstd, HW, C, D, chunks, eps, ROWS: tl.constexpr, STRIDE: tl.constexpr):
    """Mean and 1/σ of a group from its tiles' moments. Axes of the grid: groups, samples."""
    start = tl.program_id(1) * chunks * C + tl.program_id(0) * D
    total = tl.zeros([STRIDE], tl.float32)
    for first in range(0, chunks * D, STRIDE):
        index = first + tl.arange(0, STRIDE)
        count = tl.minimum(ROWS, HW - index // D * ROWS).to(tl.float32)
        total += count * tl.load(means + start + index // D * C + index % D, mask=index < chunks * D, other=0.0)
    centre = tl.sum(total, 0) / (HW * D)
    total = tl.zeros([STRIDE], tl.float32)
    for first in range(0, chunks * D, STRIDE):
        index = first + tl.arange(0, STRIDE)
        known = index < chunks * D
        count = tl.minimum(ROWS, HW - index // D * ROWS).to(tl.float32)
        apart = tl.load(means + start + index // D * C + index % D, mask=known, other=0.0) - centre
        within = tl.load(squares + start + index // D * C + index % D, mask=known, other=0.0)
        total += tl.where(known, within + count * apart * apart, 0.0)
    to = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(mean + to, centre)
    tl.store(rstd + to, 1.0 / tl.sqrt(tl.sum(total, 0) / (HW * D) + eps))


@triton.jit(do_not_specialize=["HW", "D"])
def _normalize(
    x, shift, bias, gamma, beta, mean, rstd, y, HW, C, D, SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    channels, offsets, inside = _tile(HW, C, ROWS, COLUMNS)
    value = _shifted(x, shift, bias, channels, offsets, inside, C)
    _, z, _, _ = _normalized(value, gamma, beta, mean, rstd, channels, C, D)
    if SILU:
        z = z * tl.sigmoid(z)
    tl.store(y + offsets, z.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _towards_normal(dy, x, shift, bias, gamma, beta, mean, rstd, channels, offsets, inside, C, D, SILU: tl.constexpr):
    """x̂, its gradient, and 1/σ."""
    value = _shifted(x, shift, bias, channels, offsets, inside, C)
    normal, z, scale, deviation = _normalized(value, gamma, beta, mean, rstd, channels, C, D)
    slope = tl.load(dy + offsets, mask=inside, other=0.0).to(tl.float32)
    if SILU:
        gate = tl.sigmoid(z)
        slope = slope * gate * (1 + z * (1 - gate))
    return normal, slope * scale[None, :], deviation


@triton.jit(do_not_specialize=["HW", "D"])
def _gradient_sums(
    dy,
    x,
    shift,
    bias,
    gamma,
    beta,
    mean,
    rstd,
    firsts,
    seconds,
    HW,
    C,
    D,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Σ dx̂ and Σ dx̂ x̂ of each channel of a tile."""
    channels, offsets, inside = _tile(HW, C, ROWS, COLUMNS)
    normal, slope, _ = _towards_normal(
        dy, x, shift, bias, gamma, beta, mean, rstd, channels, offsets, inside, C, D, SILU
    )
    to = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * C + channels
    tl.store(firsts + to, tl.sum(slope, 0), mask=channels < C)
    tl.store(seconds + to, tl.sum(slope * normal, 0), mask=channels < C)


@triton.jit(do_not_specialize=["HW", "D", "chunks"])
def _group_means(firsts, seconds, first, second, HW, C, D, chunks, STRIDE: tl.constexpr):
    """Both sums of a group, divided by its size. Axes of the grid: groups, samples."""
    start = tl.program_id(1) * chunks * C + tl.program_id(0) * D
    one, two = tl.zeros([STRIDE], tl.float32), tl.zeros([STRIDE], tl.float32)
    for begin in range(0, chunks * D, STRIDE):
        index = begin + tl.arange(0, STRIDE)
        known = index < chunks * D
        one += tl.load(firsts + start + index // D * C + index % D, mask=known, other=0.0)
        two += tl.load(seconds + start + index // D * C + index % D, mask=known, other=0.0)
    to = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(first + to, tl.sum(one, 0) / (HW * D))
    tl.store(second + to, tl.sum(two, 0) / (HW * D))


@triton.jit(do_not_specialize=["HW", "D"])
def _gradient(
    dy,
    x,
    shift,
    bias,
    gamma,
    beta,
    mean,
    rstd,
    first,
    second,
    more,
    dx,
    HW,
    C,
    D,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """dx = (dx̂ − ⟨dx̂⟩ − x̂ ⟨dx̂ x̂⟩) / σ (Wu & He 2018, §3), plus ``more`` unless it is None."""
    channels, offsets, inside = _tile(HW, C, ROWS, COLUMNS)
    normal, slope, deviation = _towards_normal(
        dy, x, shift, bias, gamma, beta, mean, rstd, channels, offsets, inside, C, D, SILU
    )
    groups = tl.program_id(2) * (C // D) + channels // D
    one = tl.load(first + groups, mask=channels < C, other=0.0)
    two = tl.load(second + groups, mask=channels < C, other=0.0)
    result = (slope - one[None, :] - normal * two[None, :]) * deviation[None, :]
    if more is not None:
        result += tl.load(more + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + offsets, result.to(dx.dtype.element_ty), mask=inside)


@triton.jit
def _lines(M, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows and columns of this program's tile of an (M, C) matrix, its offsets, and which of them exist. Axes of the
    grid: rows, columns.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    return (
        rows,
        columns,
        rows[:, None].to(tl.int64) * C + columns[None, :],
        (rows < M)[:, None] & (columns < C)[None, :],
    )


@triton.jit(do_not_specialize=["M"])
def _layer_norm(a, b, gamma, beta, total, y, mean, rstd, M, C, eps, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Of a + b, which is kept as ``total``; or of a alone where b is None."""
    rows, columns, offsets, inside = _lines(M, C, ROWS, COLUMNS)
    value = tl.load(a + offsets, mask=inside, other=0.0).to(tl.float32)
    if b is not None:
        kept = (value + tl.load(b + offsets, mask=inside, other=0.0).to(tl.float32)).to(total.dtype.element_ty)
        tl.store(total + offsets, kept, mask=inside)
        value = kept.to(tl.float32)
    centre = tl.sum(value, 1) / C
    apart = tl.where(inside, value - centre[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(apart * apart, 1) / C + eps)
    known = columns < C
    weight = tl.load(gamma + columns, mask=known, other=0.0).to(tl.float32)
    offset = tl.load(beta + columns, mask=known, other=0.0).to(tl.float32)
    tl.store(
        y + offsets, (apart * scale[:, None] * weight[None, :] + offset[None, :]).to(y.dtype.element_ty), mask=inside
    )
    tl.store(mean + rows, centre, mask=rows < M)
    tl.store(rstd + rows, scale, mask=rows < M)


@triton.jit(do_not_specialize=["M"])
def _layer_norm_gradient(dy, x, gamma, mean, rstd, more, dx, M, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows, columns, offsets, inside = _lines(M, C, ROWS, COLUMNS)
    centre, scale = tl.load(mean + rows, mask=rows < M, other=0.0), tl.load(rstd + rows, mask=rows < M, other=0.0)
    weight = tl.load(gamma + columns, mask=columns < C, other=0.0).to(tl.float32)
    normal = (tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32) - centre[:, None]) * scale[:, None]
    slope = tl.load(dy + offsets, mask=inside, other=0.0).to(tl.float32) * weight[None, :]
    one, two = tl.sum(slope, 1) / C, tl.sum(slope * normal, 1) / C
    result = (slope - one[:, None] - normal * two[:, None]) * scale[:, None]
    if more is not None:
        result += tl.load(more + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + offsets, result.to(dx.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["M"])
def _geglu(projection, y, M, D, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows, columns, offsets, inside = _lines(M, D, ROWS, COLUMNS)
    source = projection + rows[:, None].to(tl.int64) * (2 * D) + columns[None, :]
    hidden = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(source + D, mask=inside, other=0.0).to(tl.float32)
    share = 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
    tl.store(y + offsets, (hidden * gate * share).to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["M"])
def _geglu_gradient(dy, projection, slope, M, D, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows, columns, offsets, inside = _lines(M, D, ROWS, COLUMNS)
    both = rows[:, None].to(tl.int64) * (2 * D) + columns[None, :]
    hidden = tl.load(projection + both, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(projection + both + D, mask=inside, other=0.0).to(tl.float32)
    above = tl.load(dy + offsets, mask=inside, other=0.0).to(tl.float32)
    share = 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
    density = 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
    tl.store(slope + both, (above * gate * share).to(slope.dtype.element_ty), mask=inside)
    tl.store(slope + both + D, (above * hidden * (share + gate * density)).to(slope.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["M"])
def _add(a, b, bias, y, M, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    _, columns, offsets, inside = _lines(M, C, ROWS, COLUMNS)
    value = tl.load(a + offsets, mask=inside, other=0.0).to(tl.float32) + tl.load(
        b + offsets, mask=inside, other=0.0
    ).to(tl.float32)
    value += tl.load(bias + columns, mask=columns < C, other=0.0).to(tl.float32)[None, :]
    tl.store(y + offsets, value.to(y.dtype.element_ty), mask=inside)


def group_norm(
    x: Tensor,
    shift: Tensor | None,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    groups: int,
    eps: float,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The group norm (Wu & He 2018) of x + shift + bias, then SiLU if asked for.

    Args:
        x: (N, C, H, W), channels last.
        shift: (N, C), or None.
        bias, gamma, beta: (C,); bias may be None.

    Returns:
        y like x; the groups' means and 1/σ, each (N, groups) float32.
    """
    grid, (n, c, hw) = _tiles(x)
    means, squares = x.new_empty((2, n, grid[1], c), dtype=torch.float32)
    mean, rstd = x.new_empty((2, n, groups), dtype=torch.float32)
    y = torch.empty_like(x)
    with _on(x):
        _moments[grid](x, shift, bias, means, squares, hw, c, ROWS=_ROWS, COLUMNS=_COLUMNS)
        _statistics[(groups, n)](
            means, squares, mean, rstd, hw, c, c // groups, grid[1], eps, ROWS=_ROWS, STRIDE=_STRIDE
        )
        _normalize[grid](
            x, shift, bias, gamma, beta, mean, rstd, y, hw, c, c // groups, SILU=silu, ROWS=_ROWS, COLUMNS=_COLUMNS
        )
    return y, mean, rstd


def group_norm_gradient(
    dy: Tensor,
    more: Tensor | None,
    x: Tensor,
    shift: Tensor | None,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    silu: bool,
) -> Tensor:
    """The gradient of ``group_norm`` by x, plus ``more``: all like x and channels last."""
    grid, (n, c, hw) = _tiles(x)
    groups = mean.shape[1]
    firsts, seconds = x.new_empty((2, n, grid[1], c), dtype=torch.float32)
    first, second = x.new_empty((2, n, groups), dtype=torch.float32)
    dx = torch.empty_like(x)
    given = (x, shift, bias, gamma, beta, mean, rstd)
    with _on(x):
        _gradient_sums[grid](dy, *given, firsts, seconds, hw, c, c // groups, SILU=silu, ROWS=_ROWS, COLUMNS=_COLUMNS)
        _group_means[(groups, n)](firsts, seconds, first, second, hw, c, c // groups, grid[1], STRIDE=_STRIDE)
        _gradient[grid](
            dy, *given, first, second, more, dx, hw, c, c // groups, SILU=silu, ROWS=_ROWS, COLUMNS=_COLUMNS
        )
    return dx


def layer_norm(
    a: Tensor, b: Tensor | None, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The layer norm (Ba et al. 2016) of a + b over the last axis; both contiguous, b may be None.

    Returns:
        a + b (``a`` itself where b is None), its norm, and the rows' means and 1/σ, (M,) float32.
    """
    c = a.shape[-1]
    m = a.numel() // c
    total, y = a if b is None else torch.empty_like(a), torch.empty_like(a)
    mean, rstd = a.new_empty((2, m), dtype=torch.float32)
    with _on(a):
        _layer_norm[(m, 1)](a, b, gamma, beta, total, y, mean, rstd, m, c, eps, ROWS=1, **_whole(c))
    return total, y, mean, rstd


def layer_norm_gradient(
    dy: Tensor, more: Tensor | None, x: Tensor, gamma: Tensor, mean: Tensor, rstd: Tensor
) -> Tensor:
    """The gradient by the norm's input x, plus ``more``; all contiguous."""
    c = x.shape[-1]
    m = x.numel() // c
    dx = torch.empty_like(x)
    with _on(x):
        _layer_norm_gradient[(m, 1)](dy, x, gamma, mean, rstd, more, dx, m, c, ROWS=1, **_whole(c))
    return dx


def geglu(projection: Tensor) -> Tensor:
    """hidden · gelu(gate) with the exact Φ (Shazeer 2020, eq. 6; Hendrycks & Gimpel 2016), of (…, 2 D) contiguous:
    hidden first, then gate.
    """
    d = projection.shape[-1] // 2
    y = projection.new_empty((*projection.shape[:-1], d))
    m = y.numel() // d
    with _on(y):
        _geglu[(triton.cdiv(m, 8), triton.cdiv(d, 256))](projection, y, m, d, ROWS=8, COLUMNS=256)
    return y


def geglu_gradient(dy: Tensor, projection: Tensor) -> Tensor:
    """The gradient by ``projection``."""
    d = dy.shape[-1]
    m = dy.numel() // d
    slope = torch.empty_like(projection)
    with _on(dy):
        _geglu_gradient[(triton.cdiv(m, 8), triton.cdiv(d, 256))](dy, projection, slope, m, d, ROWS=8, COLUMNS=256)
    return slope


def add(a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
    """a + b + bias of images (N, C, H, W), channels last; bias (C,)."""
    c = a.shape[1]
    m = a.numel() // c
    y = torch.empty_like(a)
    with _on(a):
        _add[(triton.cdiv(m, 32), triton.cdiv(c, 64))](a, b, bias, y, m, c, ROWS=32, COLUMNS=64)
    return y


def _tiles(x: Tensor) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The grid over an image's tiles, and N, C, H·W."""
    n, c, h, w = x.shape
    return (triton.cdiv(c, _COLUMNS), triton.cdiv(h * w, _ROWS), n), (n, c, h * w)


def _whole(width: int) -> dict[str, int]:
    """For a program that takes a whole row: how much of it each warp keeps is the same for all widths."""
    columns = triton.next_power_of_2(width)
    return {"COLUMNS": columns, "num_warps": min(max(columns // 512, 1), 16)}


def _on(x: Tensor) -> torch.cuda.device_of:
    """Kernels are launched on the current device, whatever device their arguments are on."""
    return torch.cuda.device_of(x)
