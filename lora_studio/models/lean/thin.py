"""Triton kernels for the thin products of a LoRA's way back. Needs Triton to be imported, as ``kernels`` does.

With few rows and ranks of 16 each of them is over before a card has got going: what counts is how many there are. Here all of the layers of one input take two.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_LAYERS, HIGHEST_RANK = 3, 32
"""Beyond that rank the sums of single blocks of rows would be more to read than what they are of."""
_WIDTH = 64


@triton.jit(do_not_specialize=["M"])
def _ways_back(slope0, slope1, slope2, up0, up1, up2, x, thin, back, sums, M, I, O, R, scale,
               ROWS: tl.constexpr, WIDTH: tl.constexpr, RANK: tl.constexpr):
    """s dy B of a block of rows, and what they add to dB = dyᵀ u and dA = (s dy B)ᵀ x. Axes of the grid: blocks of rows, layers."""
    layer = tl.program_id(1)
    slope, up = slope0, up0
    if layer == 1:
        slope, up = slope1, up1
    if layer == 2:
        slope, up = slope2, up2
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    ranks, widths = tl.arange(0, RANK), tl.arange(0, WIDTH)
    there, short = (lines < M)[:, None], (ranks < R)[None, :]
    places = lines[:, None].to(tl.int64) * (tl.num_programs(1) * R) + layer * R + ranks[None, :]
    u = tl.load(thin + places, mask=there & short, other=0.0)
    mine = sums + (layer * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * (R * (I + O))
    total = tl.zeros([ROWS, RANK], tl.float32)
    for first in range(0, O, WIDTH):
        columns = first + widths
        dy = tl.load(slope + lines[:, None].to(tl.int64) * O + columns[None, :], mask=there & (columns < O)[None, :], other=0.0)
        b = tl.load(up + columns[:, None] * R + ranks[None, :], mask=(columns < O)[:, None] & short, other=0.0)
        total = tl.dot(dy, b, total)
        tl.store(mine + columns[:, None] * R + ranks[None, :], tl.dot(tl.trans(dy), u), mask=(columns < O)[:, None] & short)
    v = (total * scale).to(u.dtype)
    tl.store(back + places, v, mask=there & short)
    for first in range(0, I, WIDTH):
        columns = first + widths
        row = tl.load(x + lines[:, None].to(tl.int64) * I + columns[None, :], mask=there & (columns < I)[None, :], other=0.0)
        tl.store(mine + R * O + ranks[:, None] * I + columns[None, :], tl.dot(tl.trans(v), row), mask=(ranks < R)[:, None] & (columns < I)[None, :])


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


def ways_back(slopes: Sequence[Tensor], ups: Sequence[Tensor], x: Tensor, thin: Tensor, scale: float) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Of up to three layers of one input, ranks and widths alike, all contiguous and of one format of 16 bits.

    Args:
        slopes: dy (M, O) each.
        ups: B (O, r) each.
        x: (M, I).
        thin: s x Aᵀ (M, layers · r).

    Returns:
        s dy B like ``thin``; dA (r, I) and dB (O, r) of each layer.
    """
    count, (m, i), (o, r) = len(slopes), x.shape, ups[0].shape
    rows = min(max(triton.next_power_of_2(m // 64), 32), 128)
    blocks = triton.cdiv(m, rows)
    back, n = torch.empty_like(thin), r * (i + o)
    sums, result = x.new_empty((count, blocks, n), dtype=torch.float32), x.new_empty((count, n))
    with torch.cuda.device_of(x):
        _ways_back[(blocks, count)](*_three(slopes), *_three(ups), x, thin, back, sums, m, i, o, r, scale, ROWS=rows, WIDTH=_WIDTH,
                                    RANK=max(16, triton.next_power_of_2(r)), num_warps=8 if rows == 128 else 4, num_stages=2)
        _summed[(triton.cdiv(n, 128), count)](sums, result, blocks, n, BLOCKS=16, WIDTH=128)
    return back, [one[r * o:].view(r, i) for one in result], [one[:r * o].view(o, r) for one in result]


def _three(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [*tensors, *[tensors[0]] * (MOST_LAYERS - len(tensors))]
