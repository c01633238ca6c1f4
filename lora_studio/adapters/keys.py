"""Canonical module paths <-> each dialect's keys, from rules.

A canonical path is the module's path in diffusers' pipeline:
``unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q``,
``text_encoder.text_model.encoder.layers.0.self_attn.q_proj``, ``text_encoder_2.…``. A file's key is a module's *stem*
and a tensor's *role* in it (``down``, ``up``, ``alpha``, …). A stem that spells no layer of any family has no path, so
that adapters of other architectures are never taken for ours.

transformers 5 dropped ``text_model.`` from CLIPTextModel's own paths; canonical paths, like files, have it always.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TypeVar

from lora_studio.adapters.kinds import KINDS
from lora_studio.families import registry
from lora_studio.families.family import Family

T = TypeVar("T")

_ROLES = {
    "down": r"lora_down\.weight|lora_A(?:\.default)?\.weight|lora(?:_linear_layer)?\.down\.weight",
    "up": r"lora_up\.weight|lora_B(?:\.default)?\.weight|lora(?:_linear_layer)?\.up\.weight",
    "mid": r"lora_mid\.weight",
    "alpha": r"alpha",
    "magnitude": r"lora_magnitude_vector(?:\.default)?(?:\.weight)?",
    "{}": r"dora_scale|hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t2|diff(?:_b)?",
}
_ROLE = re.compile("^(.+)\\.(?:" + "|".join(f"(?P<r{i}>{pattern})" for i, pattern in enumerate(_ROLES.values())) + ")$")
_OUTPUT_ROLES = "|".join(re.escape(role) for kind in KINDS.values() if kind.on_outputs for role in sorted(kind.roles))
_ON_OUTPUT = re.compile(rf"^((?:lora|lycoris|oft)_[^.]+)\.({_OUTPUT_ROLES})$")
"""Of output changes, whose roles can be as plain as ``weight``: only after kohya's stems."""
_PROCESSOR = re.compile(r"^(.+)\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight$")
_PEFT = "base_model.model."
_DENOISERS = ("diffusion_model.", "model.diffusion_model.")
"""How ComfyUI and the original trainers begin the denoiser's keys."""
_ENCODERS = {
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
}
"""How ComfyUI begins the text encoders' keys."""
_LYCORIS = "lycoris_"
"""How LyCORIS begins kohya's names where it is used alone; it wraps the denoiser then."""
_OFT = "oft_unet_"
"""How kohya begins an OFT's names of the denoiser's layers."""
_LONGEST = 300
"""Characters of a key; the longest real one has 110."""
_remembered = lru_cache(maxsize=2**15)
"""The files of a library repeat the same names, so the rules run once for each name."""


class _Names:
    """What keys can hold, of all families together."""

    def __init__(self, families: tuple[Family, ...]):
        parts = [(family, component) for family in families for component in family.components]
        denoisers = list(dict.fromkeys(family.denoiser for family in families))
        self.kohya = [
            *dict.fromkeys((family.kohya_prefix(component), component) for family, component in parts),
            *((prefix, denoiser) for prefix in (_LYCORIS, _OFT) for denoiser in denoisers),
        ]
        """How kohya's keys begin -> component."""
        self.dotted = [
            *dict.fromkeys((f"{component}.", component) for _, component in parts),
            *((prefix, denoiser) for prefix in _DENOISERS for denoiser in denoisers),
            *_ENCODERS.items(),
        ]
        """The same of the dialects that keep the dots."""
        words = "|".join(dict.fromkeys(family.words for family in families if family.words))
        self.word = re.compile(rf"(?:{words}|[^_]+)(?=_|$)")
        """A part of a kohya name. These words contain an underscore; every other underscore replaces a dot."""
        self.roots = {root: family.denoiser for family in reversed(families) for root in family.roots}
        self.modules = frozenset(path for family in families for path in family.modules)
        self.unlisted = tuple(f"{part}." for family in families if not family.modules for part in family.components)
        """Components of families whose layers are not known."""

    def has(self, path: str) -> bool:
        """Whether a model of any family has a layer at the canonical path ``path``, as far as that is known."""
        return path in self.modules or path.startswith(self.unlisted)


@lru_cache(maxsize=4)
def _names(families: tuple[Family, ...]) -> _Names:
    return _Names(families)


@_remembered
def split(key: str) -> tuple[str, str] | None:
    """A file's key as (stem, role); None if it is not an adapter tensor that the studio knows."""
    if old := _PROCESSOR.match(key):
        stem, target, role = old.groups()
        return f"{stem}.{target}" + (".0" if target == "to_out" else ""), role
    if on_output := _ON_OUTPUT.match(key):
        return on_output[1], on_output[2]
    if not (match := _ROLE.match(key)):
        return None
    role = list(_ROLES)[next(i for i in range(len(_ROLES)) if match[f"r{i}"])]
    return match[1], key[len(match[1]) + 1 :] if role == "{}" else role


def canonical(path: str) -> str:
    """``path`` of a live module, with the ``text_model.`` that transformers 5 has dropped."""
    return re.sub(r"^(text_encoder(?:_2)?\.)(?=(?:encoder|embeddings|final_layer_norm)\.)", r"\1text_model.", path)


def path_of(stem: str, component: str = "") -> str | None:
    """The canonical path of a stem of any dialect; None if it spells no layer of any family.

    Args:
        component: what a stem without a component belongs to.
    """
    return _path_of(stem, component, registry.FAMILIES)


@_remembered
def _path_of(stem: str, component: str, families: tuple[Family, ...]) -> str | None:
    names = _names(families)
    return next(filter(names.has, _spelled(stem, component, names)), None)


def _spelled(stem: str, component: str, names: _Names) -> Iterator[str]:
    """Every path that ``stem`` may spell."""
    for prefix, part in names.kohya:
        if stem.startswith(prefix) and (path := _from_kohya(part, stem[len(prefix) :], names.word)):
            yield path
    stem = stem.removeprefix(_PEFT)
    for prefix, part in names.dotted:
        if stem.startswith(prefix):
            yield _placed(part, stem[len(prefix) :])
    if re.match(r"(?:text_model|encoder|text_projection)(?:\.|$)", stem):
        yield _placed(component or "text_encoder", stem)
    elif denoiser := names.roots.get(stem.partition(".")[0]):
        yield _placed(denoiser, stem)


def _placed(component: str, rest: str) -> str:
    """The path of ``rest`` in ``component``, without the wrappers that peft and trainers leave in names."""
    while (inner := rest.removeprefix(_PEFT).removeprefix(f"{component}.")) != rest:
        rest = inner
    return f"unet.{from_ldm(rest)}" if component == "unet" else canonical(f"{component}.{rest}")


def _from_kohya(component: str, name: str, word: re.Pattern[str]) -> str | None:
    path = ".".join(word.findall(name))
    return _placed(component, path) if path.replace(".", "_") == name else None


def collect(tensors: Mapping[str, T], component: str = "") -> tuple[dict[str, dict[str, T]], list[str]]:
    """A file's tensors (or their shapes) as {canonical path: {role: tensor}}, and the keys that are no adapter's for
    any family.
    """
    modules: dict[str, dict[str, T]] = {}
    unknown = []
    for key, value in tensors.items():
        stem, role = (split(key) if len(key) <= _LONGEST else None) or ("", "")
        path = path_of(stem, component)
        if path is None or role in modules.get(path, {}):
            unknown.append(key)
        else:
            modules.setdefault(path, {})[role] = value
    return modules, unknown


def to_kohya(path: str, family: str) -> str:
    """The kohya stem of a canonical path in an adapter for ``family``."""
    component, _, rest = path.partition(".")
    known = registry.named(family)
    if known and known.original_keys and component == known.denoiser:
        rest = to_ldm(rest, family)
    return registry.kohya_prefix(component, family) + rest.replace(".", "_")


def to_diffusers(path: str) -> str:
    """diffusers' stem of a canonical path: the path itself."""
    return path


def to_peft(path: str) -> str:
    """peft's stem of a canonical path, within its component's own folder.

    peft matches the names of live modules exactly, so CLIPTextModel's are without ``text_model.``, as in transformers
    5; the class of the second encoder still has it.
    """
    return (
        _PEFT + path.removeprefix("text_encoder.text_model.")
        if path.startswith("text_encoder.")
        else _PEFT + path.partition(".")[2]
    )


# The original UNet layout (ldm for SD, sgm for SDXL): every level has two layers and a sampler, so three numbers a
# level.
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """``name`` with its beginning replaced as in ``table``."""
    for old, new in table.items():
        if name == old or name.startswith(old + "."):
            return new + name[len(old) :]
    return name


def _inverse(table: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in table.items()}


def to_ldm(path: str, family: str) -> str:
    """A UNet path (without ``unet.``) in the original layout's names, below ``model.diffusion_model.``."""
    if match := re.match(r"mid_block\.((?:resnets|attentions)\.\d)(?:\.(.+))?$", path):
        return _joined("middle_block." + _MIDDLE[match[1]], match[1], match[2])
    if match := re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions)\.(\d)(?:\.(.+))?$", path):
        side, level, kind, layer, rest = match.groups()
        number = 3 * int(level) + int(layer) + (side == "down")
        return _joined(
            f"{'input' if side == 'down' else 'output'}_blocks.{number}.{int(kind == 'attentions')}", kind, rest
        )
    if match := re.match(r"down_blocks\.(\d)\.downsamplers\.0\.conv(.*)$", path):
        return f"input_blocks.{3 * int(match[1]) + 3}.0.op{match[2]}"
    if match := re.match(r"up_blocks\.(\d)\.upsamplers\.0\.conv(.*)$", path):
        known = registry.named(family) or registry.FAMILIES[0]
        has_attention = f"unet.up_blocks.{match[1]}.attentions.0.proj_in" in known.modules
        return f"output_blocks.{3 * int(match[1]) + 2}.{1 + has_attention}.conv{match[2]}"
    return _renamed(path, _ENDS)


def _joined(place: str, kind: str, rest: str | None) -> str:
    if rest is None:
        return place
    return f"{place}.{_renamed(rest, _RESNET) if kind.startswith('resnets') else rest}"


def from_ldm(path: str) -> str:
    """The inverse of ``to_ldm``; paths in diffusers' own names pass unchanged."""
    if match := re.match(r"middle_block\.(\d)(?:\.(.+))?$", path):
        place = _inverse(_MIDDLE).get(match[1], match[1])
        return _parted(f"mid_block.{place}", place, match[2])
    if path == "input_blocks.0.0" or path.startswith("input_blocks.0.0."):
        return _renamed(path, {"input_blocks.0.0": "conv_in"})
    if match := re.match(r"(input|output)_blocks\.(\d+)\.(\d)(?:\.(.+))?$", path):
        side, number, slot, rest = match.groups()
        level, layer = divmod(int(number) - (side == "input"), 3)
        block = f"{'down' if side == 'input' else 'up'}_blocks.{level}"
        if side == "input" and layer == 2:
            return f"{block}.downsamplers.0.{_renamed(rest or '', {'op': 'conv'})}"
        if side == "output" and (rest == "conv" or (rest or "").startswith("conv.")):
            return f"{block}.upsamplers.0.{rest}"
        kind = "attentions" if slot == "1" else "resnets"
        return _parted(f"{block}.{kind}.{layer}", kind, rest)
    return _renamed(path, _inverse(_ENDS))


def _parted(place: str, kind: str, rest: str | None) -> str:
    if rest is None:
        return place
    return f"{place}.{_renamed(rest, _inverse(_RESNET)) if kind.startswith('resnets') else rest}"
