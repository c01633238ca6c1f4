"""What an adapter does, in numbers and in sentences: how much it changes, where, in how many directions, and how two
adapters combine.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel
from torch import Tensor

from lora_studio.adapters import block_names, detect, dora, formats, resize, svd
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.errors import AdapterError
from lora_studio.language import Told, tr

_SAMPLED_ROWS = 16
_BINS = (-8.0, 0.0, 40)
"""Histogram of log₁₀ |entry|: from, to, number."""


class Module(BaseModel):
    """One module's change ΔW."""

    path: str
    block: str
    kind: str
    rank: int
    norm: float
    """‖ΔW‖ (Frobenius)."""
    weight_norm: float | None
    """‖W‖, if the base model is given."""
    relative: float | None
    """‖ΔW‖ / ‖W‖."""
    effective_rank: float
    """exp of the entropy of σ / Σσ (Roy and Vetterli 2007): how many directions it really uses."""
    rank_99: int
    """The smallest rank with 99 % of ‖ΔW‖²."""
    spectrum: list[float]
    """σ, descending."""


class Heatmap(BaseModel):
    """‖ΔW‖ by block (rows) and kind of layer (columns), relative to ‖W‖ where that is known; None where there is no
    such layer.
    """

    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]
    relative: bool


class Histogram(BaseModel):
    """How many sampled entries of ΔW are between 10^edges[i] and 10^edges[i+1]; smaller ones count in the first."""

    edges: list[float]
    counts: list[int]


class Analysis(BaseModel):
    """A whole adapter."""

    family: str
    modules: list[Module]
    norm: float
    """‖ΔW‖ over all modules."""
    rank: int
    rank_99: int
    """The smallest rank for all modules together that keeps 99 % of ‖ΔW‖²."""
    spectrum: list[float]
    """Share of ‖ΔW‖² that each rank adds, summed over the modules; it adds up to 1."""
    blocks: dict[str, float]
    """Share of ‖ΔW‖² in each block, in the order of the forward pass."""
    heatmap: Heatmap
    histogram: Histogram
    words: list[Told]


def analyze(adapter: Adapter, weights: dora.Weights | None = None) -> Analysis:
    """The analysis of one adapter; with the base model's ``weights`` also relative to them.

    Of a DoRA it describes the change of direction only. An OFT and an (IA)³ have a change by those weights alone.

    Raises:
        AdapterError: the adapter is empty, the base lacks a weight, or it is needed and not given.
    """
    held = adapter
    if adapter.outputs and weights is not None:
        adapter = dora.as_full(adapter, weights)
    adapter.require_factors(tr("analysed without its base model"))
    if not adapter.factors:
        raise AdapterError(tr("The adapter is empty."), do=tr("Choose one with at least one module."))
    modules = sorted(_modules(adapter.factors, weights), key=lambda module: _order(module.block, module.path))
    total = sum(module.norm**2 for module in modules)
    shares = _shares(modules, total)
    rank_99 = next((index + 1 for index, kept in enumerate(_running(shares)) if kept >= 0.99), adapter.rank)
    heat, blocks = heatmap(modules), _by_block(modules, total)
    return Analysis(
        family=adapter.family,
        modules=modules,
        norm=math.sqrt(total),
        rank=adapter.rank,
        rank_99=rank_99,
        spectrum=shares,
        blocks=blocks,
        heatmap=heat,
        histogram=histogram(adapter.factors),
        words=_words(held, modules, blocks, rank_99),
    )


def _modules(factors: Mapping[str, Factors], weights: dora.Weights | None) -> list[Module]:
    modules = []
    for paths, spectra in svd.over(factors, svd.values):
        for path, S in zip(paths, spectra, strict=True):
            norm = float(S.norm())
            size = None if weights is None else float(dora.weight_of(weights, path).float().norm())
            modules.append(
                Module(
                    path=path,
                    block=block_names.block_of(path),
                    kind=block_names.kind_of(path),
                    rank=factors[path].rank,
                    norm=norm,
                    weight_norm=size,
                    relative=None if size is None else _ratio(norm, size),
                    effective_rank=effective_rank(S),
                    rank_99=resize.rank_for(S, 0.99),
                    spectrum=S.tolist(),
                )
            )
    return modules


def effective_rank(S: Tensor) -> float:
    """exp(−Σ pᵢ ln pᵢ), p = σ / Σσ: k for k equal singular values; 0 for none."""
    total = S.sum()
    if not total > 0:
        return 0.0
    p = S / total
    return float(torch.special.entr(p).sum().exp())


def _shares(modules: Sequence[Module], total: float) -> list[float]:
    shares = [0.0] * max(len(module.spectrum) for module in modules)
    for module in modules:
        for index, value in enumerate(module.spectrum):
            shares[index] += value * value
    return [share / total if total else 0.0 for share in shares]


def _by_block(modules: Sequence[Module], total: float) -> dict[str, float]:
    shares: dict[str, float] = defaultdict(float)
    for module in modules:
        shares[module.block] += module.norm**2 / total if total else 0.0
    return dict(shares)


def _running(shares: Sequence[float]) -> list[float]:
    return torch.tensor(shares, dtype=torch.float64).cumsum(0).add(1e-12).tolist()


_SIDES = {"text_encoder": 0, "text_encoder_2": 1, "ends": 2, "down_blocks": 3, "mid_block": 4, "up_blocks": 5}


def _order(block: str, path: str = "") -> tuple[int, str, str]:
    """Blocks in the order of the forward pass."""
    return _SIDES.get(block.partition(".")[0], 9), block, path


def heatmap(modules: Sequence[Module]) -> Heatmap:
    """√Σ‖ΔW‖² of each block and kind, divided by √Σ‖W‖² where every module knows it."""
    relative = all(module.weight_norm is not None for module in modules)
    squares: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for module in modules:
        cell = squares[module.block, module.kind]
        cell[0] += module.norm**2
        cell[1] += (module.weight_norm or 0.0) ** 2
    rows = sorted({module.block for module in modules}, key=_order)
    columns = sorted({module.kind for module in modules})

    def value(row: str, column: str) -> float | None:
        if (row, column) not in squares:
            return None
        change, weight = squares[row, column]
        return math.sqrt(_ratio(change, weight)) if relative else math.sqrt(change)

    return Heatmap(
        rows=rows,
        columns=columns,
        values=[[value(row, column) for column in columns] for row in rows],
        relative=relative,
    )


def histogram(factors: Mapping[str, Factors]) -> Histogram:
    """Magnitudes of ΔW's entries, from some evenly spaced rows of every module."""
    low, high, number = _BINS
    counts = torch.zeros(number, dtype=torch.int64)
    for _, B, A in svd.like_shaped(factors):
        rows = torch.linspace(0, B.shape[1] - 1, min(_SAMPLED_ROWS, B.shape[1])).round().long()
        sizes = (B[:, rows] @ A).abs().clamp_min(10.0**low).log10()
        index = ((sizes - low) / (high - low) * number).long().clamp(0, number - 1)
        counts += torch.bincount(index.flatten(), minlength=number)
    return Histogram(edges=torch.linspace(low, high, number + 1).tolist(), counts=counts.tolist())


def _words(adapter: Adapter, modules: Sequence[Module], blocks: Mapping[str, float], rank_99: int) -> list[str]:
    """What follows from the numbers, for someone who does not want to read them."""
    total = sum(module.norm**2 for module in modules)
    if not total:
        return [tr("This adapter changes nothing: it was saved before it had learned anything.")]
    words = [_size_words(adapter, rank_99)]
    block, share = max(blocks.items(), key=lambda item: item[1])
    if len(blocks) > 1:
        words.append(tr("{share:.0%} of the change is in {block}.", share=share, block=block))
    if idle := sum(module.norm < 1e-4 * math.sqrt(total / len(modules)) for module in modules):
        words.append(tr("{idle} of {modules} modules change next to nothing.", idle=idle, modules=len(modules)))
    relative = [module.relative for module in modules if module.relative is not None]
    if relative:
        strongest = max(modules, key=lambda module: module.relative or 0.0)
        mean = sum(relative) / len(relative)
        words.append(
            tr(
                "It changes the base model's weights by {mean:.1%} on average, most of all {strongest} ({most:.1%}).",
                mean=mean,
                strongest=strongest.path,
                most=strongest.relative,
            )
        )
    return words


def _size_words(adapter: Adapter, rank_99: int) -> str:
    size, kind = formats.size(adapter) / resize.MB, adapter.kind
    if kind.needs_base:
        return tr(
            "It takes {size:.1f} MB; {a_title} can be made smaller only after it was exported as a plain LoRA.",
            size=size,
            a_title=kind.a_title,
        )
    if kind.readers:
        numbers = sum(
            (one.shape[0] + math.prod(one.shape[1:])) * min(rank_99, one.rank) for one in adapter.factors.values()
        )
        small = 4 * numbers / resize.MB
        return tr(
            "It takes {size:.1f} MB; a plain LoRA of rank {rank} with 99 % of its change takes {small:.1f} MB.",
            size=size,
            rank=rank_99,
            small=small,
        )
    if rank_99 >= adapter.rank:
        return tr("All of its rank {rank} is used; a larger rank might hold more of the style.", rank=adapter.rank)
    spared = sum(
        (one.rank - min(rank_99, one.rank)) / one.rank * one.parameters * one.down.dtype.itemsize
        for one in adapter.factors.values()
    )
    small = size - spared / resize.MB
    return tr(
        "Rank {enough} of {rank} holds 99 % of the change: shrink from {size:.1f} to {small:.1f} MB.",
        enough=rank_99,
        rank=adapter.rank,
        size=size,
        small=small,
    )


class Pair(BaseModel):
    """How two adapters meet in one module that both change."""

    path: str
    cosine: float
    """⟨ΔW₁, ΔW₂⟩ / ‖ΔW₁‖‖ΔW₂‖."""
    overlap: float
    """Share of the second's ‖ΔW‖² between the same inputs and outputs as the first's."""


class Comparison(BaseModel):
    """How two adapters combine."""

    cosine: float
    """Over all modules together."""
    interference: float
    """Share of both energies that cancels in the plain sum; below 0 they reinforce each other."""
    overlap: float
    shared: int
    """Modules that both change."""
    pairs: list[Pair]
    words: list[Told]


def compare(one: Adapter, other: Adapter, names: tuple[str, str] = ("The first", "the second")) -> Comparison:
    """Cosine similarity and interference of two adapters of one family.

    Raises:
        AdapterError: they were made for different families.
    """
    _require_one_family(one, other, names)
    pairs, dot, within = [], 0.0, 0.0
    energies = [_energies(adapter) for adapter in (one, other)]
    shared = [
        path for path in one.factors if path in other.factors and one.factors[path].shape == other.factors[path].shape
    ]
    for path in shared:
        (B1, A1), (B2, A2) = one.factors[path].matrices(), other.factors[path].matrices()
        product, inside = float(svd.inner(B1, A1, B2, A2)), _inside(B1, A1, B2, A2)
        dot, within = dot + product, within + inside
        size1, size2 = energies[0][path], energies[1][path]
        pairs.append(Pair(path=path, cosine=_ratio(product, math.sqrt(size1 * size2)), overlap=_ratio(inside, size2)))
    total1, total2 = (sum(energy.values()) for energy in energies)
    cosine, overlap = _ratio(dot, math.sqrt(total1 * total2)), _ratio(within, total2)
    return Comparison(
        cosine=cosine,
        interference=_ratio(-2 * dot, total1 + total2),
        overlap=overlap,
        shared=len(shared),
        pairs=pairs,
        words=_pair_words(cosine, overlap, len(shared), names),
    )


def _require_one_family(one: Adapter, other: Adapter, names: tuple[str, str]) -> None:
    if one.family != other.family:
        first, second = detect.label(one.family), detect.label(other.family)
        raise AdapterError(
            f"{names[0]} was made for {first} and {names[1]} for {second}: there is nothing to compare.",
            do="Choose two adapters of one kind of base model.",
        )


def _energies(adapter: Adapter) -> dict[str, float]:
    """‖ΔW‖² of each module."""
    return {
        path: size
        for paths, B, A in svd.like_shaped(adapter.factors)
        for path, size in zip(paths, svd.inner(B, A, B, A).tolist(), strict=True)
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _inside(B1: Tensor, A1: Tensor, B2: Tensor, A2: Tensor) -> float:
    """‖P ΔW₂ Q‖², P and Q projecting onto the first's outputs and inputs."""
    outputs, inputs = svd.thin(B1), svd.thin(A1.mT)
    left = outputs.T.mT @ (outputs.X.mT @ B2.double())
    return float((left @ ((A2.double() @ inputs.X) @ inputs.T)).square().sum())


def _pair_words(cosine: float, overlap: float, shared: int, names: tuple[str, str]) -> list[str]:
    if not shared:
        return [f"{names[0]} and {names[1]} change different layers: they can be mixed freely."]
    if cosine > 0.3:
        first = f"They pull the same way (cosine {cosine:.2f}): together they add up, so lower the weights."
    elif cosine < -0.1:
        first = f"They pull against each other (cosine {cosine:.2f}): part of both is lost in the mix; TIES keeps more."
    else:
        first = f"They are nearly independent (cosine {cosine:.2f}): the plain sum keeps both."
    if overlap > 0.3:
        return [
            first,
            f"{overlap:.0%} of {names[1]} works on the same inputs and outputs as {names[0]}: expect each to change "
            "what the other does.",
        ]
    return [first]
