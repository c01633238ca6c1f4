"""Singular values of thin products, without ever forming the product.

ΔW = B·A with B (out, r) and A (r, in): orthonormal bases of B's and Aᵀ's columns leave an r × r core with the same
singular values, so the work is O(d·r²) instead of O(d³). All in float64, batched over modules of like shape.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from lora_studio.adapters.adapter import Factors

_CHUNK = 2**21
"""Numbers of one batch of factors: 16 MB in float64, more gains nothing."""
_ORTHONORMAL = 1e-8
"""XᵀX squares X's condition number; a basis made from it that is less orthonormal than this is not used."""

Result = TypeVar("Result")


class Thin(NamedTuple):
    """X = Q·R with orthonormal columns in Q = X·T, which is not formed: only some combinations of its columns are ever
    wanted.
    """

    X: Tensor
    """(…, d, r) float64."""
    T: Tensor
    """(…, r, r)."""
    R: Tensor
    """(…, r, r)."""

    def columns(self, P: Tensor) -> Tensor:
        """Q·P (…, d, k)."""
        return self.X @ (self.T @ P)


def thin(X: Tensor) -> Thin:
    """An orthonormal basis of the columns of X (…, d, r).

    By Cholesky's factor of XᵀX, many times as fast as QR on thin batches, where that comes out orthonormal; else by QR
    itself.
    """
    X = X.double()
    G = X.mT @ X
    R, failed = torch.linalg.cholesky_ex(G, upper=True)
    if not failed.any():
        eye = torch.eye(G.shape[-1], dtype=G.dtype).expand_as(G)
        T = torch.linalg.solve_triangular(R, eye, upper=True)
        if (T.mT @ G @ T - eye).abs().max() < _ORTHONORMAL:
            return Thin(X, T, R)
    Q, R = torch.linalg.qr(X)
    return Thin(Q, torch.eye(Q.shape[-1], dtype=Q.dtype), R)


def product(B: Tensor, A: Tensor, keep: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The thin SVD of B·A in float64: U (…, out, k), S (…, min(r, out, in)) and Vᵀ (…, k, in), with the leading
    ``keep`` vectors (all by default).
    """
    left, right = thin(B), thin(A.mT)
    P, S, Wt = torch.linalg.svd(left.R @ right.R.mT, full_matrices=False)
    return left.columns(P[..., :keep]), S, right.columns(Wt[..., :keep, :].mT).mT


def values(B: Tensor, A: Tensor) -> Tensor:
    """The singular values (…, k) of B·A in float64."""
    return torch.linalg.svdvals(thin(B).R @ thin(A.mT).R.mT)


def inner(B1: Tensor, A1: Tensor, B2: Tensor, A2: Tensor) -> Tensor:
    """⟨B₁A₁, B₂A₂⟩, the sum of the products of entries (…,), in float64: tr(B₁ᵀB₂ · A₂A₁ᵀ)."""
    left, right = B1.double().mT @ B2.double(), A1.double() @ A2.double().mT
    return (left * right).sum((-2, -1))


def like_shaped(factors: Mapping[str, Factors]) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """Modules of one shape and rank at a time: their paths, B (n, out, r) with alpha / r in it, and A (n, r, in·kh·kw),
    float32.
    """
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for path, one in factors.items():
        groups[one.up.shape[0], one.rank, one.down[0].numel()].append(path)
    for (out, rank, into), paths in groups.items():
        size = max(1, _CHUNK // (rank * (out + into)))
        for start in range(0, len(paths), size):
            chunk = paths[start : start + size]
            pairs = [factors[path].matrices() for path in chunk]
            yield chunk, torch.stack([B for B, _ in pairs]), torch.stack([A for _, A in pairs])


def over(
    factors: Mapping[str, Factors], work: Callable[[Tensor, Tensor], Result]
) -> Iterator[tuple[list[str], Result]]:
    """``work(B, A)`` of every stack of ``like_shaped`` with its paths, in order.

    A stack a thread: within a stack LAPACK takes one small matrix after the other, whatever the number of threads.
    """
    threads, waiting = torch.get_num_threads(), deque[tuple[list[str], Future[Result]]]()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for paths, B, A in like_shaped(factors):
                waiting.append((paths, pool.submit(work, B, A)))
                if len(waiting) > threads:
                    paths, done = waiting.popleft()
                    yield paths, done.result()
            for paths, done in waiting:
                yield paths, done.result()
    finally:
        torch.set_num_threads(threads)


def leading(matrix: Tensor, rank: int, rounds: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """The leading ``rank`` singular triples of a full matrix (out, in), for the one case where the change is no thin
    product (DoRA).

    Subspace iteration from a fixed start (Halko, Martinsson, Tropp 2011, algorithm 4.4), exact SVD where that is no
    more work.
    """
    matrix = matrix.float()
    width = rank + 16
    if 3 * width >= min(matrix.shape):
        U, S, Vt = torch.linalg.svd(matrix, full_matrices=False)
        return U[:, :rank], S[:rank], Vt[:rank]
    Q = torch.randn(matrix.shape[1], width, generator=torch.Generator().manual_seed(0)).to(matrix)
    for _ in range(rounds):
        Q = torch.linalg.qr(matrix.mT @ torch.linalg.qr(matrix @ Q)[0])[0]
    U, S, Wt = torch.linalg.svd(matrix @ Q, full_matrices=False)
    return U[:, :rank], S[:rank], Wt[:rank] @ Q.mT


def randomized(matrix: Tensor, rank: int, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """As ``leading``, from a random start and in a third of its products (Halko et al. 2011, algorithms 4.4 and 5.1):
    near enough to begin a training from.

    Args:
        matrix: (out, in) float32.
        source: on the CPU, so that every device gets the same start.

    Returns:
        U (out, k), S (k,) and Vᵀ (k, in) on the matrix's device, with k = min(rank, out, in).
    """
    count = min(rank, *matrix.shape)
    span = torch.randn(matrix.shape[1], min(count + 8, *matrix.shape), generator=source).to(matrix.device)
    for _ in range(4):
        span = matrix.T @ torch.linalg.qr(matrix @ span).Q
    basis = torch.linalg.qr(matrix @ span).Q
    U, S, Vt = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return (basis @ U)[:, :count], S[:count], Vt[:count]
