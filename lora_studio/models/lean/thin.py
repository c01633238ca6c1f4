"""Triton kernels for the thin products of a LoRA. Needs Triton to be imported, as ``kernels`` does.

With few rows and ranks of 16 each of them is over before a card has got going: what counts is how many there are. Here all layers of one input take one
forth and two back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_LAYERS, HIGHEST_RANK = 3, 32
"""Beyond that rank the sums of single blocks of rows would be more to read than what they are of."""


@triton.jit
def _of_layer(first, second, third):
    """Of three layers, this program's. Axes of the grid: blocks of rows, layers, shares of the widths."""
    chosen = first
    if tl.program_id(1) == 1:
        chosen = second
    if tl.program_id(1) == 2:
        chosen = third
    return chosen


@triton.jit
def _share(width, WIDTH: tl.constexpr):
    """Where this program's share of ``width`` columns begins, and where it ends."""
    size = tl.cdiv(tl.cdiv(width, tl.num_programs(2)), WIDTH) * WIDTH
    return tl.program_id(2) * size, tl.minimum(width, (tl.program_id(2) + 1) * size)


@triton.jit
def _piece(matrix, lines, columns, height, width):
    """The elements of ``matrix`` (height, width) at ``lines`` and ``columns``; zero outside of it."""
    return tl.load(matrix + lines[:, None].to(tl.int64) * width + columns[None, :], mask=(lines < height)[:, None] & (columns < width)[None, :], other=0.0)


@triton.jit(do_not_specialize=["M"])
def _way_forth(x, down0, down1, down2, up0, up1, up2, y0, y1, y2, thin, M, I, O, R, scale, ROWS: tl.constexpr, WIDTH: tl.constexpr, RANK: tl.constexpr):
    """u = s x Aᵀ of a block of rows, and y + u Bᵀ in place of y."""
    down, up, y = _of_layer(down0, down1, down2), _of_layer(up0, up1, up2), _of_layer(y0, y1, y2)
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    ranks, widths = tl.arange(0, RANK), tl.arange(0, WIDTH)
    total = tl.zeros([ROWS, RANK], tl.float32)
    for first in range(0, I, WIDTH):
        total = tl.dot(_piece(x, lines, first + widths, M, I), tl.trans(_piece(down, ranks, first + widths, R, I)), total)
    u = (total * scale).to(x.dtype.element_ty)
    if tl.program_id(2) == 0:
        places = lines[:, None].to(tl.int64) * (tl.num_programs(1) * R) + tl.program_id(1) * R + ranks[None, :]
        tl.store(thin + places, u, mask=(lines < M)[:, None] & (ranks < R)[None, :])
    start, stop = _share(O, WIDTH)
    for first in range(start, stop, WIDTH):
        columns = first + widths
        value = tl.dot(u, tl.trans(_piece(up, columns, ranks, O, R)), _piece(y, lines, columns, M, O).to(tl.float32))
        tl.store(y + lines[:, None].to(tl.int64) * O + columns[None, :], value.to(y.dtype.element_ty), mask=(lines < M)[:, None] & (columns < O)[None, :])


@triton.jit(do_not_specialize=["M"])
def _way_back(slope0, slope1, slope2, up0, up1, up2, x, thin, back, sums, M, I, O, R, scale, ROWS: tl.constexpr, WIDTH: tl.constexpr, RANK: tl.constexpr):
    """v = s dy B of a block of rows, and what they add to dB = dyᵀ u and dA = vᵀ x."""
    slope, up, layers = _of_layer(slope0, slope1, slope2), _of_layer(up0, up1, up2), tl.num_programs(1)
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    ranks, widths = tl.arange(0, RANK), tl.arange(0, WIDTH)
    places = lines[:, None].to(tl.int64) * (layers * R) + tl.program_id(1) * R + ranks[None, :]
    there = (lines < M)[:, None] & (ranks < R)[None, :]
    u = tl.load(thin + places, mask=there, other=0.0)
    total = tl.zeros([ROWS, RANK], tl.float32)
    for first in range(0, O, WIDTH):
        total = tl.dot(_piece(slope, lines, first + widths, M, O), _piece(up, first + widths, ranks, O, R), total)
    v = (total * scale).to(u.dtype)
    if tl.program_id(2) == 0:
        tl.store(back + places, v, mask=there)
    mine = sums + (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * (R * (I + O))
    start, stop = _share(O, WIDTH)
    for first in range(start, stop, WIDTH):
        columns = first + widths
        part = tl.dot(tl.trans(_piece(slope, lines, columns, M, O)), u)
        tl.store(mine + columns[:, None] * R + ranks[None, :], part, mask=(columns < O)[:, None] & (ranks < R)[None, :])
    start, stop = _share(I, WIDTH)
    for first in range(start, stop, WIDTH):
        columns = first + widths
        part = tl.dot(tl.trans(v), _piece(x, lines, columns, M, I))
        tl.store(mine + R * O + ranks[:, None] * I + columns[None, :], part, mask=(ranks < R)[:, None] & (columns < I)[None, :])


@triton.jit(do_not_specialize=["blocks", "N"])
def _summed(sums, result, blocks, N, BLOCKS: tl.constexpr, WIDTH: tl.constexpr):
    """(layers, blocks, N) -> (layers, N). Axes of the grid: columns, layers."""
    columns = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    start = tl.program_id(1).to(tl.int64) * blocks * N
    total = tl.zeros([BLOCKS, WIDTH], tl.float32)
    for first in range(0, blocks, BLOCKS):
        block = first + tl.arange(0, BLOCKS)
        total += tl.load(sums + start + block[:, None].to(tl.int64) * N + columns[None, :], mask=(block < blocks)[:, None] & (columns < N)[None, :], other=0.0)
    tl.store(result + tl.program_id(1) * N + columns, tl.sum(total, 0).to(result.dtype.element_ty), mask=columns < N)


def way_forth(x: Tensor, downs: Sequence[Tensor], ups: Sequence[Tensor], answers: Sequence[Tensor], scale: float) -> Tensor:
    """Adds s x Aᵀ Bᵀ to the answers of up to three layers of one input, ranks and widths alike, all contiguous and of one format of 16 bits.

    Args:
        x: (M, I).
        downs: A (r, I) each.
        ups: B (O, r) each.
        answers: y (M, O) each; changed.

    Returns:
        s x Aᵀ (M, layers · r), the layers' ranks in a row.
    """
    (m, i), (o, r) = x.shape, ups[0].shape
    thin = x.new_empty((m, len(ups) * r))
    grid, shape = _plan(m, r, len(ups))
    with torch.cuda.device_of(x):
        _way_forth[grid](x, *_three(downs), *_three(ups), *_three(answers), thin, m, i, o, r, scale, **shape)
    return thin


def way_back(slopes: Sequence[Tensor], ups: Sequence[Tensor], x: Tensor, thin: Tensor, scale: float) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The gradients of ``way_forth``.

    Args:
        slopes: dy (M, O) each.
        thin: as it returned it.

    Returns:
        s dy B like ``thin``; dA (r, I) and dB (O, r) of each layer.
    """
    count, (m, i), (o, r) = len(slopes), x.shape, ups[0].shape
    grid, shape = _plan(m, r, count)
    back, n = torch.empty_like(thin), r * (i + o)
    sums, result = x.new_empty((count, grid[0], n), dtype=torch.float32), x.new_empty((count, n))
    with torch.cuda.device_of(x):
        _way_back[grid](*_three(slopes), *_three(ups), x, thin, back, sums, m, i, o, r, scale, **shape)
        _summed[(triton.cdiv(n, 128), count)](sums, result, grid[0], n, BLOCKS=16, WIDTH=128)
    return back, [one[r * o:].view(r, i) for one in result], [one[:r * o].view(o, r) for one in result]


def _plan(m: int, rank: int, layers: int) -> tuple[tuple[int, int, int], dict[str, int]]:
    """The grid: enough programs for a large card. Where rows are few, several share one block's widths and each makes the thin product for itself."""
    rows = min(max(triton.next_power_of_2(m // 64), 32), 128)
    blocks = triton.cdiv(m, rows)
    shape = {"ROWS": rows, "WIDTH": 64, "RANK": max(16, triton.next_power_of_2(rank)), "num_warps": 8 if rows == 128 else 4, "num_stages": 2}
    return (blocks, layers, min(4, triton.cdiv(256, blocks * layers))), shape


def _three(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [*tensors, *[tensors[0]] * (MOST_LAYERS - len(tensors))]
