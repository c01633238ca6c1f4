"""What a scene is called: sentences in which the words that matter stand among words that change nothing.

Only the standard library is needed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

from .names import BACKGROUNDS, STYLES, caption, words
from .scenes import COLOURS, IconScene, uncoloured

OPENERS = (
    "a picture of", "an icon of", "a drawing of", "an image of", "a photo of", "an illustration of", "a painting of",
    "a sketch of",
)  # fmt: skip
"""Beginnings of a sentence about a picture."""

FILLERS = (
    "highly detailed", "best quality", "masterpiece", "digital art", "vector art", "clip art", "emoji", "sticker",
    "simple background", "clean lines", "4k", "8k", "high resolution", "concept art", "trending on artstation",
    "cute", "beautiful", "nice", "very detailed", "professional", "centered", "no text", "artwork", "icon", "logo",
)  # fmt: skip
"""Praise and technique, which change nothing."""

SIZES = {"small": ("small", "small", "little", "tiny"), "large": ("large", "large", "big", "huge")}
PLACES = {
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "top": ("at the top", "on top", "in the upper half"), "bottom": ("at the bottom", "in the lower half"),
    "top left": ("in the top left corner", "at the top left"),
    "top right": ("in the top right corner", "at the top right"),
    "bottom left": ("in the bottom left corner", "at the bottom left"),
    "bottom right": ("in the bottom right corner", "at the bottom right"),
}  # fmt: skip
"""Place -> how it is said."""

ON = {
    "table": ("on a table", "on a table", "on the table", "on a wooden table", "on a desk"),
    "line": ("on the ground", "on a line", "on the ground line", "on a shelf"),
    "floor": ("on the floor", "on a floor", "in a room"),
    "grass": ("on the grass", "on grass", "in a field", "on a meadow", "in the garden"),
    "sand": ("on the beach", "on sand", "in the desert", "on a beach"), "snow": ("in the snow", "on snow", "in winter"),
    "sky": ("in the sky", "under a blue sky", "before a blue sky", "in front of a blue sky", "against the sky"),
    "night": ("at night", "in the night sky", "under a night sky", "in the dark"),
}  # fmt: skip
"""Ground -> how it is said."""

VERBS = ("sitting", "standing", "lying", "that is", "placed", "resting")
BESIDE = (
    "{} and {}", "{} and {}", "{} and {}", "{} beside {}", "{} next to {}", "{} with {}", "{} to the left of {}",
    "{} near {}",
)  # fmt: skip
"""Two subjects side by side, the left one first."""

ABOVE = ("{} above {}", "{} over {}", "{} on top of {}")
"""Two subjects, the upper one first."""

_IRREGULAR = {
    "person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice", "fish": "fish",
    "sheep": "sheep", "deer": "deer", "leaf": "leaves", "leaves": "leaves", "knife": "knives", "tooth": "teeth",
    "foot": "feet", "goose": "geese", "wolf": "wolves", "loaf": "loaves", "scissors": "scissors", "glasses": "glasses",
    "ox": "oxen", "die": "dice", "dice": "dice", "bread": "breads", "shrimp": "shrimp", "squid": "squid",
}  # fmt: skip


def plural(name: str) -> str:
    """The plural of a name: that of its last word, or of the word before "of", "in", "with", "from", "on" or "at"."""
    head = re.split(r" (?:of|in|with|from|on|at|the) ", name, maxsplit=1)[0]
    rest = name[len(head) :]
    *before, last = head.split(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif re.search(r"[^aeiou]y$", last):
        last = last[:-1] + "ies"
    elif re.search(r"(s|x|z|ch|sh)$", last):
        last += "" if last.endswith("s") and not last.endswith("ss") and not last.endswith("us") else "es"
    else:
        last += "s"
    return " ".join([*before, last]) + rest


def article(name: str) -> str:
    """`name` after "a" or "an"."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


class Unknown:
    """Words that change nothing: made up of syllables or letters, and words of a list that name nothing here."""

    def __init__(self, word_list: Path, subjects: Sequence[str]):
        listed = re.findall(r"^[a-z]{2,12}$", word_list.read_text("utf-8"), re.MULTILINE)
        told = " ".join(
            [
                *(name for subject in subjects for name in words(subject)),
                *STYLES.values(),
                *COLOURS,
                *BACKGROUNDS,
                *OPENERS,
                *BESIDE,
                *ABOVE,
                *VERBS,
            ]
            + [text for some in (SIZES, PLACES, ON) for texts in some.values() for text in texts]
            + ["one two three four five six seven pair couple white background gradient style by in the"]
        )
        known = set(re.findall(r"[a-z]+", told.lower()))
        known |= {plural(word) for word in known}
        self.rare = [word for word in listed if word not in known]

    def word(self, draw: random.Random) -> str:
        """One word of any of the three kinds."""
        kind = draw.random()
        if kind < 0.35:
            return draw.choice(self.rare)
        if kind < 0.8:
            return made_up(draw)
        letters = draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 6))
        return "".join(letters) + draw.choice(("", "", str(draw.randint(0, 99)), "_style", "_v2"))

    def added(self, text: str, draw: random.Random) -> str:
        """`text` with words that change nothing before or behind it."""
        form = draw.choice(_PLACES_OF_UNKNOWN)
        return form.format(text, w=self.word(draw), u=self.word(draw), f=draw.choice(FILLERS), g=draw.choice(FILLERS))


_PLACES_OF_UNKNOWN = (
    "{w}, {}", "{w}, {}", "{}, {w}", "{}, {w}", "{} {w}", "{w} {}", "{} in {w} style", "{} in {w} style", "{} by {w}",
    "{} by {w} {u}", "{}, in the style of {w}", "{}, {w} {u}", "{w} {u}, {}", "{}, {w} style", "{w} style, {}",
    "{}, {f}", "{f}, {}", "{}, {f}, {w}", "{w}, {}, {u}", "{}, {f}, {g}", "{w} {u} {}", "{} of {w}", "{} from {w}",
    "{}, by {w} {u}, {f}", "{w}, {f}, {}",
)  # fmt: skip


def made_up(draw: random.Random) -> str:
    """A word of one to four syllables."""
    onset, nucleus = "b br d f g gr k l m n p r s sk st t tr v w x z zh".split() + [""], "aeiouaeiouy"
    coda = ["", "", "n", "r", "s", "x", "rp", "l", "th", "nk", "m"]
    return "".join(
        draw.choice(onset) + draw.choice(nucleus) + draw.choice(coda) for _ in range(draw.choice((1, 2, 2, 3, 3, 4)))
    )


def _noun(scene: IconScene, at: int, draw: random.Random, many: bool) -> str:
    """A subject's name with its size and colour."""
    colour = scene.colours[at] if at < len(scene.colours) else ""
    name = draw.choice(uncoloured(scene.subjects[at]) if colour else words(scene.subjects[at]))
    name = plural(name) if many else name
    size = draw.choice(SIZES[scene.size]) if scene.size else ""
    return " ".join(part for part in (size, colour, name) if part)


def _what(scene: IconScene, draw: random.Random) -> str:
    """The things of a scene."""
    count, bare = len(scene.icons), draw.random() < 0.4
    if len(scene.subjects) == 2:
        nouns = [_noun(scene, k, draw, many=False) for k in (0, 1)]
        nouns = nouns if bare else [article(n) for n in nouns]
        return draw.choice(ABOVE if scene.relation == "above" else BESIDE).format(*nouns)
    noun = _noun(scene, 0, draw, many=count > 1)
    if count > 1:
        number = {2: ("two", "two", "two", "2", "a pair of"), 3: ("three", "three", "three", "3")}[count]
        return f"{draw.choice(number)} {noun}"
    return noun if bare else ("the " + noun if draw.random() < 0.12 else article(noun))


def _where(scene: IconScene, draw: random.Random) -> list[str]:
    """Place, ground and paper in words, each where it differs from the ordinary."""
    found = []
    if scene.ground:
        verb = draw.choice(VERBS) + " " if draw.random() < 0.2 else ""
        found.append(verb + draw.choice(ON[scene.ground]))
    if scene.place:
        found.insert(draw.randint(0, len(found)), draw.choice(PLACES[scene.place]))
    if len(scene.paper) == 2:
        found.append(f"on a {scene.paper[0]} to {scene.paper[1]} gradient background")
    elif scene.paper != ("white",) or draw.random() < 0.05:
        found.append(f"on {article(scene.paper[0])} background")
    return found


def _plain(scene: IconScene, unknown: Unknown, draw: random.Random) -> str:
    """The captions that the starter always knew, half of them with words that change nothing."""
    text = caption(scene.subjects[0], scene.style, scene.paper[0], draw)
    return unknown.added(text, draw) if draw.random() < 0.5 else text


def describe(scene: IconScene, unknown: Unknown, draw: random.Random) -> str:
    """One caption of a scene."""
    simple = len(scene.icons) == 1 and not (scene.size or scene.place or scene.ground or any(scene.colours))
    if simple and len(scene.paper) == 1 and draw.random() < 0.6:
        return _plain(scene, unknown, draw)
    text = _what(scene, draw)
    if draw.random() < 0.35:
        opener = draw.choice(OPENERS)
        text = f"{opener if draw.random() < 0.8 else opener.split(' ', 1)[1]} {text}"
    where = _where(scene, draw)
    early = draw.random() < 0.15
    text = f"{', '.join(where)}, {text}" if early and where else " ".join([text, *where])
    if draw.random() < 0.45:
        form = draw.choice(("{}, {s} style", "{}, {s} style", "{} in {s} style", "{s} style, {}", "{s} style {}"))
        text = form.format(text, s=scene.style)
    return unknown.added(text, draw) if draw.random() < 0.4 else text
