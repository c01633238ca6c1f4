"""At which layer SD 1.x's text encoder is read, as files say: clip skip 1 is after its last layer, 2 before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lora_studio.adapters.adapter import Adapter
from lora_studio.events import Warned
from lora_studio.models.base import Base

_ENTRIES = ("ss_clip_skip", "modelspec.encoder_layer")
"""sd-scripts writes both, the second into checkpoints too (its ``library/sai_model_spec.py``)."""


def declared(metadata: Mapping[str, str]) -> int:
    """The clip skip in the header of a checkpoint or adapter; 0 where there is none."""
    values = [metadata.get(entry, "").strip() for entry in _ENTRIES]
    return next((int(value) for value in values if value in {str(layer) for layer in range(1, 13)}), 0)


def settle(base: Base, wanted: int, adapters: Sequence[tuple[str, Adapter]]) -> list[Warned]:
    """Reads texts as the named ``adapters`` were trained, unless ``wanted``, which is the setting, says otherwise or
    they disagree. Returns what is to be said of those that were trained otherwise.
    """
    if not base.family.clip_skips:
        return []
    trained = {name: value for name, adapter in adapters if (value := declared(adapter.metadata))}
    common = next(iter(set(trained.values()))) if len(set(trained.values())) == 1 else 0
    asked = wanted or (common if common in base.family.clip_skips else 0)
    base.clip_skip = base.family.clip_skip(asked, base.declared_clip_skip)
    return [
        Warned(
            what=f"{name} was trained with clip skip {value}, and is drawn with {base.clip_skip}.",
            where="clip_skip",
            do="Adapters and base models work best with the clip skip that they were trained with.",
        )
        for name, value in trained.items()
        if value != base.clip_skip
    ]
