"""From the colours that a file declares to sRGB (IEC 61966-2-1).

A colour space here is four chromaticities and a curve. Numbers are those of ITU-T H.273 (07/2024), tables 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from lora_studio.language import tr

_ROWS = 256
"""Rows that are converted at once, so that a large picture needs little memory."""
_NEARLY = 0.05
"""Gammas that differ by less are the same, as for libpng: 1/2.2 means sRGB to the programs that write it."""
_SRGB_GAMMA = 1 / 2.2

Point = tuple[float, float]


class Chromaticities(NamedTuple):
    """(x, y) of CIE 1931."""

    white: Point
    red: Point
    green: Point
    blue: Point

    @property
    def possible(self) -> bool:
        """Whether red, green and blue span a triangle that holds white."""
        if not all(0 <= x <= 1 and 0 < y <= 1 for x, y in self):
            return False
        columns = _columns(self)
        return bool(abs(np.linalg.det(columns)) > 1e-3 and (np.linalg.solve(columns, _white(self)) > 0).all())


@dataclass(frozen=True)
class ColourSpace:
    """RGB of certain ``primaries``, made linear by ``curve``: (256,) float64 of [0, 1] -> [0, 1]. ``why_not`` names a
    space that has no right sRGB.
    """

    primaries: Chromaticities
    curve: Callable[[np.ndarray], np.ndarray]
    why_not: str = ""

    def with_primaries(self, primaries: Chromaticities | None) -> ColourSpace:
        """With other primaries; as it is for None."""
        return replace(self, primaries=primaries) if primaries else self

    def with_gamma(self, gamma: float) -> ColourSpace:
        """With the curve of a PNG's gAMA, sample = light ** gamma; as it is for 0, and for sRGB's usual 1/2.2."""
        if not gamma or (abs(gamma / _SRGB_GAMMA - 1) < _NEARLY and _close(self.primaries, _BT709)):
            return self
        return replace(self, curve=_power(1 / gamma))

    @property
    def is_srgb(self) -> bool:
        """Whether pictures stay as they are."""
        return not self.why_not and self.curve is _srgb_to_light and _close(self.primaries, _BT709)


def to_srgb(image: Image.Image, space: ColourSpace) -> Image.Image:
    """An L or RGB image of the colours ``space`` as RGB in sRGB. Colours that sRGB does not have are clipped."""
    image = image.convert("RGB")
    if space.is_srgb:
        return image
    light = space.curve(np.arange(256) / 255).astype(np.float32)
    matrix = (np.linalg.inv(_to_xyz(_BT709)) @ _adapted(space.primaries)).astype(np.float32)
    pixels = np.array(image)
    for start in range(0, len(pixels), _ROWS):
        linear = (light[pixels[start : start + _ROWS]] @ matrix.T).clip(0, 1)
        pixels[start : start + _ROWS] = (_light_to_srgb(linear) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(pixels)


def from_cicp(primaries: int, transfer: int, narrow: bool = False) -> ColourSpace:
    """The colour space of two code points of ITU-T H.273. Unspecified ones (2) and reserved ones mean sRGB.

    Args:
        narrow: RGB samples leave room below and above, as in video.
    """
    why_not = _HDR.get(transfer, "")
    if narrow and not why_not:
        why_not = tr("narrow-range RGB, as of video")
    return ColourSpace(_PRIMARIES.get(primaries, _BT709), _CURVES.get(transfer, _srgb_to_light), why_not)


def _srgb_to_light(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _light_to_srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.power(light, np.float32(1 / 2.4)) - 0.055)


def _bt709_to_light(value: np.ndarray) -> np.ndarray:
    return np.where(value < 0.081, value / 4.5, ((value + 0.099) / 1.099) ** (1 / 0.45))


def _smpte240_to_light(value: np.ndarray) -> np.ndarray:
    return np.where(value < 0.0912, value / 4, ((value + 0.1115) / 1.1115) ** (1 / 0.45))


def _smpte428_to_light(value: np.ndarray) -> np.ndarray:
    return (value**2.6 * 52.37 / 48).clip(0, 1)


def _power(exponent: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda value: value**exponent


def _to_xyz(primaries: Chromaticities) -> np.ndarray:
    """(3, 3): linear RGB -> XYZ, where RGB (1, 1, 1) has the white point (SMPTE RP 177)."""
    columns = _columns(primaries)
    return columns * np.linalg.solve(columns, _white(primaries))


def _columns(primaries: Chromaticities) -> np.ndarray:
    return np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries[1:]]).T


def _adapted(primaries: Chromaticities) -> np.ndarray:
    """``_to_xyz`` with the white moved to sRGB's by the Bradford transform, as ICC profiles do."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gain = (bradford @ _white(_BT709)) / (bradford @ _white(primaries))
    return np.linalg.inv(bradford) @ (gain[:, None] * bradford) @ _to_xyz(primaries)


def _white(primaries: Chromaticities) -> np.ndarray:
    x, y = primaries.white
    return np.array([x / y, 1, (1 - x - y) / y])


def _close(one: Chromaticities, other: Chromaticities) -> bool:
    return bool(np.allclose(one, other, atol=0.002))


_D65 = (0.3127, 0.329)
_BT709 = Chromaticities(_D65, (0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
_SMPTE170 = Chromaticities(_D65, (0.63, 0.34), (0.31, 0.595), (0.155, 0.07))
_PRIMARIES = {
    4: Chromaticities((0.31, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Chromaticities(_D65, (0.64, 0.33), (0.29, 0.6), (0.15, 0.06)),
    6: _SMPTE170,
    7: _SMPTE170,
    8: Chromaticities((0.31, 0.316), (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: Chromaticities(_D65, (0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),
    11: Chromaticities((0.314, 0.351), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    12: Chromaticities(_D65, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    22: Chromaticities(_D65, (0.63, 0.34), (0.295, 0.605), (0.155, 0.077)),
}
_CURVES = {
    **dict.fromkeys((1, 6, 14, 15), _bt709_to_light),
    4: _power(2.2),
    5: _power(2.8),
    7: _smpte240_to_light,
    8: _power(1.0),
    17: _smpte428_to_light,
}
_HDR = {16: "HDR (PQ)", 18: "HDR (HLG)"}
"""Their brightness reaches far beyond sRGB's white: every program maps it in another way."""

SRGB = ColourSpace(_BT709, _srgb_to_light)
ADOBE_RGB = ColourSpace(Chromaticities(_D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), _power(563 / 256))
"""Adobe RGB (1998), §4.3: its exponent is 2.19921875."""
