"""Icon sets -> one zip of RGBA pictures and their split.

    python -m lora_studio.starter.make.data ICONS OUT.zip

`ICONS` is the folder that holds one folder per icon set, each with the `icons.json` of its npm package
(`@iconify-json/<set>`). The zip holds `<style>/<subject>.webp` (160 x 160 RGBA) and `index.json`: a list of
{style, subject, split}, where split is "train", "held" (a tenth of the pairs of each trained style) or "unseen"
(a style that is never trained on).
"""

from __future__ import annotations

import io
import json
import random
import re
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps

from .names import COMMON, HELD_OUT_SETS, STYLES, canonical, words

SIDE = 160
"""Pixels along each edge of a stored picture; training cuts 128 x 128 out of it, moved and scaled."""


def svg(icons: dict, name: str) -> str:
    """The SVG document of one icon of an Iconify set, on its own square."""
    icon = icons["icons"][name]
    w, h = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
    box = f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {w} {h}" width="{w}" height="{h}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box}>{icon["body"]}</svg>'
    )


def render(document: str, side: int = SIDE) -> Image.Image:
    """An SVG document as a side x side RGBA picture; one that is not square stands in the middle."""
    import resvg_py

    picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=document, width=side)))).convert("RGBA")
    return ImageOps.pad(picture, (side, side))


def webp(document: str) -> bytes:
    """An SVG document as a lossless WebP; empty where it does not render to anything."""
    try:
        picture = render(document)
    except ValueError:
        return b""
    if picture.getchannel("A").getbbox() is None:
        return b""
    out = io.BytesIO()
    picture.save(out, "WEBP", lossless=True, quality=80, method=4)
    return out.getvalue()


def subjects(icons: dict) -> dict[str, str]:
    """Subject -> icon name, for the icons of a set that are used."""
    found: dict[str, str] = {}
    for name in icons["icons"]:
        if (subject := canonical(name)) and (subject not in found or name == subject):
            found[subject] = name
    return found


def entries(folder: Path, seed: int = 7) -> list[tuple[dict, str]]:
    """(index entry, SVG document) of every picture, with the split drawn by `seed`."""
    draw = random.Random(seed)
    out = []
    known: set[str] = set()
    for icon_set, style in STYLES.items():
        icons = json.loads((folder / icon_set / "icons.json").read_text())
        chosen = subjects(icons)
        known |= set(chosen)
        for subject, name in sorted(chosen.items()):
            held = draw.random() < 0.1 and not set(words(subject)) & set(COMMON)
            out.append(({"style": style, "subject": subject, "split": "held" if held else "train"}, svg(icons, name)))
    flat = {re.sub(r"[^a-z0-9]", "", s): s for s in known}
    for icon_set in HELD_OUT_SETS:
        icons = json.loads((folder / icon_set / "icons.json").read_text())
        for name in sorted(icons["icons"]):
            if subject := flat.get(re.sub(r"[^a-z0-9]", "", name)):
                if draw.random() < 0.2:
                    out.append(({"style": icon_set, "subject": subject, "split": "unseen"}, svg(icons, name)))
    return out


def main(folder: Path, out: Path) -> None:
    """Renders every picture on all cores and writes the zip."""
    todo = entries(folder)
    with ProcessPoolExecutor() as pool:
        pictures = list(pool.map(webp, [document for _, document in todo], chunksize=64))
    kept = [(entry, data) for (entry, _), data in zip(todo, pictures, strict=True) if data]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        z.writestr("index.json", json.dumps([entry for entry, _ in kept]))
        for entry, data in kept:
            z.writestr(f"{entry['style']}/{entry['subject']}.webp", data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
