"""Blending adapters: ΔW = Σ wᵢ ΔWᵢ and its relatives, from a recipe that is data.

exact     the factors side by side: the sum itself, at the sum of the ranks
svd       the nearest adapter of a chosen rank to that sum
subtract  the first less the others: their look is unlearned
prune     each change without its small entries, then the sum
ties      also without the entries that disagree with the elected sign, then the mean (Yadav et al. 2023, section 3)
dare      each change with a random share of its entries dropped, the others enlarged to match, then the sum (Yu et al.
2024, section 3)

The last three speak of entries. They work on each change's coordinates in the left singular basis that all of them
share (KnOTS, Stoica et al. 2025, section 4.1), a thin matrix, and so never on the full ΔW.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio.adapters import detect, keys, resize, svd
from lora_studio.adapters import recipe as recipes
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.errors import AdapterError

Part = tuple[Factors, float]
"""One adapter's factors of a module, and the weight that they come with."""


class Blended(NamedTuple):
    """A blend, its recipe in its metadata, and what was lost by trimming it to a rank."""

    adapter: Adapter
    residual: float
    """‖ΔW − ΔW_r‖ / ‖ΔW‖ against the untrimmed blend; 0 where nothing was trimmed."""
    residuals: dict[str, float]


def blend(recipe: recipes.Blend, adapters: Sequence[Adapter]) -> Blended:
    """The blend that ``recipe`` asks for; float32, unless it is one adapter unchanged.

    Args:
        adapters: in the order of the recipe's ingredients.

    Raises:
        AdapterError: families or shapes differ, all weights are 0, or one is a DoRA (the adapters are named).
    """
    names = [ingredient.name for ingredient in recipe.ingredients]
    if len(adapters) != len(names):
        raise AdapterError(
            f"The recipe has {len(names)} adapters and {len(adapters)} were given.",
            do="Find the missing ones by their names in the recipe.",
        )
    texts = _texts(recipe, adapters)
    if _is_one_unchanged(recipe):
        return Blended(Adapter(adapters[0].factors, {**adapters[0].metadata, **texts}), 0.0, {})
    _require_alike(names, adapters)
    _require_plain(names, adapters)
    parts = _parts(recipe, adapters)
    whole = Adapter(
        {path: _COMBINED.get(recipe.method, _entrywise)(recipe, path, found) for path, found in parts.items()}, texts
    )
    rank = recipe.rank or (max(adapter.rank for adapter in adapters) if recipe.method == "svd" else 0)
    return Blended(*resize.to_rank(whole, rank)) if rank else Blended(whole, 0.0, {})


def _is_one_unchanged(recipe: recipes.Blend) -> bool:
    first = recipe.ingredients[0]
    return (
        len(recipe.ingredients) == 1
        and first.weight == 1
        and not first.blocks
        and recipe.method in ("exact", "subtract", "svd")
        and not recipe.rank
    )


def _texts(recipe: recipes.Blend, adapters: Sequence[Adapter]) -> dict[str, str]:
    """The header of the result: its recipe, where it comes from, all trigger words."""
    names = [ingredient.name for ingredient in recipe.ingredients]
    triggers = list(
        dict.fromkeys(
            word for adapter in adapters if (word := adapter.metadata.get("modelspec.trigger_phrase", "").strip())
        )
    )
    signed = " ".join(f"{ingredient.weight:+g}·{ingredient.name}" for ingredient in recipe.ingredients)
    told = {
        "modelspec.title": signed[:120],
        "modelspec.merged_from": ", ".join(names),
        recipes.KEY: recipes.dumps(recipe),
    }
    return told | ({"modelspec.trigger_phrase": ", ".join(triggers)} if triggers else {})


def ingredient(name: str, weight: float, adapter: Adapter, blocks: dict[str, float] | None = None) -> dict[str, object]:
    """One ingredient's values for ``recipe.blend``, with the hash by which its file is found again."""
    return {
        "name": name,
        "weight": weight,
        "sha256": adapter.metadata.get("sshs_model_hash", ""),
        "blocks": blocks or {},
    }


def _require_alike(names: Sequence[str], adapters: Sequence[Adapter]) -> None:
    for name, adapter in zip(names, adapters, strict=True):
        if adapter.family != adapters[0].family:
            first, other = detect.label(adapters[0].family), detect.label(adapter.family)
            raise AdapterError(
                f"{names[0]} was made for {first} and {name} for {other}: they cannot be blended.",
                do="Blend adapters of one kind of base model.",
            )


def _require_plain(names: Sequence[str], adapters: Sequence[Adapter]) -> None:
    for name, adapter in zip(names, adapters, strict=True):
        if adapter.method == "dora":
            raise AdapterError(
                f"{name} is a DoRA, whose change depends on the base model and is no sum.",
                do="Export it as plain LoRA first and blend that.",
            )


def _parts(recipe: recipes.Blend, adapters: Sequence[Adapter]) -> dict[str, list[Part]]:
    """For each module the factors that go into it, with weight and block factor multiplied; parts of weight 0 are left
    out.
    """
    parts: dict[str, list[Part]] = {}
    for index, (one, adapter) in enumerate(zip(recipe.ingredients, adapters, strict=True)):
        sign = -1 if recipe.method == "subtract" and index else 1
        for path, factors in adapter.factors.items():
            if weight := sign * one.weight * keys.block_factor(one.blocks, path):
                parts.setdefault(path, []).append((factors, weight))
    if not parts:
        raise AdapterError(
            "Every weight of the blend is 0: nothing would be left.", do="Give at least one adapter a weight."
        )
    for path, found in parts.items():
        if len(shapes := {factors.shape for factors, _ in found}) > 1:
            raise AdapterError(
                f"The adapters have different shapes at {path}: {' and '.join(map(str, sorted(shapes)))}.",
                where=path,
                do="They were made for different base models.",
            )
    return parts


def concatenated(parts: Sequence[Part]) -> Factors:
    """Σ wᵢ (αᵢ/rᵢ) BᵢAᵢ as one pair of factors (out, Σr), (Σr, in): exact. The scale is shared between both so that
    neither grows.
    """
    ups, downs = [], []
    for factors, weight in parts:
        total = weight * factors.scale
        root = abs(total) ** 0.5
        ups.append(factors.up.float() * (root if total >= 0 else -root))
        downs.append(factors.down.float() * root)
    up, down = torch.cat(ups, dim=1), torch.cat(downs)
    return Factors(down, up, float(down.shape[0]))


def coordinates(parts: Sequence[Part]) -> tuple[Tensor, list[Tensor]]:
    """U (out, R), R = Σr, orthonormal, and each wᵢΔWᵢ's coordinates Cᵢ (R, in) with wᵢΔWᵢ = U·Cᵢ, float32.

    U is the left singular basis of all the changes side by side, largest first.
    """
    pairs = [(B * weight, A.double()) for (B, A), weight in ((factors.matrices(), weight) for factors, weight in parts)]
    basis = svd.thin(torch.cat([B for B, _ in pairs], dim=1))
    sides = basis.R.split([A.shape[0] for _, A in pairs], dim=1)
    inside = [side @ A for side, (_, A) in zip(sides, pairs, strict=True)]
    P = torch.linalg.eigh(sum(C @ C.T for C in inside))[1].flip(1)
    return basis.columns(P).float(), [(P.T @ C).float() for C in inside]


def trimmed(C: Tensor, density: float) -> Tensor:
    """``C`` with all but the largest share ``density`` of its entries set to 0."""
    keep = max(1, round(density * C.numel()))
    threshold = C.abs().flatten().kthvalue(C.numel() - keep + 1).values
    return torch.where(C.abs() >= threshold, C, 0)


def ties(changes: Sequence[Tensor], density: float) -> Tensor:
    """Trim, elect each entry's sign by the sum, and take the mean of those that have it."""
    kept = torch.stack([trimmed(C, density) for C in changes])
    sign = kept.sum(0).sign()
    agree = (kept.sign() == sign) & (kept != 0)
    return torch.where(agree, kept, 0).sum(0) / agree.sum(0).clamp(min=1)


def dare(changes: Sequence[Tensor], density: float, generator: torch.Generator) -> Tensor:
    """Drop a random share 1 − ``density`` of the entries, divide the others by ``density``, and add."""
    return torch.stack(
        [torch.where(torch.rand(C.shape, generator=generator) < density, C / density, 0) for C in changes]
    ).sum(0)


def _entrywise(recipe: recipes.Blend, path: str, parts: Sequence[Part]) -> Factors:
    U, changes = coordinates(parts)
    if recipe.method == "ties":
        C = ties(changes, recipe.density)
    elif recipe.method == "dare":
        C = dare(changes, recipe.density, torch.Generator().manual_seed(recipe.seed ^ zlib.crc32(path.encode())))
    else:
        C = torch.stack([trimmed(change, recipe.density) for change in changes]).sum(0)
    kernel = parts[0][0].shape[2:]
    if kernel:
        return Factors(C.reshape(len(C), -1, *kernel), U[:, :, None, None], float(len(C)))
    return Factors(C, U, float(len(C)))


def _sum(recipe: recipes.Blend, path: str, parts: Sequence[Part]) -> Factors:
    return concatenated(parts)


_COMBINED: dict[str, Callable[[recipes.Blend, str, Sequence[Part]], Factors]] = {
    "exact": _sum,
    "svd": _sum,
    "subtract": _sum,
}
