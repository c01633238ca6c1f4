"""Makes the two sample styles: folders of captioned pictures in styles that the starter never saw.

    python -m lora_studio.starter.make.samples ICONS SAMPLES

`ICONS` is the folder of icon sets that `data.py` reads. `ink-icons` are black-ink icons as they are; `blueprint`
redraws flat icons as white outlines on gridded blue paper. Captions name the subject and nothing else.
"""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

from PIL import Image

SIDE = 256
"""Pixels along each edge of a sample."""

INK = """anchor bell bicycle butterfly cactus camera candle castle crab crown dog elephant fire-engine guitar hammer
key light-bulb mushroom owl pear penguin pizza rabbit sailboat scissors snail
snowman spider-web strawberry sunglasses telephone tent tractor umbrella turtle violin watermelon""".split()

BLUEPRINT = """airplane alarm-clock ambulance anchor balloon bell bicycle bus camera castle crown delivery-truck
desktop-computer factory ferris-wheel fire-extinguisher flashlight guitar hammer helicopter key light-bulb
locomotive magnet microscope motorcycle robot sailboat satellite scissors snail telescope toolbox tractor
trophy turtle umbrella wrench""".split()

NOTES = {
    "ink-icons": "Black-ink icons of Fluent Emoji High Contrast.",
    "blueprint": "Icons of Fluent Emoji Flat, redrawn as white outlines on blueprint paper by `make/samples.py`.",
}

LICENCE = """# {title}

{note}

Fluent Emoji: Copyright (c) Microsoft Corporation, MIT License (https://github.com/microsoft/fluentui-emoji).

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def ink(body: str) -> str:
    """A black-ink icon on white paper, with a margin."""
    paper = '<rect x="-9" y="-9" width="60" height="60" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2.5 -2.5 37 37">{paper}<g color="#111">{body}</g></svg>'


def grid(step: float, width: float, strength: float) -> str:
    """Faint lines over the whole paper, `step` units apart."""
    lines = [f"M{-4 + k * step} -4V36M-4 {-4 + k * step}H36" for k in range(int(40 / step) + 1)]
    return f'<path d="{"".join(lines)}" stroke="#fff" stroke-width="{width}" opacity="{strength}" fill="none"/>'


def blueprint(body: str) -> str:
    """A flat icon (32 units wide) as a drawing: every shape filled with the paper's blue and outlined in white."""
    body = re.sub(r"<defs>.*?</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r'\s(?:fill|stroke|stroke-width|opacity|fill-opacity|filter|mask|clip-path)="[^"]*"', "", body)
    drawing = f'<g fill="#1f4e9c" stroke="#f4f8ff" stroke-width="0.55" stroke-linejoin="round">{body}</g>'
    paper = '<rect x="-4" y="-4" width="40" height="40" fill="#1f4e9c"/>'
    lines = grid(1, 0.05, 0.16) + grid(4, 0.09, 0.24)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-3 -3 38 38">{paper}{lines}{drawing}</svg>'


def picture(document: str) -> Image.Image:
    """An SVG as a small palette picture, SIDE x SIDE."""
    import resvg_py

    big = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=document, width=SIDE)))).convert("RGB")
    return big.quantize(64, dither=Image.Dither.NONE)


def main(icons: Path, samples: Path) -> None:
    """Writes both folders."""
    for style, icon_set, names, draw in (
        ("ink-icons", "fluent-emoji-high-contrast", INK, ink),
        ("blueprint", "fluent-emoji-flat", BLUEPRINT, blueprint),
    ):
        bodies = json.loads((icons / icon_set / "icons.json").read_text())["icons"]
        folder = samples / style
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            if name in bodies:
                picture(draw(bodies[name]["body"])).save(folder / f"{name}.png", optimize=True)
                (folder / f"{name}.txt").write_text(name.replace("-", " ") + "\n")
        (folder / "LICENCE.md").write_text(LICENCE.format(title=style, note=NOTES[style]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
