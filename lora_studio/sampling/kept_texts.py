"""The features of texts that were encoded before: an artist draws the same prompts again and again.

Off until ``enable`` is called for a base model. Kept are those of single texts, so that a text's features do not depend
on what it was encoded with; the text encoders' adapters are part of what they are kept under.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor

from lora_studio.models import Base
from lora_studio.models.overlay import AdapterOverlay
from lora_studio.texts.chunks import Reading

MOST = 64
"""Texts that are kept for a base model: about 0.3 MB each with SDXL in 16 bits."""


class KeptTexts:
    """The features of a base model's texts, the latest ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, dict[str, Tensor]] = OrderedDict()
        self._overlay: ref[AdapterOverlay] | None = None
        """Adapters on the text encoders that some were encoded with."""

    def encode(self, base: Base, texts: Sequence[str], reading: Reading, length: int) -> dict[str, Tensor]:
        """As ``Base.encode_text``."""
        weights = self._weights(base)
        if weights is None:
            return base.encode_text(texts, reading, length)
        keys = [(text, reading, length, base.clip_skip, weights) for text in texts]
        missing = list(dict.fromkeys(key for key in keys if key not in self._kept))
        if missing:
            self._keep(missing, base.encode_text([key[0] for key in missing], reading, length))
        rows = [self._kept[key] for key in keys]
        for key in keys:
            self._kept.move_to_end(key)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _keep(self, keys: Sequence[Any], features: dict[str, Tensor]) -> None:
        for number, key in enumerate(keys):
            self._kept[key] = {name: feature[number : number + 1].clone() for name, feature in features.items()}

    def _weights(self, base: Base) -> tuple[float, ...] | None:
        """The weights of the adapters on the text encoders, empty where there are none; None where texts are encoded
        anew: an adapter trains, or each has weights of its own.
        """
        overlay = base.loaded
        if base.method is not None:
            return None
        if overlay is None or not overlay.enabled or not overlay.reads_texts:
            return ()
        if len(overlay.weights) > 1:
            return None
        if self._overlay is None or self._overlay() is not overlay:
            self._kept.clear()
            self._overlay = ref(overlay)
        return tuple(overlay.weights[0])


_OF: WeakKeyDictionary[Base, KeptTexts] = WeakKeyDictionary()


def enable(base: Base) -> None:
    """Has the features of texts kept from now on, unless they are already."""
    _OF.setdefault(base, KeptTexts())


def disable(base: Base) -> None:
    """Ends what ``enable`` began."""
    _OF.pop(base, None)


def encode(base: Base, texts: Sequence[str], reading: Reading, length: int) -> dict[str, Tensor]:
    """As ``Base.encode_text``, or what was kept of it."""
    found = _OF.get(base)
    return base.encode_text(texts, reading, length) if found is None else found.encode(base, texts, reading, length)
