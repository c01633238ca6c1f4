"""Taggers of the WD14 kind, in the layout of SmilingWolf's: an ONNX model that scores the tags of
``selected_tags.csv`` (https://huggingface.co/spaces/SmilingWolf/wd-tagger).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lora_studio.errors import ModelError
from lora_studio.language import tr
from lora_studio.vision.local import TAGS_FILE
from lora_studio.vision.onnx import Graph
from lora_studio.vision.options import TagOptions

GENERAL, CHARACTER, RATING = 0, 4, 9
"""Categories of a tag, as booru sites number them."""
_SIDE = 448
"""Pixels, where the model takes any size."""
_WORD = re.compile(r"[^\W_]{2}")
"""Two letters or digits side by side: without them a tag is a face such as ``>_<``, which keeps its underscore."""


class ScoredTag(NamedTuple):
    """A tag as the model names it, with underscores, and its score from 0 to 1."""

    name: str
    category: int
    score: float


class Tagger:
    """A tagger in memory.

    Attributes:
        known: all its tags.
        device: what it runs on, for people.
    """

    def __init__(self, path: Path):
        """Loads the ``.onnx`` file at ``path`` and the tags beside it, or in the folder above.

        Raises:
            ModelError: one of them is missing or damaged, or they do not belong together.
            MachineError: onnxruntime is not installed.
        """
        self.known = read_tags(_beside(path))
        self._graph = Graph(path)
        _, height, width, channels = self._graph.shape
        if channels not in (3, 0) or height != width:
            raise ModelError(
                tr(
                    "{name} is no WD14 tagger: it takes {shape}, not squares with three channels last.",
                    name=path.name,
                    shape=str(self._graph.shape),
                ),
                where=path,
                do=tr("Choose a tagger of SmilingWolf's."),
            )
        self.device = self._graph.device
        self._side = height or _SIDE
        self._at_once = self._graph.shape[0]

    def score(self, pictures: Sequence[Image.Image]) -> list[list[ScoredTag]]:
        """The scores of all tags for each picture, in the file's order.

        Raises:
            ModelError: the model scores another number of tags than its file lists.
        """
        prepared = np.stack([prepare(one, self._side) for one in pictures])
        parts = [prepared[start : start + 1] for start in range(len(pictures))] if self._at_once == 1 else [prepared]
        scores = np.concatenate([self._graph.run(part)[0] for part in parts])
        if scores.shape[1:] != (len(self.known),):
            raise ModelError(
                tr(
                    "{name} scores {scored} tags and {file} lists {listed}.",
                    name=self._graph.path.name,
                    scored=scores.shape[-1],
                    file=TAGS_FILE,
                    listed=len(self.known),
                ),
                where=self._graph.path,
                do=tr("Download both files of the same model again."),
            )
        return [
            [tag._replace(score=float(score)) for tag, score in zip(self.known, row, strict=True)] for row in scores
        ]


def prepare(picture: Image.Image, side: int) -> np.ndarray:
    """The picture as the models were trained on it: padded to a square on white, ``side`` pixels wide, as float32 of
    shape (side, side, 3), blue first, from 0 to 255.
    """
    longest = max(picture.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(picture.convert("RGB"), ((longest - picture.width) // 2, (longest - picture.height) // 2))
    if longest != side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(square, np.float32)[:, :, ::-1]


def chosen(scored: Iterable[ScoredTag], options: TagOptions) -> list[str]:
    """The tags to write, best first, spelled as captions are: spaces for underscores and plain parentheses. With
    ``ratings`` the likeliest rating comes last.
    """
    scored = list(scored)
    never = {key(tag) for tag in options.never}
    floors = {GENERAL: options.general, CHARACTER: options.character}
    taken = [tag for tag in scored if tag.category in floors and tag.score >= floors[tag.category]]
    taken.sort(key=lambda tag: -tag.score)
    if options.ratings:
        taken += sorted((tag for tag in scored if tag.category == RATING), key=lambda tag: -tag.score)[:1]
    return [spelled(tag.name) for tag in taken if key(tag.name) not in never]


def spelled(tag: str) -> str:
    """
    >>> spelled("long_hair"), spelled(">_<"), spelled("rose_(flower)")
    ('long hair', '>_<', 'rose (flower)')
    """
    return tag.replace("_", " ") if _WORD.search(tag) else tag


def key(tag: str) -> str:
    """The same for all spellings of a tag: case, underscores and backslashes before parentheses do not count."""
    return " ".join(tag.replace("\\", "").replace("_", " ").casefold().split())


def read_tags(path: Path) -> list[ScoredTag]:
    """The tags of a ``selected_tags.csv``, with scores of 0.

    Raises:
        ModelError: it is missing or damaged.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            found = list(_rows(file))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ModelError(
            tr("{name} cannot be read: {error}.", name=path.name, error=error),
            where=path,
            do=tr("Download the model again: a tagger needs it."),
        ) from error
    if not found:
        raise ModelError(tr("{name} lists no tags.", name=path.name), where=path, do=tr("Download the model again."))
    return found


def _rows(file: Iterable[str]) -> Iterator[ScoredTag]:
    for row in csv.DictReader(file):
        yield ScoredTag(row["name"], int(row["category"]), 0.0)


def _beside(path: Path) -> Path:
    above = path.parent.parent / TAGS_FILE
    return above if path.parent.name == "onnx" and above.is_file() else path.parent / TAGS_FILE
