"""The things of a dataset, which every module of this room speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lora_studio.dataset.preparation import Crop
from lora_studio.dataset.problems import Kind, Problem


class Mask(NamedTuple):
    """A picture's mask, of the same shape: white is learned, black is not. ``sha256`` of the file's bytes."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Picture:
    """One picture to train on. ``width`` and ``height`` in pixels, after the EXIF rotation; ``sha256`` of the file's
    bytes; ``repeats`` is how often it comes up in an epoch. ``caption`` is as written, tidied line by line: what
    training sees of it is in ``caption_variants``. What the artist chose about it and its folder is from
    ``preparation``.

    Attributes:
        crop: the part to train on; None for all of it.
        weight: what its loss is multiplied by.
        timesteps: the noise levels it is trained at, from the first to before the second, of
            ``preparation.NOISE_LEVELS``; None for all.
        regularisation: it is a class picture, which does not show the style.
        prefix: its folder's, in front of every line of its caption.
    """

    path: Path
    caption: str
    repeats: int
    width: int
    height: int
    sha256: str
    mask: Mask | None = None
    crop: Crop | None = None
    weight: float = 1.0
    timesteps: tuple[int, int] | None = None
    regularisation: bool = False
    prefix: str = ""

    @property
    def full_caption(self) -> str:
        """Its caption with its folder's prefix in front of every line."""
        lines = ((self.prefix.strip(), line) for line in self.caption.split("\n"))
        return "\n".join(" ".join(filter(None, parts)) for parts in lines)


@dataclass(frozen=True)
class PromptPair:
    """What a slider or an erased concept is learned from: in which direction a concept lies, and at which prompt it is
    moved.

    Attributes:
        trained: the prompt whose answer is trained.
        neutral: the prompt whose answer is moved to be what is learned; another one only where the concept is erased.
        towards, away: the prompts whose answers differ by the direction.
        weight: what its loss is multiplied by.
        pictures: the names of two pictures that differ by the direction, in place of prompts: where weight 1 leads, and
            where −1 leads. All prompts are then the same.
    """

    trained: str
    neutral: str
    towards: str
    away: str
    weight: float = 1.0
    pictures: tuple[str, str] | None = None

    @property
    def erases(self) -> bool:
        """Whether it erases a concept. Otherwise it moves one, either way."""
        return self.trained != self.neutral

    @property
    def prompts(self) -> tuple[str, ...]:
        """Its prompts, in the order of the attributes."""
        return (self.trained, self.neutral, self.towards, self.away)


@dataclass(frozen=True)
class Dataset:
    """What a scan found: the pictures to train on, sorted by name, and all problems, most severe first. ``left_out``
    are pictures as good as those, which the artist left out. A run of ``pairs`` has no pictures, and their file as its
    ``folder``; or two pictures of each pair, in the pairs' order, below the file's folder.
    """

    folder: Path
    pictures: list[Picture]
    problems: list[Problem]
    left_out: list[Picture] = field(default_factory=list)
    pairs: list[PromptPair] = field(default_factory=list)

    @property
    def blocking(self) -> list[Problem]:
        """The problems that training cannot start with."""
        return [problem for problem in self.problems if problem.severity == "blocking"]

    def groups(self, kind: Kind) -> list[tuple[str, ...]]:
        """The names that each problem of ``kind`` concerns: one group for pictures without a caption, and one for every
        set of pictures that are identical or alike.
        """
        return [problem.files or (problem.file,) for problem in self.problems if problem.kind == kind]

    def name(self, picture: Picture) -> str:
        """The picture's path relative to the folder, with forward slashes."""
        return picture.path.relative_to(self.folder).as_posix()


class Bucket(NamedTuple):
    """A training size, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} × {self.height}"


class Alteration(NamedTuple):
    """How a copy of a picture that training sees differs from it."""

    flip: bool = False
    """Mirrored left to right, after all else."""
    rotation: float = 0.0
    """Degrees counter-clockwise."""
    cut: float = 0.0
    """The share of width and height that is not seen."""
    across: float = 0.0
    """Where what is seen then lies: -1 at the left, 1 at the right."""
    down: float = 0.0
    """-1 at the top, 1 at the bottom."""
    hue: float = 0.0
    """Degrees that colours are turned by."""
    saturation: float = 1.0
    brightness: float = 1.0

    @property
    def reframes(self) -> bool:
        """Whether another part of the picture is seen, or turned."""
        return bool(self.rotation or self.cut)

    @property
    def framing(self) -> tuple[float, ...]:
        """What decides which pixels are seen where, of mirrored ones apart; empty where it is as in the picture."""
        return self[1:5] if self.reframes else ()

    @property
    def recolours(self) -> bool:
        """Whether colours differ."""
        return (self.hue, self.saturation, self.brightness) != (0, 1, 1)


PLAIN = Alteration()
"""The picture as it is."""


class Sample(NamedTuple):
    """A picture as training sees it: at the size of its bucket, with one of the variants of its caption."""

    picture: Picture
    bucket: Bucket
    captions: list[str]
    """At least one; one that should be drawn more often than others occurs more often."""
    mirrored: Sequence[str] = ()
    """The captions that the mirrored picture comes with, one for each of ``captions``; empty where it is never
    mirrored.
    """
    copies: Sequence[Alteration] = (PLAIN,)
    """The copies that are drawn, of both the picture and the mirrored one."""


@dataclass(frozen=True)
class Draw:
    """One sample of a batch: the picture's index, whether it is mirrored, which variant of its caption it comes with,
    or that it comes without, and which of the copies it is.
    """

    picture: int
    flip: bool = False
    variant: int = 0
    drop_caption: bool = False
    copy: int = 0
