"""Styles that the starter never saw, for measuring how well one is learned.

    python -m lora_studio.starter.make.unseen ICONS STYLES

`ICONS` is the folder of icon sets that `data.py` reads, and of those in `SETS`. Each style becomes a folder with
`train/<subject>.png` and a caption beside it that names the subject alone, and `truth/<subject>.png`: the same artist's
pictures of other subjects. `FILTERS` redraw pairs of subject and style that the starter's training held out.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from .data import entries, render, svg
from .names import canonical, prominence

SIDE = 128
TRAINED, TRUE = 40, 24
"""Pictures to train on, and held-out subjects whose true pictures are known."""

SETS = ("streamline-emojis", "openmoji", "emojione-v1", "game-icons", "fxemoji")
"""Icon sets that the starter never saw."""

Filter = Callable[[Image.Image], Image.Image]


def paper(icon: Image.Image) -> Image.Image:
    """An RGBA icon on white paper with a margin, (128, 128) RGB."""
    page = Image.new("RGBA", (SIDE, SIDE), "white")
    small = icon.resize((112, 112), Image.Resampling.LANCZOS)
    page.alpha_composite(small, (8, 8))
    return page.convert("RGB")


def _grey(x: Image.Image) -> np.ndarray:
    return np.asarray(x.convert("L"), dtype=np.float32) / 255


def _edges(x: Image.Image, width: float) -> np.ndarray:
    """(128, 128) in 0..1: where neighbouring colours differ, about `width` pixels wide."""
    rgb = np.asarray(x.filter(ImageFilter.GaussianBlur(width / 2)), dtype=np.float32) / 255
    down, right = np.gradient(rgb, axis=(0, 1))
    return np.clip((np.abs(down) + np.abs(right)).max(2) * 3 * width, 0, 1)


def _inked(share: np.ndarray, ink: tuple[int, ...], under: np.ndarray | tuple[int, ...]) -> np.ndarray:
    """`ink` laid over a colour or a picture, by its `share` (128, 128)."""
    return np.asarray(under, dtype=np.float32) * (1 - share[..., None]) + np.array(ink, np.float32) * share[..., None]


def _picture(x: np.ndarray) -> Image.Image:
    return Image.fromarray(x.clip(0, 255).round().astype(np.uint8))


def halftone(x: Image.Image) -> Image.Image:
    """Dots of dark blue ink on cream paper, the larger the darker."""
    y, across = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    dots = np.sin((across + y) * 0.75) * np.sin((across - y) * 0.75)
    share = 1 / (1 + np.exp(-((1 - _grey(x)) * 2.6 - 1.0 - dots) * 6))
    return _picture(_inked(share * (_grey(x) < 0.97), (28, 40, 96), (250, 240, 216)))


def neon(x: Image.Image) -> Image.Image:
    """Bright outlines in the icon's own hues on a dark ground."""
    hue = np.asarray(x.convert("HSV").filter(ImageFilter.MedianFilter(5)), dtype=np.uint8).copy()
    hue[..., 1], hue[..., 2] = 190, 255
    bright = np.asarray(Image.fromarray(hue, "HSV").convert("RGB"), dtype=np.float32)
    line = _edges(x, 1.6)[..., None]
    return _picture(np.array((22, 14, 40), np.float32) * (1 - line) + bright * line)


def riso(x: Image.Image) -> Image.Image:
    """Two inks, pink below and blue above it, each of its own levels of grey, printed a little apart."""
    grey = _grey(x)
    pink = np.roll((grey < 0.8).astype(np.float32) * 0.9, (2, 2), (0, 1))
    blue = (grey < 0.5).astype(np.float32) * 0.85
    page = _inked(pink, (255, 96, 130), (248, 246, 238))
    return _picture(page * (1 - blue[..., None]) + page * np.array((40, 90, 190), np.float32) / 255 * blue[..., None])


def stained_glass(x: Image.Image) -> Image.Image:
    """Few saturated colours between thick black lines, on pale green glass."""
    flat = x.filter(ImageFilter.MedianFilter(7)).convert("HSV")
    hsv = np.asarray(flat, dtype=np.uint8).copy()
    empty = _grey(x) > 0.97
    hsv[..., 0], hsv[..., 1] = hsv[..., 0] // 32 * 32 + 16, np.maximum(hsv[..., 1], 150)
    colour = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"), dtype=np.float32)
    colour[empty] = (206, 226, 200)
    return _picture(_inked((_edges(x, 3.2) > 0.5).astype(np.float32), (16, 16, 20), colour))


FILTERS: dict[str, tuple[str, Filter]] = {
    "halftone": ("simple", halftone),
    "neon": ("flat", neon),
    "riso": ("glossy", riso),
    "stained-glass": ("shaded", stained_glass),
}
"""Style -> the style whose held-out pairs it redraws, and how."""


def of_set(icons: Path, name: str, known: dict[str, str]) -> dict[str, Image.Image]:
    """Subject -> picture, of the subjects of an unseen set that the starter knows."""
    table = json.loads((icons / name / "icons.json").read_text())
    found: dict[str, str] = {}
    for icon in sorted(table["icons"]):
        subject = known.get(re.sub(r"[^a-z0-9]", "", canonical(icon) or ""))
        if subject and prominence(subject) >= 1:
            found.setdefault(subject, icon)
    return {subject: paper(render(svg(table, icon))) for subject, icon in chosen(found).items()}


def chosen(found: dict[str, str]) -> dict[str, str]:
    """As many as are needed, the same each time."""
    names = random.Random(11).sample(sorted(found), min(TRAINED + TRUE, len(found)))
    return {name: found[name] for name in names}


def write(folder: Path, pictures: dict[str, Image.Image]) -> None:
    """The first `TRAINED` to train on, the others as truth."""
    for part in ("train", "truth"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, (subject, picture) in enumerate(pictures.items()):
        part = "train" if number < TRAINED else "truth"
        picture.save(folder / part / f"{subject}.png", optimize=True)
        if part == "train":
            (folder / part / f"{subject}.txt").write_text(subject.replace("-", " ") + "\n")


def main(icons: Path, styles: Path) -> None:
    """Writes all styles."""
    every = entries(icons)
    known = {re.sub(r"[^a-z0-9]", "", entry["subject"]): entry["subject"] for entry, _ in every}
    for name in SETS:
        write(styles / name, of_set(icons, name, known))
    for name, (source, draw) in FILTERS.items():
        held = {e["subject"]: svg for e, svg in every if (e["style"], e["split"]) == (source, "held")}
        held = {subject: svg for subject, svg in held.items() if prominence(subject) >= 1}
        write(styles / name, {s: draw(paper(render(document))) for s, document in chosen(held).items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
