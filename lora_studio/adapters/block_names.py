"""Blocks of a model by name: one way to name them for all that acts on a part of a model. Imports no torch.

A name is a block of the heatmap (``down_blocks.1``, ``mid_block``, ``text_encoder``), one of a list
(``block_lists.IDS``: ``OUT04``, ``BASE``), or the beginning of a canonical path, with or without ``unet.``:
``up_blocks.0.attentions.1``. ``*`` stands for anything, one ``6-11`` between dots for each of these numbers, and
``text_encoder.layers.8`` for ``text_encoder.text_model.encoder.layers.8``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache

from lora_studio.adapters import block_lists
from lora_studio.language import tr

_TEXT = "text_encoder"
_MOST = 100
"""Numbers of a range; no model has as many layers."""
_RANGE = re.compile(r"(?<=\.)(\d{1,3})-(\d{1,3})(?=\.|$)")


def block_of(path: str) -> str:
    """The block of a path: ``down_blocks.1``, ``mid_block``, ``up_blocks.0``, ``ends`` (first and last
    layers), or a text encoder.
    """
    component, _, rest = path.partition(".")
    if component != "unet":
        return component
    match = re.match(r"(?:down|up)_blocks\.\d+|mid_block", rest)
    return match[0] if match else "ends"


def kind_of(path: str) -> str:
    """A layer's kind, in any block: ``attn1.to_q``, ``ff.net.2``, ``proj_in``, ``conv1``, ``self_attn.q_proj``."""
    return re.sub(r"^.*(?:transformer_blocks|attentions|resnets|layers)\.\d+\.", "", path.partition(".")[2])


def block_factor(blocks: Mapping[str, float], path: str) -> float:
    """The factor of the most specific of ``blocks`` that contains ``path``; 1 if none does."""
    held = [block for block in blocks if contains(block, path)]
    return blocks[max(held, key=detail)] if held else 1.0


def detail(block: str) -> tuple[int, int]:
    """Sorts blocks from large to small ones: a list's block is in ``down_blocks.0`` and holds its layers."""
    listed = block.startswith(("IN", "OUT"))
    return 2 if listed else block.removeprefix("unet.").count("."), len(block)


def contains(block: str, path: str) -> bool:
    """Whether the canonical ``path`` is in the block of that name."""
    whole = (block_of(path), block_lists.id_of(path))
    if "*" not in block and "-" not in block:
        return block in whole or _begins(path, _in_full(block))
    return any(fnmatchcase(one, block) for one in whole) or any(_begins(path, name) for name in _spelled(block))


def _begins(path: str, name: str) -> bool:
    ways = (f"{path}.", f"{path.removeprefix('unet.')}.")
    if "*" in name:
        return any(fnmatchcase(one, f"{name}.*") for one in ways)
    return any(one.startswith(f"{name}.") for one in ways)


@lru_cache(maxsize=1024)
def _spelled(block: str) -> tuple[str, ...]:
    """The names that one with a range stands for."""
    if not (found := _RANGE.search(block)):
        return (_in_full(block),)
    low, high = int(found[1]), int(found[2])
    numbers = range(low, min(high, low + _MOST) + 1)
    return tuple(_in_full(f"{block[: found.start()]}{number}{block[found.end() :]}") for number in numbers)


def _in_full(block: str) -> str:
    return re.sub(rf"^({_TEXT}(?:_2)?)\.layers(?=\.|$)", r"\1.text_model.encoder.layers", block)


def within(names: Sequence[str], path: str) -> bool:
    """Whether ``path`` is in one of the blocks ``names``. A part of the model, as the denoiser or a text encoder, of
    which they name nothing counts whole.
    """
    own = [name for name in names if _is_of(name, path.partition(".")[0])]
    return not own or any(contains(name, path) for name in own)


def _is_of(name: str, part: str) -> bool:
    """Whether ``name`` is of that part of the model."""
    first = name.partition(".")[0]
    if part.startswith(_TEXT):
        return first in (part, "BASE")
    return first != "BASE" and not first.startswith(_TEXT)


def suggestion(block: str, paths: Iterable[str]) -> str:
    """What to name instead of ``block``, which is in none of ``paths``: what is spelled like it, else all blocks."""
    paths = list(paths)
    large = sorted({block_of(path) for path in paths} - {"ends"})
    names = set(large)
    for path in paths:
        words = path.removeprefix("unet.").split(".")
        names.update(".".join(words[:count]) for count in range(2, len(words) + 1))
    if near := get_close_matches(block, sorted(names), n=3, cutoff=0.6):
        return tr("Did you mean {names}?", names=", ".join(near))
    return tr("There are {names}, and finer ones such as {example}.", names=", ".join(large), example=_finer(paths))


def _finer(paths: Sequence[str]) -> str:
    """An example of a block within a block."""
    words = next((path for path in paths if ".attentions." in path), paths[-1]).removeprefix("unet.").split(".")
    return ".".join(words[:4])
