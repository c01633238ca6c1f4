"""What one browser tab sees of the library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lora_studio.language import tr

MOST_SHOWN = 48
"""Cards that are drawn at first, and with each press of "Show more"."""
ORDERS = {
    "newest": tr("Newest first"),
    "style": tr("Most style first"),
    "name": tr("By name"),
    "size": tr("Largest first"),
}
"""How the cards can be sorted, with labels."""


@dataclass
class Look:
    """The search, the order, and the adapter that is chosen."""

    words: str = ""
    states: bool = False
    """Whether the saved states of runs are among the cards."""
    order: str = "newest"
    """Of ``ORDERS``."""
    most: int = MOST_SHOWN
    chosen: str = ""
    """Key of the adapter whose details are shown."""


def while_chosen(look: Look, updates: Iterator[Any]) -> Iterator[Any]:
    """``updates`` about the chosen adapter; no change once another one is chosen."""
    chosen = look.chosen
    for update in updates:
        yield update if look.chosen == chosen else gr.skip()
