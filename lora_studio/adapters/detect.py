"""What a file is, from its keys and shapes: dialect, rank and base family. No torch.

Metadata may lie; it only decides between families that the shapes leave open (an adapter of a text encoder alone
fits both SD 1.5 and SDXL).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from lora_studio.adapters.kinds import KINDS
from lora_studio.families import registry
from lora_studio.families.layout import Shape

_ANCHORS = (
    *("down.weight", "lora_A.weight", "lora_A.default.weight", "hada_w1_b", "lokr_w1", "lokr_w1_b", ".diff"),
    *(f".{role}" for kind in KINDS.values() if kind.on_outputs for role in kind.roles if role != "weight"),
)
"""Endings of keys that every adapted module has one of."""
_ORIGINAL = re.compile(r"\b(?:(?:input|output)_blocks|middle_block)\.")


def label(family: str) -> str:
    """The family's name for people."""
    return registry.title_of(family)


def heading(family: str) -> str:
    """The same by itself: without an article, and with a capital."""
    return registry.heading_of(family)


def dialect(names: Mapping[str, object] | list[str]) -> str:
    """``kohya``, ``diffusers``, ``peft``, or ``original`` (the original trainers' block names with their dots), by most
    of the keys; ``none`` where no key is an adapter's.
    """
    votes: Counter[str] = Counter()
    for key in names:
        if key.endswith(_ANCHORS):
            votes[_dialect(key)] += 1
    return votes.most_common(1)[0][0] if votes else "none"


def _dialect(key: str) -> str:
    if key.startswith(("lora_", "lycoris_", "oft_")):
        return "kohya"
    if key.startswith(("diffusion_model.", "model.diffusion_model.", "text_encoders.")) or _ORIGINAL.search(key):
        return "original"
    return "peft" if key.startswith("base_model.") else "diffusers"


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
    if "diff" in module:
        return module["diff"]
    if len(rows := module.get("prefix_keys", module.get("prefix_values", ()))) == 2:
        return (rows[1], 0)
    if len(blocks := module.get("oft_blocks", ())) == 3:
        return (blocks[0] * blocks[1], 0)
    if up := module.get("bottleneck_up"):
        return (up[0], 0)
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


def family(shapes: Mapping[str, Shape], metadata: Mapping[str, str] | None = None, flat: Collection[str] = ()) -> str:
    """The base family that most weights of these shapes at these canonical paths fit; ``unknown`` where none fits more
    than half.

    Args:
        flat: the paths where (out, in) can be a 1×1 convolution's shape.
    """
    votes: Counter[str] = Counter()
    for path, shape in shapes.items():
        fitting = registry.families_with(path, tuple(shape))
        votes.update(fitting | registry.families_with(path, (*shape, 1, 1)) if path in flat and shape[1:] else fitting)
    most = max(votes.values(), default=0)
    if 2 * most <= len(shapes):
        return registry.UNKNOWN
    candidates = [known.name for known in registry.FAMILIES if votes[known.name] == most]
    hinted = claimed(metadata or {})
    return hinted if hinted in candidates else candidates[0]


def family_of_words(shapes: Mapping[str, Shape], metadata: Mapping[str, str]) -> str:
    """``family`` of a file of learned words, by ``embedding.shapes``; of narrow models the header's own claim."""
    found = family(shapes, metadata)
    return found if found != registry.UNKNOWN else claimed(metadata) or found


def family_of(modules: Mapping[str, Mapping[str, Shape]], metadata: Mapping[str, str]) -> str:
    """``family`` of a file, by the shapes of its tensors by path and role. LoHa and LoKr store a convolution's change
    as a linear layer's.
    """
    shapes = {path: weight_shape(module) or _scaled(path, module) for path, module in modules.items()}
    return family(shapes, metadata, [path for path, module in modules.items() if "down" not in module])


def _scaled(path: str, module: Mapping[str, Shape]) -> Shape:
    """The shape of the weight at ``path`` of which the vector of an (IA)³ multiplies the outputs, else the inputs: that
    stands in the file's numbers. () of any other module.
    """
    if "on_input" not in module or "weight" not in module:
        return ()
    length = max(module["weight"], default=0)
    return (length, 0) if registry.families_with(path, (length, 0)) else (0, length)


def kernels(family: str) -> dict[str, Shape]:
    """The kernel of every layer of the family, by canonical path: (kh, kw), or () of a linear layer."""
    known = registry.named(family)
    return {path: shape[2:] for path, shape in known.modules.items()} if known else {}


def told(metadata: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """A header, completed by the family that the file's keys alone tell where the header claims none: ``lora_te1_``
    is SDXL's.
    """
    if claimed(metadata):
        return dict(metadata)
    owners: dict[str, list[str]] = {}
    for one in registry.FAMILIES:
        for component in one.components:
            owners.setdefault(one.kohya_prefix(component), []).append(one.version)
    own = {prefix: versions[0] for prefix, versions in owners.items() if len(versions) == 1}
    found = next((own[prefix] for name in names for prefix in own if name.startswith(prefix)), "")
    return {**metadata, "ss_base_model_version": found} if found else dict(metadata)


def claimed(metadata: Mapping[str, str]) -> str:
    """The base family that a header claims, which may be a lie; empty where it claims none."""
    return registry.claimed(metadata.get("ss_base_model_version", ""), metadata.get("modelspec.architecture", ""))
