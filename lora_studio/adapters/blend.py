"""Blending adapters into one, as a recipe says: ΔW = Σ wᵢ ΔWᵢ and its relatives.

``blend_methods`` declares the methods, ``combine`` does their arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from typing import NamedTuple

from lora_studio.adapters import blend_methods, combine, detect, keys, metadata, resize
from lora_studio.adapters import recipe as recipes
from lora_studio.adapters.adapter import Adapter
from lora_studio.adapters.combine import Part
from lora_studio.errors import AdapterError
from lora_studio.events import Warned
from lora_studio.families import registry


class Blended(NamedTuple):
    """A blend, its recipe in its metadata, and what was lost by trimming it to a rank."""

    adapter: Adapter
    residual: float
    """‖ΔW − ΔW_r‖ / ‖ΔW‖ against the untrimmed blend; 0 where nothing was trimmed."""
    residuals: dict[str, float]
    notices: tuple[Warned, ...] = ()
    """What the user should know of its header."""


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
    texts, notices = _texts(recipe, adapters), ()
    if _is_one_unchanged(recipe):
        return Blended(Adapter(adapters[0].factors, {**adapters[0].metadata, **texts}), 0.0, {})
    _require_alike(names, adapters)
    _require_plain(names, adapters)
    _require_blocks(recipe, adapters)
    skips, notices = _clip_skips(recipe, adapters)
    texts |= skips
    parts = _parts(recipe, adapters)
    method = blend_methods.named(recipe.method)
    if method.combine:
        combined = partial(method.combine, **recipe.parameters)
        factors = {path: combined(found, path) for path, found in parts.items()}
    else:
        factors = {path: combine.weighted_sum(found) for path, found in parts.items()}
    whole = Adapter(factors, texts)
    rank = recipe.rank or (max(adapter.rank for adapter in adapters) if method.trims else 0)
    return Blended(*(resize.to_rank(whole, rank) if rank else (whole, 0.0, {})), notices)


def _is_one_unchanged(recipe: recipes.Blend) -> bool:
    first = recipe.ingredients[0]
    return (
        len(recipe.ingredients) == 1
        and first.weight == 1
        and not first.blocks
        and blend_methods.named(recipe.method).combine is None
        and not recipe.rank
    )


def _texts(recipe: recipes.Blend, adapters: Sequence[Adapter]) -> dict[str, str]:
    """The header of the result: its recipe, the adapters that it was made of, all trigger words."""
    names = [ingredient.name for ingredient in recipe.ingredients]
    triggers = dict.fromkeys(word for adapter in adapters if (word := metadata.trigger(adapter.metadata)))
    signed = " ".join(f"{ingredient.weight:+g}·{ingredient.name}" for ingredient in recipe.ingredients)
    texts = {
        "modelspec.title": signed[:120],
        "modelspec.merged_from": ", ".join(names),
        recipes.KEY: recipes.dumps(recipe),
    }
    return texts | ({"modelspec.trigger_phrase": ", ".join(triggers)} if triggers else {})


def _clip_skips(recipe: recipes.Blend, adapters: Sequence[Adapter]) -> tuple[dict[str, str], tuple[Warned, ...]]:
    """The clip skip for the header of a blend whose adapters all state the same; a notice where some state another."""
    weighed = zip(recipe.ingredients, adapters, strict=True)
    stated = [(one.name, metadata.clip_skip(adapter.metadata)) for one, adapter in weighed if one.weight]
    family, values = registry.named(adapters[0].family), {value for _, value in stated}
    if not any(values) or not (family and family.clip_skips):
        return {}, ()
    if len(values) == 1:
        return {"ss_clip_skip": str(values.pop())}, ()
    listed = ", ".join(f"{name} {value or 'none'}" for name, value in stated)
    return {}, (
        Warned(
            what=f"The adapters do not state the same clip skip ({listed}), so the blend states none.",
            where="ss_clip_skip",
            do="Set the clip skip by hand where you draw with it.",
        ),
    )


def ingredient(name: str, weight: float, adapter: Adapter, blocks: dict[str, float] | None = None) -> dict[str, object]:
    """One ingredient for ``recipe.blend``, with the hash by which its file is found again."""
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
        if adapter.kind.needs_base:
            raise AdapterError(
                f"{name} is a DoRA, whose change depends on the base model and is no sum.",
                do="Export it as plain LoRA first and blend that.",
            )


def _require_blocks(recipe: recipes.Blend, adapters: Sequence[Adapter]) -> None:
    """Every block that a weight is given for must be in the models, or in the adapter, lest the weight be ignored."""
    for one, adapter in zip(recipe.ingredients, adapters, strict=True):
        paths = [*detect.kernels(adapter.family), *adapter.factors]
        for block in one.blocks:
            if any(keys.contains(block, path) for path in paths):
                continue
            names = {keys.block_of(path) for path in paths}
            for path in paths:
                words = path.removeprefix("unet.").split(".")
                names.update(".".join(words[:count]) for count in range(2, len(words) + 1))
            near = get_close_matches(block, sorted(names), n=3, cutoff=0.4)
            raise AdapterError(
                f"{one.name} has no block named {block}.",
                where=block,
                do=f"Did you mean {', '.join(near)}?" if near else "Name one such as up_blocks.1 or mid_block.",
            )


def _parts(recipe: recipes.Blend, adapters: Sequence[Adapter]) -> dict[str, list[Part]]:
    """Each module's factors with their weight times the block's factor; parts of weight 0 are left out.

    Raises:
        AdapterError: every weight is 0, or the shapes at a module differ.
    """
    method = blend_methods.named(recipe.method)
    parts: dict[str, list[Part]] = {}
    for index, (one, adapter) in enumerate(zip(recipe.ingredients, adapters, strict=True)):
        for path, factors in adapter.factors.items():
            if weight := method.sign(index) * one.weight * keys.block_factor(one.blocks, path):
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
