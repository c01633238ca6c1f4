"""The kinds of adapter files, by how they store a change. No torch.

A kind is not a training method: a PiSSA is trained otherwise than a LoRA and stored as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Literal, NamedTuple

from lora_studio.language import tr


class Kind(NamedTuple):
    """One kind."""

    name: str
    """As listings and ``--json`` have it."""
    title: str
    """For people."""
    a_title: str
    """The same with its article."""
    roles: frozenset[str] = frozenset()
    """Tensors of a module (see ``keys``) of which no other kind has any."""
    needs_base: bool = False
    """Whether its change depends on the base model's weights: without them it can be neither added to others, nor
    resized, nor exported as a LoRA.
    """
    on_outputs: bool = False
    """Whether it is held as an ``OutputChange``. Its roles are all that a file has of it but ``alpha``."""

    readers: tuple[str, ...] = ()
    """The programs, of ``proof.TARGETS``, that read it from a kohya file in a form of its own. Of plain factors, which
    have none, empty.
    """

    algorithm: str = ""
    """LyCORIS' name of it, for the header of its file; empty of what is not LyCORIS'."""

    @property
    def changes_weights(self) -> bool:
        """Whether it is a change of weights, given those that it ``needs_base`` for; if not, it bends what layers
        answer. Words, which change none, count as one.
        """
        return self.needs_base or not self.on_outputs


LORA = Kind("lora", "LoRA", tr("a LoRA"))
LOCON = Kind("locon", "LoRA with convolutions", tr("a LoRA with convolutions"), frozenset({"mid"}))
DORA = Kind("dora", "DoRA", tr("a DoRA"), frozenset({"magnitude", "dora_scale"}), True, readers=("comfyui", "forge"))
WEB_UIS = ("comfyui", "forge", "a1111")
"""The programs with pages of their own, which read kohya's format."""
LOHA = Kind("loha", "LoHa", tr("a LoHa"), frozenset({"hada_w1_a"}), readers=WEB_UIS, algorithm="loha")
LOKR = Kind("lokr", "LoKr", tr("a LoKr"), frozenset({"lokr_w1", "lokr_w1_a"}), readers=WEB_UIS, algorithm="lokr")
EMBEDDING = Kind("embedding", "Embedding", tr("an Embedding"))
"""Learned words alone."""
FULL = Kind("full", "full difference", tr("a full difference"), frozenset({"diff"}), readers=WEB_UIS, algorithm="full")
OFT = Kind("oft", "OFT", tr("an OFT"), frozenset({"oft_blocks"}), True, True, ("comfyui", "a1111"), "diag-oft")
IA3 = Kind("ia3", "(IA)³", tr("an (IA)³"), frozenset({"weight", "on_input"}), True, True, ("a1111",), "ia3")
PREFIX = Kind("prefix", "prefix", tr("a prefix"), frozenset({"prefix_keys", "prefix_values"}), on_outputs=True)
BOTTLENECK = Kind(
    "adapter-layers",
    "set of adapter layers",
    tr("a set of adapter layers"),
    frozenset({"bottleneck_down", "bottleneck_down_bias", "bottleneck_up", "bottleneck_up_bias"}),
    on_outputs=True,
)
KINDS = {kind.name: kind for kind in (DORA, LOHA, LOKR, FULL, OFT, IA3, PREFIX, BOTTLENECK, LOCON, EMBEDDING, LORA)}
"""By name, in the order in which ``of`` tries them."""


def of(modules: Mapping[str, Mapping[str, object]]) -> Kind:
    """The kind of an adapter by its modules' tensors, or their shapes, by role. A LoCon has a middle factor or a wide
    convolution.
    """
    roles = {role for module in modules.values() for role in module}
    for kind in KINDS.values():
        if kind.roles & roles:
            return kind
    shapes = [shape for module in modules.values() if isinstance(shape := module.get("down"), tuple)]
    return LOCON if any(len(shape) == 4 and prod(shape[2:]) > 1 for shape in shapes) else LORA


Form = Literal["own", "lora", "full"]
"""What an export writes: the adapter's own kind, a plain LoRA, or the full difference ΔW."""
PLAIN_READERS: dict[str, tuple[str, ...]] = {
    "kohya": ("comfyui", "forge", "a1111", "diffusers"),
    "diffusers": ("diffusers",),
    "peft": ("peft",),
}
"""Dialect -> the programs that are meant to read a plain LoRA in it."""


def usual_form(kind: Kind, dialect: str) -> Form:
    """What an export writes unless another form is asked for: a plain LoRA, which every program reads, but for kinds
    that need no base model and are smaller as they are.
    """
    return "own" if kind.readers and not kind.needs_base and dialect == "kohya" else "lora"


def readers_of(kind: Kind, dialect: str, form: Form) -> tuple[str, ...]:
    """The programs that read that form of an adapter of that kind."""
    if dialect != "kohya" or form == "lora" or not kind.readers:
        return PLAIN_READERS[dialect]
    return kind.readers if form == "own" else FULL.readers
