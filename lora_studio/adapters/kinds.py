"""The kinds of adapter files, by how they store a change. No torch.

A kind is not a training method: a PiSSA is trained otherwise than a LoRA and stored as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple


class Kind(NamedTuple):
    """One kind."""

    name: str
    """As listings and ``--json`` have it."""
    title: str
    """For people."""
    roles: frozenset[str] = frozenset()
    """Tensors of a module (see ``keys``) of which no other kind has any."""
    needs_base: bool = False
    """Whether its change depends on the base model's weights: without them it can be neither added to others, nor
    resized, nor exported as a LoRA.
    """


LORA = Kind("lora", "LoRA")
LOCON = Kind("locon", "LoRA with convolutions", frozenset({"mid"}))
DORA = Kind("dora", "DoRA", frozenset({"magnitude", "dora_scale"}), needs_base=True)
LOHA = Kind("loha", "LoHa", frozenset({"hada_w1_a"}))
LOKR = Kind("lokr", "LoKr", frozenset({"lokr_w1", "lokr_w1_a"}))
FULL = Kind("full", "full difference", frozenset({"diff"}))
KINDS = {kind.name: kind for kind in (DORA, LOHA, LOKR, FULL, LOCON, LORA)}
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
