"""What a training picture shows: one to three icons, how large, where, in which colour and before which background.

A scene is drawn first; `captions.py` says it in words, `composed.py` paints it. Only the standard library is needed.
Lengths are in half pictures, right and down from the middle, as in `pictures.layer`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .names import BACKGROUNDS, prominence, words

COLOURS = {
    "red": (216, 50, 46), "orange": (242, 138, 38), "yellow": (250, 212, 60), "green": (76, 170, 78),
    "blue": (58, 118, 214), "purple": (142, 80, 184), "pink": (248, 150, 192), "brown": (128, 84, 54),
    "black": (44, 44, 50), "gray": (146, 148, 152),
}  # fmt: skip
"""Colour word of a subject -> the sRGB colour, 0 to 255, that its main colour is turned into."""

MEASURED = tuple(COLOURS)[:8]
"""The colour words that hue and lightness tell apart on white paper."""

_SKY, _WALL = ((150, 200, 240), (215, 236, 250)), ((250, 248, 244), (238, 232, 224))
GROUNDS: dict[str, tuple[tuple[tuple[int, int, int], tuple[int, int, int]], tuple[int, int, int] | None, bool]] = {
    "table": (_WALL, (164, 112, 70), True),
    "line": (((255, 255, 255), (255, 255, 255)), (255, 255, 255), True),
    "floor": (_WALL, (196, 176, 152), False),
    "grass": (_SKY, (120, 186, 90), False),
    "sand": (_SKY, (238, 214, 160), False),
    "snow": (((176, 206, 234), (222, 234, 246)), (248, 250, 254), False),
    "sky": (((96, 168, 232), (200, 230, 250)), None, False),
    "night": (((16, 22, 56), (44, 56, 104)), None, False),
}
"""Ground -> colours of the background at its top and bottom, colour of the ground, whether a dark line edges it."""

SIDES = {
    "left": (-1.0, 0.0), "right": (1.0, 0.0), "top": (0.0, -1.0), "bottom": (0.0, 1.0),
    "top left": (-1.0, -1.0), "top right": (1.0, -1.0), "bottom left": (-1.0, 1.0), "bottom right": (1.0, 1.0),
}  # fmt: skip
"""Place -> its direction from the middle."""

Spot = tuple[float, float, float, float]
"""Scale (1 fills the picture), x, y and angle in radians of one icon."""


@dataclass(frozen=True)
class IconScene:
    """One training picture. `icons`: rows of the index, one per spot; `subjects`: one, or the two of a pair."""

    icons: tuple[int, ...]
    spots: tuple[Spot, ...]
    subjects: tuple[str, ...]
    style: str
    size: str = ""
    place: str = ""
    relation: str = ""
    colours: tuple[str, ...] = ("",)
    ground: str = ""
    paper: tuple[str, ...] = ("white",)
    horizon: float = 2.0


class Scenes:
    """Draws scenes from the index entries of some icons. `paintable`: rows whose main colour can be changed."""

    def __init__(self, index: Sequence[Mapping[str, str]], rows: Sequence[int], paintable: set[int]):
        self.index = index
        self.paintable = {i for i in paintable if uncoloured(index[i]["subject"])}
        self.by_style: dict[str, list[int]] = {}
        for i in rows:
            self.by_style.setdefault(index[i]["style"], []).append(i)
        self.weights = {style: [prominence(index[i]["subject"]) for i in some] for style, some in self.by_style.items()}

    def draw(self, row: int, draw: random.Random, composed: float = 0.55) -> IconScene:
        """A scene around one icon: plain, or with probability `composed` of any other kind."""
        kind = "plain"
        if draw.random() < composed:
            kind = draw.choices(("one", "two", "three", "pair"), (5.5, 1.3, 0.9, 2.3))[0]
        return {"plain": self._plain, "one": self._one, "pair": self._pair}.get(kind, self._several)(row, draw, kind)

    def _style(self, row: int) -> str:
        return self.index[row]["style"]

    def _subject(self, row: int) -> str:
        return self.index[row]["subject"]

    def _colour(self, row: int, draw: random.Random, chance: float) -> str:
        """A colour word for an icon that can be painted, or none."""
        return draw.choice([*COLOURS]) if row in self.paintable and draw.random() < chance else ""

    def _plain(self, row: int, draw: random.Random, _: str) -> IconScene:
        paper = (draw.choice([*BACKGROUNDS]),) if draw.random() < 0.2 else ("white",)
        spots = (_free(draw.uniform(0.74, 1.02), draw),)
        return IconScene((row,), spots, (self._subject(row),), self._style(row), paper=paper)

    def _one(self, row: int, draw: random.Random, _: str) -> IconScene:
        """One icon with at least one of colour, size, place and ground."""
        colour = size = place = ground = ""
        while not (colour or size or place or ground):
            colour = self._colour(row, draw, 0.5)
            size = draw.choice(("small", "small", "large")) if draw.random() < 0.3 else ""
            place = draw.choice([*SIDES][: draw.choice((4, 8))]) if size != "large" and draw.random() < 0.22 else ""
            ground = draw.choice([*GROUNDS, "table"]) if draw.random() < 0.32 else ""
        horizon = draw.uniform(0.2, 0.55) if ground and GROUNDS[ground][1] else 2.0
        spot = _spot(size, place, horizon, draw)
        return IconScene(
            (row,), (spot,), (self._subject(row),), self._style(row), size, place, "", (colour,), ground,
            ("white",) if ground else _paper(draw), horizon,
        )  # fmt: skip

    def _several(self, row: int, draw: random.Random, kind: str) -> IconScene:
        """Two or three of one icon."""
        ground = draw.choice([*GROUNDS]) if draw.random() < 0.25 else ""
        horizon = draw.uniform(0.2, 0.5) if ground and GROUNDS[ground][1] else 2.0
        count = 2 if kind == "two" else 3
        spots = _row(count, horizon, draw) if horizon < 1 or draw.random() < 0.6 else _cluster(count, draw)
        colours = (self._colour(row, draw, 0.12),)
        paper = ("white",) if ground else _paper(draw)
        return IconScene(
            (row,) * count, spots, (self._subject(row),), self._style(row), "", "", "", colours, ground, paper, horizon
        )

    def _pair(self, row: int, draw: random.Random, _: str) -> IconScene:
        """Two icons of one style, side by side or one above the other."""
        style = self._style(row)
        other = row
        while self._subject(other) == self._subject(row):
            other = draw.choices(self.by_style[style], self.weights[style])[0]
        relation = "above" if draw.random() < 0.15 else "beside"
        ground = draw.choice([*GROUNDS]) if relation == "beside" and draw.random() < 0.2 else ""
        horizon = draw.uniform(0.2, 0.5) if ground and GROUNDS[ground][1] else 2.0
        spots = _row(2, horizon, draw)
        if relation == "above":
            spots = tuple((scale, y, x, angle) for scale, x, y, angle in spots)
        colours = (self._colour(row, draw, 0.08), self._colour(other, draw, 0.08))
        subjects = (self._subject(row), self._subject(other))
        paper = ("white",) if ground else _paper(draw)
        return IconScene((row, other), spots, subjects, style, "", "", relation, colours, ground, paper, horizon)


def uncoloured(subject: str) -> list[str]:
    """The names of a subject that hold no colour word, so that another colour can stand before them."""
    known = {*COLOURS, *BACKGROUNDS, "white", "golden", "dark"}
    return [name for name in words(subject) if not known & set(name.split())]


def _paper(draw: random.Random) -> tuple[str, ...]:
    """White mostly; else one background word, or the two of a gradient."""
    if draw.random() < 0.8:
        return ("white",)
    return tuple(draw.sample([*BACKGROUNDS], 2 if draw.random() < 0.4 else 1))


def _angle(draw: random.Random) -> float:
    return draw.uniform(-0.05, 0.05)


def _free(scale: float, draw: random.Random, reach: float = 1.0) -> Spot:
    """Anywhere that an icon of this scale fits, up to `reach` from the middle."""
    room = min(max(1 - scale, 0.03), reach)
    return scale, draw.uniform(-room, room), draw.uniform(-room, room), _angle(draw)


def _spot(size: str, place: str, horizon: float, draw: random.Random) -> Spot:
    """Where one icon of a size stands: at a place, on the ground, or about the middle."""
    low, high = {"small": (0.28, 0.46), "large": (1.0, 1.15)}.get(size, (0.34, 0.55) if place else (0.6, 1.0))
    if horizon < 1:
        low, high = {"small": (0.28, 0.44), "large": (0.82, 0.95)}.get(size, (0.36, 0.5) if place else (0.52, 0.72))
    scale = draw.uniform(low, high)
    _, x, y, angle = _free(scale, draw, 0.2)
    if place:
        room, (right, down) = (1 - scale) * draw.uniform(0.85, 1.0), SIDES[place]
        x, y = right * room or x, down * room or y
    return scale, x, _standing(scale, horizon, draw) if horizon < 1 else y, angle


def _standing(scale: float, horizon: float, draw: random.Random) -> float:
    """The middle of an icon whose foot is a little below the horizon; a high one reaches further down."""
    return max(horizon + draw.uniform(0.04, 0.2) - 0.93 * scale, scale - 1)


def _row(count: int, horizon: float, draw: random.Random) -> tuple[Spot, ...]:
    """Icons of one scale side by side."""
    scale = draw.uniform(0.41, 0.5) if count == 2 else draw.uniform(0.28, 0.34)
    step = 2 / count * draw.uniform(0.94, 1.0)
    y = _standing(scale, horizon, draw) if horizon < 1 else draw.uniform(-0.15, 0.15)
    middle = (count - 1) / 2
    return tuple((scale, (k - middle) * step, y + draw.uniform(-0.02, 0.02), _angle(draw)) for k in range(count))


def _cluster(count: int, draw: random.Random) -> tuple[Spot, ...]:
    """Two on a diagonal, or three as a triangle."""
    scale, turn = draw.uniform(0.4, 0.46), draw.choice((-1.0, 1.0))
    places = [(-0.5, -0.45 * turn), (0.5, 0.45 * turn)]
    if count == 3:
        places = [(0.0, -0.48 * turn), (-0.5, 0.48 * turn), (0.5, 0.48 * turn)]
    return tuple((scale, x, y, _angle(draw)) for x, y in places)
