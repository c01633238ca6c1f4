"""What the Pictures room shows of a dataset: a card for each picture, with what training makes of it.

A card is made of its picture alone, so that an edit changes a few cards and no folder is read again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count as numbers

from lora_studio.curation.target import Target
from lora_studio.dataset import buckets, caption_variants
from lora_studio.dataset.items import Bucket, Dataset, Picture
from lora_studio.errors import DatasetError
from lora_studio.language import tr

CROPPED = 0.02
"""Share of a picture that may be cut off before it is marked: less is the rounding to a bucket's shape."""

MARKS = {
    "left out": tr("Left out"),
    "cropped": tr("Cropped"),
    "no caption": tr("No caption"),
    "long caption": tr("Long captions"),
    "several captions": tr("Several captions"),
    "small": tr("Small"),
    "mask": tr("Masks"),
    "own crop": tr("Own crops"),
}
"""Marks of a picture that its card itself has -> the filter's name. ``Dataset.problems`` add theirs by their kinds."""


@dataclass(frozen=True)
class Card:
    """One picture as it will be trained.

    Attributes:
        name: relative to the folder, with forward slashes.
        bucket: the size that it is trained at, in pixels.
        box: (left, top, right, bottom) of the part that is trained on, in pixels of the upright picture.
        tokens: of its longest caption as training reads it.
        marks: keys of ``MARKS``, and kinds of problems.
    """

    name: str
    picture: Picture
    bucket: Bucket
    box: tuple[float, float, float, float]
    tokens: int
    marks: frozenset[str]

    @property
    def left_out(self) -> bool:
        """Whether it is not trained on: the artist left it out, or gave its folder the weight 0."""
        return "left out" in self.marks

    @property
    def shows_style(self) -> bool:
        """Whether it is trained on and is no class picture."""
        return not self.left_out and not self.picture.regularisation

    @property
    def seen(self) -> float:
        """The share of the picture that is trained on."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top) / (self.picture.width * self.picture.height)

    @property
    def tags(self) -> list[str]:
        """The parts of its captions between commas, in lower case."""
        parts = self.picture.caption.replace("\n", ",").split(",")
        return [tag for part in parts if (tag := part.strip().casefold())]


@dataclass(frozen=True)
class Query:
    """Which cards are shown, in which order. Empty fields ask for nothing.

    Attributes:
        mark: a mark that they have; "trained" for all that are not left out.
        tag: a tag that they have.
        words: words of their names or captions, each of which they have.
        bucket: as ``str(Bucket)``.
        length: a key of ``LENGTHS``.
        sort: a key of ``ORDERS``.
    """

    mark: str = ""
    tag: str = ""
    words: str = ""
    bucket: str = ""
    length: str = ""
    sort: str = "name"


ORDERS: dict[str, tuple[str, Callable[[Card], tuple]]] = {
    "name": (tr("Name"), lambda card: (card.name.casefold(),)),
    "problems": (tr("Problems first"), lambda card: (-len(card.marks), card.name.casefold())),
    "cut": (tr("Most cropped first"), lambda card: (card.seen, card.name.casefold())),
    "long": (tr("Longest caption first"), lambda card: (-card.tokens, card.name.casefold())),
    "short": (tr("Shortest caption first"), lambda card: (card.tokens, card.name.casefold())),
    "bucket": (tr("Bucket"), lambda card: (*card.bucket, card.name.casefold())),
    "size": (tr("Smallest first"), lambda card: (card.picture.width * card.picture.height, card.name.casefold())),
}
"""Orders of the cards -> title, sort key."""

LENGTHS: dict[str, tuple[str, int, float]] = {
    "": (tr("All captions"), 0, math.inf),
    "short": (tr("Up to 5 tokens"), 0, 5),
    "medium": (tr("6 to 20 tokens"), 6, 20),
    "long": (tr("21 to 75 tokens"), 21, 75),
    "very long": (tr("Over 75 tokens"), 76, math.inf),
}
"""Lengths of captions -> title, fewest and most tokens."""

_VERSIONS = numbers(1)
_NONE: Mapping[str, Card] = {}


@dataclass
class Collection:
    """All cards of a dataset, by name. ``dataset`` is as it was scanned; later edits are in ``cards`` alone.

    Attributes:
        version: another after every change, and in every other collection.
    """

    dataset: Dataset
    target: Target
    cards: dict[str, Card] = field(default_factory=dict)
    version: int = 0
    _scanned: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, target: Target, before: Collection | None = None) -> Collection:
        """The cards of ``dataset`` for training with ``target``. Cards of ``before``, made for the same target, are
        taken over where the picture is the same.
        """
        made = cls(dataset, target)
        for problem in dataset.problems:
            for name in problem.files or (problem.file,):
                made._scanned.setdefault(name, set()).add(problem.kind)
        out = {dataset.name(picture) for picture in dataset.left_out}
        pictures = {dataset.name(picture): picture for picture in (*dataset.pictures, *dataset.left_out)}
        made._make(dict(sorted(pictures.items())), out, before.cards if before else {})
        return made

    def change(self, captions: Mapping[str, str] | None = None, **fields: Mapping[str, object]) -> None:
        """Makes the cards anew whose pictures changed: ``change({"a.png": "a cat"}, crop={"b.png": None})``. ``fields``
        are those of ``Picture``, by the pictures' names.
        """
        changed: dict[str, Picture] = {}
        for key, values in {**({"caption": captions} if captions else {}), **fields}.items():
            for name, value in values.items():
                if name in self.cards:
                    changed[name] = replace(changed.get(name, self.cards[name].picture), **{key: value})
        self._make(changed, {name for name in changed if self.cards[name].left_out})

    def leave_out(self, names: Iterable[str], out: bool = True) -> None:
        """Marks pictures as left out, or takes them in again; those of weight 0 train in no case."""
        found = {name: self.cards[name].picture for name in names if name in self.cards}
        self._make(found, {name for name, picture in found.items() if out or not picture.weight})

    def card(self, name: str) -> Card:
        """The card of a picture.

        Raises:
            DatasetError: there is none any more.
        """
        if name not in self.cards:
            raise DatasetError(
                tr("There is no picture {name} any more.", name=name),
                where=self.dataset.folder,
                do=tr("Choose another."),
            )
        return self.cards[name]

    def find(self, query: Query) -> list[Card]:
        """The cards that ``query`` asks for, in its order."""
        words = query.words.casefold().split()
        tag = query.tag.casefold()
        _, least, most = LENGTHS.get(query.length, LENGTHS[""])
        found = [
            card
            for card in self.cards.values()
            if _has(card, query.mark)
            and (not tag or tag in card.tags)
            and (not query.bucket or str(card.bucket) == query.bucket)
            and least <= card.tokens <= most
            and all(word in card.name.casefold() or word in card.picture.caption.casefold() for word in words)
        ]
        return sorted(found, key=ORDERS.get(query.sort, ORDERS["name"])[1])

    def counts(self) -> Counter[str]:
        """How many cards have each mark."""
        return Counter(mark for card in self.cards.values() for mark in card.marks)

    @property
    def captions(self) -> dict[str, str]:
        """The captions of the pictures that show the style, by name: not of those left out, nor of class pictures."""
        return {name: card.picture.caption for name, card in self.cards.items() if card.shows_style}

    def buckets(self) -> dict[str, int]:
        """The sizes that pictures are trained at, the most frequent first, and how many are."""
        found = Counter(card.bucket for card in self.cards.values() if not card.left_out)
        return {str(bucket): count for bucket, count in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))}

    def _make(self, pictures: Mapping[str, Picture], out: set[str], before: Mapping[str, Card] = _NONE) -> None:
        self.version = next(_VERSIONS)
        same = {name: before[name] for name, one in pictures.items() if name in before and before[name].picture == one}
        new = {name: picture for name, picture in pictures.items() if name not in same}
        assigned = self._buckets(list(new.values()))
        tokens = self.target.tokens([self._longest(picture) for picture in new.values()])
        for (name, picture), bucket, count in zip(new.items(), assigned, tokens, strict=True):
            box = buckets.crop_box(picture.width, picture.height, bucket, picture.crop)
            same[name] = Card(name, picture, bucket, box, count, frozenset())
        for name in pictures:
            self.cards[name] = replace(same[name], marks=frozenset(self._marks(same[name], name in out)))

    def _buckets(self, pictures: Sequence[Picture]) -> list[Bucket]:
        settings = self.target.dataset
        return buckets.assign(pictures, self.target.resolution, settings.bucket_step, settings.max_upscale)

    def _longest(self, picture: Picture) -> str:
        """The longest text that training may see of a picture's caption."""
        trigger = "" if picture.regularisation else self.target.trigger
        texts = caption_variants.variants(picture.full_caption, trigger, self.target.dataset, limit=2)
        return max(texts, key=len)

    def _marks(self, card: Card, out: bool) -> Iterable[str]:
        picture = card.picture
        own = {
            "left out": out or not picture.weight,
            "no caption": not picture.caption,
            "several captions": "\n" in picture.caption,
            "long caption": card.tokens > self.target.most_tokens,
            "cropped": card.seen < 1 - CROPPED and picture.crop is None,
            "own crop": picture.crop is not None,
            "small": 2 * card.bucket.width * card.bucket.height < self.target.resolution**2,
            "mask": picture.mask is not None,
        }
        yield from (mark for mark, has in own.items() if has)
        yield from self._scanned.get(card.name, set()) - MARKS.keys()


def _has(card: Card, mark: str) -> bool:
    return not card.left_out if mark == "trained" else not mark or mark in card.marks
