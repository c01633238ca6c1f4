"""What the Pictures page costs with many pictures, in the time of its first look: ``python tests/benchmarks/pictures.py
[COUNT]``. All ratios stay about the same on slower machines.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_studio.config.settings import Settings
from lora_studio.curation.collection import Query
from lora_studio.ui.pages.pictures import cards
from lora_studio.ui.pages.pictures.look import Collections, PicturesLook


def made(folder: Path, count: int) -> None:
    """Small JPEGs with captions."""
    draw = random.Random(0)
    words = "boat evening bridge gull harbour crane rope water sky cloud".split()
    folder.mkdir()
    for number in range(count):
        image = Image.effect_noise((64, 48), 90).resize((640, 480)).convert("RGB")
        image.save(folder / f"{number:05}.jpg", quality=85)
        (folder / f"{number:05}.txt").write_text(", ".join(draw.sample(words, 5)))


def seconds(act: Callable[[], object]) -> float:
    """Processor time of this process."""
    start = time.process_time()
    act()
    return time.process_time() - start


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        made(place / "data", count)
        look, known = PicturesLook(Settings(data=str(place / "data"))), Collections(place / "outputs")
        first = seconds(lambda: known.of(look))
        collection = known.of(look)
        found = collection.find(look.query)
        parts = {
            "opening it again": lambda: known.of(look, fresh=True),
            "a search": lambda: collection.find(Query(words="boat evening")),
            "a page of cards": lambda: cards.html(look, found, collection, place / "outputs"),
            "an edit of one caption": lambda: collection.change({"00001.jpg": "a boat"}),
        }
        print(f"first look: {first:.2f} s")
        for name, act in parts.items():
            print(f"{name:24}{seconds(act) / first:10.2%}")


if __name__ == "__main__":
    main()
