"""At which layer SD 1.x's text encoder is read, as files say: clip skip 1 is after its last layer, 2 before it."""

from __future__ import annotations

from collections.abc import Sequence

from lora_studio.adapters.adapter import Adapter
from lora_studio.adapters.metadata import clip_skip as declared
from lora_studio.adapters.metadata import common_clip_skip
from lora_studio.events import Warned
from lora_studio.language import ntr, tr
from lora_studio.models.base import Base


def settle(base: Base, wanted: int, adapters: Sequence[tuple[str, Adapter]]) -> list[Warned]:
    """Reads texts as the named ``adapters`` were trained, unless ``wanted``, which is the setting, says otherwise or
    they disagree. Returns what is to be said of those that were trained otherwise, and of those that say nothing and
    follow the others.

    Raises:
        SettingsError: the base model's family has no such clip skip.
    """
    if not base.family.clip_skips:
        base.clip_skip = base.family.clip_skip(wanted, base.declared_clip_skip)
        return []
    trained = {name: value for name, adapter in adapters if (value := declared(adapter.metadata))}
    asked = wanted or common_clip_skip(trained.values(), base.family.clip_skips)
    base.clip_skip = base.family.clip_skip(asked, base.declared_clip_skip)
    told = [
        Warned(
            what=tr(
                "{adapter} was trained with clip skip {trained}, and is drawn with {drawn}.",
                adapter=name,
                trained=value,
                drawn=base.clip_skip,
            ),
            where="clip_skip",
            do=tr("Adapters and base models work best with the clip skip that they were trained with."),
        )
        for name, value in trained.items()
        if value != base.clip_skip
    ]
    alone = base.family.clip_skip(0, base.declared_clip_skip)
    silent = [name for name, _ in adapters if name not in trained]
    if not wanted and silent and base.clip_skip != alone:
        told.append(_following(silent, list(trained), base.clip_skip))
    return told


def _following(silent: Sequence[str], trained: Sequence[str], value: int) -> Warned:
    parts = {"silent": ", ".join(silent), "value": value, "trained": ", ".join(trained)}
    if len(trained) > 1:
        what = ntr(
            len(silent),
            "{silent} states no clip skip, and is drawn with {value} as {trained} were trained.",
            "{silent} state no clip skip, and are drawn with {value} as {trained} were trained.",
            **parts,
        )
    else:
        what = ntr(
            len(silent),
            "{silent} states no clip skip, and is drawn with {value} as {trained} was trained.",
            "{silent} state no clip skip, and are drawn with {value} as {trained} was trained.",
            **parts,
        )
    return Warned(what=what, where="clip_skip", do=tr("Set the clip skip by hand if that is wrong."))
