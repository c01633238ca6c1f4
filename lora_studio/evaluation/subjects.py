"""What is drawn if nobody says otherwise: plain subjects that base models draw well, and that no caption names."""

from __future__ import annotations

import re
from collections.abc import Iterable

SUBJECTS = {
    "cat": ("kitten", "kitty", "feline"),
    "house": ("home", "cottage", "cabin", "hut", "villa", "mansion", "building"),
    "tree": ("oak", "pine", "palm", "birch", "fir", "willow", "maple"),
    "car": ("automobile", "sedan", "taxi", "limousine", "truck", "vehicle"),
    "bird": ("owl", "sparrow", "parrot", "eagle", "duck", "penguin", "pigeon", "crow", "raven", "gull", "swan"),
    "boat": ("ship", "sailboat", "yacht", "canoe", "ferry", "dinghy", "vessel"),
    "flower": ("blossom", "bloom", "rose", "tulip", "daisy", "sunflower", "lily", "poppy", "orchid", "bouquet"),
    "chair": ("armchair", "stool", "seat", "rocker"),
    "mountain": ("hill", "peak", "summit", "volcano", "alp"),
    "cup": ("mug", "teacup", "goblet", "beaker"),
    "dog": ("puppy", "pup", "hound", "poodle", "terrier", "spaniel", "dachshund"),
    "bicycle": ("bike", "cycle", "tandem"),
    "fish": ("goldfish", "salmon", "trout", "tuna", "carp", "shark"),
    "castle": ("fortress", "palace", "citadel", "fort"),
    "shoe": ("boot", "sneaker", "sandal", "slipper", "trainer"),
    "mushroom": ("toadstool", "fungus", "champignon"),
    "apple": (),
    "horse": ("pony", "foal", "stallion", "mare"),
    "clock": ("watch", "timepiece"),
    "key": (),
    "train": ("locomotive", "tram", "railway"),
    "hat": ("cap", "bonnet", "beret"),
}  # fmt: skip
"""Subject -> other words for it, and for kinds of it."""
FEWEST = 4
"""Prompts, also where captions name more: the subject is measured relative to the mean over prompts."""
_IRREGULAR = {"mice": "mouse", "fungi": "fungus", "leaves": "leaf", "wolves": "wolf"}


def prompts(captions: Iterable[str], most: int) -> tuple[str, ...]:
    """``most`` prompts, or fewer, of subjects that no caption names in any of their words, in the singular or plural:
    pictures of those would be drawn from memory. Where fewer than ``FEWEST`` are left, named ones fill up.
    """
    words = {word for caption in captions for word in re.findall(r"[^\W\d_]+", caption.casefold())}
    named = {form for word in words for form in _forms(word)}
    free = [subject for subject, others in SUBJECTS.items() if not named & {subject, *others}]
    wanted = (free + [subject for subject in SUBJECTS if subject not in free])[: max(len(free), FEWEST)]
    return tuple(f"an {one}" if one[0] in "aeiou" else f"a {one}" for one in wanted[:most])


def _forms(word: str) -> set[str]:
    """The word, and what it may be the plural of."""
    found = {word, _IRREGULAR.get(word, word)}
    if word.endswith("ies"):
        found.add(word[:-3] + "y")
    if word.endswith("es"):
        found.add(word[:-2])
    if word.endswith("s"):
        found.add(word[:-1])
    return found
