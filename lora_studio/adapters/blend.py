"""Blending adapters into one, as a recipe says: ΔW = Σ wᵢ ΔWᵢ and its relatives.

``blend_methods`` declares the methods, ``combine``, ``combine_sums`` and ``combine_cores`` do their arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from lora_studio.adapters import blend_methods, block_names, combine, detect, metadata, resize
from lora_studio.adapters import recipe as recipes
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.adapters.blend_methods import BlendMethod
from lora_studio.adapters.combine import Part
from lora_studio.adapters.resize import Resized
from lora_studio.errors import AdapterError
from lora_studio.events import Warned
from lora_studio.families import registry
from lora_studio.language import both, declared, tr


class Blended(NamedTuple):
    """A blend, its recipe in its metadata, and what was lost by trimming it to a rank."""

    adapter: Adapter
    residual: float
    """‖ΔW − ΔW_r‖ / ‖ΔW‖ against the untrimmed blend, or against the sum where a method compresses before it adds; 0
    where nothing was trimmed."""
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
            tr("The recipe has {expected} adapters and {given} were given.", expected=len(names), given=len(adapters)),
            do=tr("Find the missing ones by their names in the recipe."),
        )
    texts, notices = _texts(recipe, adapters), ()
    if _is_one_unchanged(recipe):
        return Blended(replace(adapters[0], metadata={**adapters[0].metadata, **texts}, file=""), 0.0, {})
    _require_alike(names, adapters)
    _require_plain(names, adapters)
    _require_blocks(recipe, adapters)
    _require_count(recipe)
    skips, notices = _clip_skips(recipe, adapters)
    texts |= skips
    parts = _parts(recipe, adapters)
    method = blend_methods.named(recipe.method)
    rank = recipe.rank or (max(adapter.rank for adapter in adapters) if method.trims else 0)
    return Blended(*_combined(method, parts, recipe.parameters, rank, texts), notices)


def _combined(
    method: BlendMethod,
    parts: Mapping[str, list[Part]],
    parameters: Mapping[str, int | float],
    rank: int,
    texts: Mapping[str, str],
) -> Resized:
    """Every module combined as the method says, one after the other, and cut to ``rank`` (0: not at all).

    Raises:
        AdapterError: no module is left with a change.
    """
    if method.compresses:
        parameters = {**parameters, "rank": rank}
    combined = partial(method.combine or _sum, **parameters)
    made = ((path, factors) for path, found in parts.items() if (factors := combined(found, path)))
    if method.compresses:
        result = resize.against(made, lambda path: combine.weighted_sum(parts[path]), texts)
    else:
        result = resize.streamed(made, rank, texts)
    if not result.adapter.factors:
        raise AdapterError(
            tr(
                "{method} leaves nothing of these adapters: their changes have no direction in common.",
                method=declared(method.title),
            ),
            do=tr("Choose another method, such as the exact sum."),
        )
    return result


def _sum(parts: Sequence[Part], path: str) -> Factors:
    return combine.weighted_sum(parts)


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
    sign = blend_methods.named(recipe.method).sign
    signed = " ".join(f"{sign(index) * one.weight:+g}·{one.name}" for index, one in enumerate(recipe.ingredients))
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
    listed = ", ".join(f"{name} {value or tr('none')}" for name, value in stated)
    return {}, (
        Warned(
            what=tr(
                "The adapters do not state the same clip skip ({stated}), so the blend states none.", stated=listed
            ),
            where="ss_clip_skip",
            do=tr("Set the clip skip by hand where you draw with it."),
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
                tr(
                    "{one} was made for {family} and {other} for {other_family}: they cannot be blended.",
                    one=names[0],
                    family=first,
                    other=name,
                    other_family=other,
                ),
                do=tr("Blend adapters of one kind of base model."),
            )


def _require_plain(names: Sequence[str], adapters: Sequence[Adapter]) -> None:
    for name, adapter in zip(names, adapters, strict=True):
        adapter.require_factors(tr("blended"))
        adapter.require_no_words(tr("blended"))
        if adapter.kind.needs_base:
            raise AdapterError(
                tr("{name} is a DoRA, whose change depends on the base model and is no sum.", name=name),
                do=tr("Export it as plain LoRA first and blend that."),
            )


def _require_blocks(recipe: recipes.Blend, adapters: Sequence[Adapter]) -> None:
    """Every block that a weight is given for must be in the models, or in the adapter, lest the weight be ignored."""
    for one, adapter in zip(recipe.ingredients, adapters, strict=True):
        paths = [*detect.kernels(adapter.family), *adapter.factors]
        for block in one.blocks:
            if any(block_names.contains(block, path) for path in paths):
                continue
            do = block_names.suggestion(block, paths)
            raise AdapterError(tr("{name} has no block named {block}.", name=one.name, block=block), where=block, do=do)


def _parts(recipe: recipes.Blend, adapters: Sequence[Adapter]) -> dict[str, list[Part]]:
    """Each module's factors with their weight times the block's factor; parts of weight 0 are left out.

    Raises:
        AdapterError: every weight is 0, or the shapes at a module differ.
    """
    method = blend_methods.named(recipe.method)
    numbered = enumerate(zip(recipe.ingredients, adapters, strict=True))
    used = [(one, adapter, method.sign(index)) for index, (one, adapter) in numbered if one.weight]
    parts: dict[str, list[Part]] = {}
    for path in dict.fromkeys(path for _, adapter, _ in used for path in adapter.factors):
        found = [_part(path, *each) for each in used]
        if present := [part for part in found if part]:
            _require_one_shape(path, present)
            parts[path] = [part or _nothing_like(present[0]) for part in found] if method.fills else present
    if not parts:
        raise AdapterError(
            tr("Every weight of the blend is 0: nothing would be left."), do=tr("Give at least one adapter a weight.")
        )
    return parts


def _part(path: str, one: recipes.Ingredient, adapter: Adapter, sign: int) -> Part | None:
    weight = sign * one.weight * block_names.block_factor(one.blocks, path)
    return (adapter.factors[path], weight) if weight and path in adapter.factors else None


def _nothing_like(part: Part) -> Part:
    """A change of zero in the shape of ``part``'s."""
    out, into, *kernel = part[0].shape
    return Factors(torch.zeros(1, into, *kernel), torch.zeros(out, 1, *(1 for _ in kernel)), 1.0), 1.0


def _require_one_shape(path: str, found: Sequence[Part]) -> None:
    if len(shapes := {factors.shape for factors, _ in found}) > 1:
        raise AdapterError(
            tr(
                "The adapters have different shapes at {path}: {shapes}.",
                path=path,
                shapes=both(map(str, sorted(shapes))),
            ),
            where=path,
            do=tr("They were made for different base models."),
        )


def _require_count(recipe: recipes.Blend) -> None:
    method, used = blend_methods.named(recipe.method), sum(1 for one in recipe.ingredients if one.weight)
    if method.takes and used != method.takes:
        raise AdapterError(
            tr(
                "{method} takes {takes} adapters; {used} of this blend have a weight other than 0.",
                method=declared(method.title),
                takes=method.takes,
                used=used,
            ),
            do=tr("Leave {takes} of them with a weight, or choose another method.", takes=method.takes),
        )
