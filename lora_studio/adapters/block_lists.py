"""Lists of block weights, as A1111's extension sd-webui-lora-block-weight reads and writes them:
``OUTALL:1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1``. Imports no torch.

A list of 17 numbers is for LoRAs of SD 1.5, of 12 for LoRAs of SDXL; those of 26 and 20 also name the blocks that have
convolutions alone. Blocks that a list does not name get 0, as there. Their names are the extension's ``BLOCKID12``,
``BLOCKID17``, ``BLOCKID20`` and ``BLOCKID26``, which count the layers of the original UNet; ``BASE`` is the text
encoders.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from lora_studio.errors import SettingsError
from lora_studio.language import tr


def _named(*parts: tuple[str, Iterable[int]]) -> tuple[str, ...]:
    return ("BASE", *(f"{side}{number:02}" for side, numbers in parts for number in numbers))


IDS: dict[int, tuple[str, ...]] = {
    12: _named(("IN", (4, 5, 7, 8)), ("M", (0,)), ("OUT", range(6))),
    17: _named(("IN", (1, 2, 4, 5, 7, 8)), ("M", (0,)), ("OUT", range(3, 12))),
    20: _named(("IN", range(9)), ("M", (0,)), ("OUT", range(9))),
    26: _named(("IN", range(12)), ("M", (0,)), ("OUT", range(12))),
}
"""The blocks of a list by its length."""

_PRESETS: dict[str, tuple[tuple[int, int], ...]] = {
    "NONE": (),
    "ALL": ((0, 16),),
    "INS": ((0, 3),),
    "IND": ((0, 0), (4, 6)),
    "INALL": ((0, 6),),
    "MIDD": ((0, 0), (4, 11)),
    "OUTD": ((0, 0), (8, 11)),
    "OUTS": ((0, 0), (12, 16)),
    "OUTALL": ((0, 0), (8, 16)),
}
PRESETS = {
    name: ",".join("1" if any(low <= place <= high for low, high in spans) else "0" for place in range(17))
    for name, spans in _PRESETS.items()
}
"""The extension's own, for SD 1.5: the places from one to another get 1."""
HIGHEST = 10.0
"""As of a blend's weights."""
_DO = tr("Paste 12, 17, 20 or 26 numbers with commas between them, or one of {presets}.", presets=", ".join(PRESETS))
_LAYER = re.compile(r"unet\.(down|up)_blocks\.(\d)\.(attentions|resnets|downsamplers|upsamplers)\.(\d)(?:\.|$)")


@lru_cache(maxsize=2**15)
def id_of(path: str) -> str:
    """The block of a canonical path in lists; empty where no list names it (time embeddings, the last layers)."""
    if path.startswith("text_encoder"):
        return "BASE"
    if path.startswith("unet.mid_block."):
        return "M00"
    if path == "unet.conv_in":
        return "IN00"
    if not (found := _LAYER.match(path)):
        return ""
    side, level, kind, layer = found.groups()
    within = 2 if kind.endswith("samplers") else int(layer)
    return f"IN{3 * int(level) + within + 1:02}" if side == "down" else f"OUT{3 * int(level) + within:02}"


def present(paths: Iterable[str]) -> tuple[str, ...]:
    """The blocks of lists that hold one of ``paths``, in the order of lists."""
    held = {id_of(path) for path in paths}
    return tuple(one for one in IDS[26] if one in held)


def factors(text: str, paths: Iterable[str]) -> dict[str, float]:
    """The weights of a list, or of a preset's name, by block, for the blocks that hold one of ``paths``; those of 1 are
    left out.

    Raises:
        SettingsError: the text is neither, or holds something else than numbers from -10 to 10.
    """
    name, _, numbers = text.strip().rpartition(":")
    numbers = PRESETS.get(numbers.strip().upper(), numbers)
    values = [_number(word.strip(), text) for word in numbers.split(",")]
    if len(values) not in IDS:
        raise SettingsError(
            tr("A list of block weights cannot have {count} numbers.", count=len(values)), where=name or text, do=_DO
        )
    listed = dict(zip(IDS[len(values)], values, strict=True))
    return {one: weight for one in present(paths) if (weight := listed.get(one, 0.0)) != 1}


def _number(word: str, text: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not abs(value) <= HIGHEST:
        what = tr("{word!r} is no block weight from -10 to 10.", word=word[:20])
        if word[:1] in ("R", "U", "X"):
            what = tr(
                "{word!r} is no block weight from -10 to 10. R, U and X stand for random numbers there.", word=word[:20]
            )
        raise SettingsError(what, where=text[:80], do=_DO)
    return value


def written(paths: Iterable[str], factor: Callable[[str], float]) -> str:
    """The shortest list that names all blocks with one of ``paths``; blocks without any get 1.

    Args:
        factor: the weight of each path.

    Raises:
        SettingsError: a list cannot say it: within a block weights differ, or one is outside all blocks.
    """
    weights: dict[str, set[float]] = {}
    for path in paths:
        weights.setdefault(id_of(path), set()).add(factor(path))
    if weights.pop("", {1.0}) != {1.0}:
        raise SettingsError(
            tr("A list has no place for the first and last layers."),
            where="ends",
            do=tr("Set their weight to 1, then copy."),
        )
    for block, found in weights.items():
        if len(found) > 1:
            low, high = min(found), max(found)
            raise SettingsError(
                tr(
                    "A list has one weight for {block}; here it is {low:g} to {high:g}.",
                    block=block,
                    low=low,
                    high=high,
                ),
                where=block,
                do=tr("Make them equal."),
            )
    length = next(length for length, ids in IDS.items() if weights.keys() <= set(ids))
    return ",".join(f"{_only(weights, block):g}" for block in IDS[length])


def _only(weights: Mapping[str, set[float]], block: str) -> float:
    return next(iter(weights.get(block, {1.0})))
