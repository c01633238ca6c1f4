"""What a file is, from its keys and shapes: dialect, rank and base family. No torch.

Metadata may lie; it only decides between families that the shapes leave open (an adapter of a text encoder alone
fits both SD 1.5 and SDXL).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

Shape = tuple[int, ...]


class Family(NamedTuple):
    """A base family as files name it."""

    label: str
    version: str
    """``ss_base_model_version`` of the reference trainer."""
    architecture: str
    """``modelspec.architecture``, without ``/lora``."""
    resolution: int


FAMILIES = {
    "starter": Family("the built-in starter", "lora_studio_starter", "lora-studio-starter", 128),
    "sd1": Family("Stable Diffusion 1.5", "sd_v1", "stable-diffusion-v1", 512),
    "sd2": Family("Stable Diffusion 2", "sd_v2_v", "stable-diffusion-v2-768-v", 768),
    "sdxl": Family("Stable Diffusion XL", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base", 1024),
    "unknown": Family("an unknown model", "", "unknown", 0),
}
_KNOWN = ("sd1", "sd2", "sdxl", "starter")
_CONTEXT = {"sd1": 768, "sd2": 1024, "sdxl": 2048}
_ENCODER = {"sd1": 768, "sd2": 1024, "sdxl": 768}
_WIDTHS = {"sd1": (320, 640, 1280, 1280), "sd2": (320, 640, 1280, 1280), "sdxl": (320, 640, 1280)}

_ANCHORS = ("down.weight", "lora_A.weight", "lora_A.default.weight", "hada_w1_b", "lokr_w1", "lokr_w1_b")
"""Endings of keys that every adapted module has one of."""


def label(family: str) -> str:
    """The family's name for people."""
    return FAMILIES.get(family, FAMILIES["unknown"]).label


def dialect(names: Mapping[str, object] | list[str]) -> str:
    """``kohya``, ``diffusers`` or ``peft`` by most of the keys; ``none`` where no key is an adapter's."""
    votes: Counter[str] = Counter()
    for key in names:
        if key.endswith(_ANCHORS):
            votes["kohya" if key.startswith("lora_") else "peft" if key.startswith("base_model.") else "diffusers"] += 1
    return votes.most_common(1)[0][0] if votes else "none"


def rank(module: Mapping[str, Shape]) -> int:
    """The rank of one module's stored factors; 0 where it is not factored."""
    if "down" in module:
        return module["down"][0]
    for role in ("hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if role in module:
            return module[role][0]
    return 0


def weight_shape(module: Mapping[str, Shape]) -> Shape:
    """The shape of the weight that one module's tensors change; () where they do not tell."""
    if module.get("down") and module.get("up"):
        return (
            (module["up"][0], module["down"][1], *module["mid"][2:])
            if "mid" in module
            else (module["up"][0], *module["down"][1:])
        )
    if "hada_w1_a" in module and "hada_w1_b" in module:
        tucker = "hada_t1" in module
        return (module["hada_w1_a"][1 if tucker else 0], module["hada_w1_b"][1], *module.get("hada_t1", ())[2:])
    first, second = _lokr_side(module, "1"), _lokr_side(module, "2")
    return (first[0] * second[0], first[1] * second[1], *second[2:]) if first and second else ()


def _lokr_side(module: Mapping[str, Shape], side: str) -> Shape:
    if whole := module.get(f"lokr_w{side}"):
        return whole
    left, right = module.get(f"lokr_w{side}_a"), module.get(f"lokr_w{side}_b")
    if not (left and right):
        return ()
    return (left[1], right[1], *module["lokr_t2"][2:]) if side == "2" and "lokr_t2" in module else (left[0], right[1])


def family(shapes: Mapping[str, Shape], metadata: Mapping[str, str] | None = None) -> str:
    """The base family that most weights of these shapes at these canonical paths fit; ``unknown`` where none fits more
    than half.
    """
    votes: Counter[str] = Counter()
    for path, shape in shapes.items():
        votes.update(fits(path, tuple(shape)))
    most = max(votes.values(), default=0)
    if 2 * most <= len(shapes):
        return "unknown"
    candidates = [name for name in _KNOWN if votes[name] == most]
    hinted = claimed(metadata or {})
    return hinted if hinted in candidates else candidates[0]


def claimed(metadata: Mapping[str, str]) -> str:
    """The base family that a header claims, which may be a lie; empty where it claims none."""
    version, architecture = metadata.get("ss_base_model_version", ""), metadata.get("modelspec.architecture", "")
    for name in ("sdxl", "sd2", "sd1", "starter"):
        known = FAMILIES[name]
        if version.startswith(
            {"sdxl": "sdxl", "sd2": "sd_v2", "sd1": "sd_v1"}.get(name, known.version)
        ) or architecture.startswith(known.architecture):
            return name
    return ""


@lru_cache(maxsize=2**15)
def fits(path: str, shape: Shape) -> frozenset[str]:
    """The families that have a weight of ``shape`` at ``path``, as far as that one module tells."""
    if not shape:
        return frozenset()
    component, _, rest = path.partition(".")
    if component == "text_encoder_2":
        return frozenset({"sdxl"})
    if component == "text_encoder":
        return frozenset(_by_width(_ENCODER, shape[0] if ".fc1" not in rest else shape[1]))
    return frozenset(_by_topology(rest) & _by_unet_width(rest, shape))


def _by_width(widths: Mapping[str, int], width: int) -> set[str]:
    return {name for name, known in widths.items() if known == width} or (
        {"starter"} if width < min(widths.values()) else set()
    )


def _by_topology(rest: str) -> set[str]:
    """SDXL alone has deep transformers and ``add_embedding``; the others alone have a fourth level and attention in the
    first.
    """
    if rest.startswith("add_embedding") or re.search(r"transformer_blocks\.[1-9]", rest):
        return {"sdxl"}
    if re.match(r"down_blocks\.(0\.attentions|3)|up_blocks\.(2\.attentions|3)", rest):
        return {"sd1", "sd2", "starter"}
    return set(_KNOWN)


def _by_unet_width(rest: str, shape: Shape) -> set[str]:
    """By the context's width where the module reads it, else by its level's channels; the starter is a narrow SD 1.5."""
    if re.search(r"attn2\.to_[kv]$", rest):
        return _by_width(_CONTEXT, shape[1])
    found = set(_KNOWN)
    if re.search(r"\.proj_(in|out)$", rest):
        found -= {"sd2", "sdxl"} if len(shape) == 4 else {"sd1"}
    if not re.search(r"\.(to_q|to_out\.0|proj_in|proj_out|net\.2|conv2|to_k|to_v)$", rest):
        return found
    exact = {name for name in _WIDTHS if shape[0] == _level_width(rest, name)}
    return found & (exact | ({"starter"} if shape[0] < _level_width(rest, "sd1") else set()))


def _level_width(rest: str, family: str) -> int:
    widths = _WIDTHS[family]
    side, _, after = rest.partition("_block")
    if side == "mid":
        return widths[-1]
    level = int(after[2]) if re.match(r"s\.\d", after) else 0
    order = widths if side == "down" else widths[::-1]
    return order[level] if level < len(order) else 0
