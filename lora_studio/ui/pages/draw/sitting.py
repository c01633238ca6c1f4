"""What one browser tab sees of the Draw page, besides its adapters."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

_BYTES = 8
"""Of a lane's name."""


@dataclass
class Sitting:
    """What is shown.

    Attributes:
        lane: what the tab draws in; the browser keeps it, so that a reload finds what is drawn.
        turn: counts the handlers that follow the drawing: an older one stops.
        watching: whether the large picture is the one that forms.
        chosen: name of the large picture.
        other: name of the one that it is compared with.
        comparing: whether the next picture that is chosen becomes ``other``.
        beside: whether two pictures stand side by side, rather than one over the other.
        page: of the gallery, counted from 0.
        sheet_wanted: whether a sheet is to be drawn as soon as its fields are filled in.
        starred: whether the gallery shows those with a star alone.
    """

    lane: str = ""
    turn: int = 0
    watching: bool = False
    chosen: str = ""
    other: str = ""
    comparing: bool = False
    beside: bool = False
    page: int = 0
    starred: bool = False
    sheet_wanted: bool = False

    def own_lane(self, kept: object = "") -> str:
        """The tab's lane: that which the browser ``kept``, else a new one."""
        if not self.lane:
            known = isinstance(kept, str) and len(kept) == 2 * _BYTES and kept.isalnum()
            self.lane = str(kept) if known else secrets.token_hex(_BYTES)
        return self.lane

    def choose(self, name: str) -> None:
        """Shows another picture, or compares with it."""
        if self.comparing and self.chosen and name != self.chosen:
            self.other = name
        else:
            self.chosen, self.other = name, ""
        self.comparing = self.watching = False
