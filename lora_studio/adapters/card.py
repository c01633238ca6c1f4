"""An adapter's model card: what its artist says of it, in the header and as Markdown. No torch.

ModelSpec has entries for all that she writes; what follows from the file itself stands in the Markdown alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lora_studio.adapters import metadata as meta
from lora_studio.adapters import recipe, usage
from lora_studio.adapters.recipe import Training
from lora_studio.errors import SettingsError
from lora_studio.language import english, tr

LICENCES = {
    "": "Not stated",
    "All rights reserved": "All rights reserved",
    "CC0-1.0": "CC0 1.0: anyone may do anything",
    "CC-BY-4.0": "CC BY 4.0: name me",
    "CC-BY-SA-4.0": "CC BY-SA 4.0: name me, share alike",
    "CC-BY-NC-4.0": "CC BY-NC 4.0: name me, nothing commercial",
    "CC-BY-NC-SA-4.0": "CC BY-NC-SA 4.0: name me, nothing commercial, share alike",
    "CreativeML-OpenRAIL-M": "CreativeML OpenRAIL-M: as Stable Diffusion 1.5",
}
"""What the header says -> for people. The names are SPDX's where it has one."""
MOST = {"title": 120, "author": 120, "license": 200, "tags": 300, "description": 4000}
"""Characters of an entry."""
_NOUNS = {
    "title": (tr("Title"), tr("title")),
    "author": (tr("Author"), tr("author")),
    "license": (tr("License"), tr("license")),
    "tags": (tr("Tags"), tr("tags")),
    "description": (tr("Description"), tr("description")),
}
"""Each entry's name by itself, and in a sentence."""


class CardText(NamedTuple):
    """What the artist writes."""

    title: str = ""
    author: str = ""
    license: str = ""
    tags: str = ""
    """With commas between them."""
    description: str = ""

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> CardText:
        """Those of a header."""
        return cls(*(metadata.get(f"modelspec.{name}", "") for name in cls._fields))

    def tidy(self) -> CardText:
        """Without spaces around each.

        Raises:
            SettingsError: one is too long.
        """
        found = CardText(*(text.strip() for text in self))
        for name, text in found._asdict().items():
            if len(text) > MOST[name]:
                heading, noun = _NOUNS[name]
                what = tr(
                    "The {entry} has {characters:,} characters; {most:,} are the most.",
                    entry=noun,
                    characters=len(text),
                    most=MOST[name],
                )
                raise SettingsError(what, where=heading, do=tr("Shorten it."))
        return found

    def entries(self) -> dict[str, str]:
        """As a header has them; empty ones remove theirs."""
        return {f"modelspec.{name}": text for name, text in self._asdict().items()}


class CardPicture(NamedTuple):
    """One picture of a card: its address relative to the card, and what it shows."""

    address: str
    prompt: str


def markdown(
    name: str, metadata: Mapping[str, str], family: str, kind: str, rank: int, pictures: Sequence[CardPicture] = ()
) -> str:
    """The card of the adapter whose file is called ``name``.

    Args:
        family: what base models it fits, for people.
        kind: of adapter, for people.
    """
    text = CardText.read(metadata)
    parts = [f"# {_plain(text.title or name)}", "\n".join(_image(one) for one in pictures)]
    parts += [text.description, _use(name, metadata, family), _training(metadata, kind, rank)]
    return "\n\n".join(filter(None, [*parts, _rights(text)])) + "\n"


def _plain(text: str) -> str:
    """In one line, with nothing that Markdown or HTML reads as a sign."""
    return "".join(f"\\{one}" if one in "\\`*_[]<>#|" else one for one in " ".join(text.split()))


def _image(picture: CardPicture) -> str:
    return f"![{_plain(picture.prompt) or 'Drawn with it'}]({picture.address})"


def _use(name: str, metadata: Mapping[str, str], family: str) -> str:
    trigger, strength = meta.trigger(metadata), usage.strength(metadata)
    base = metadata.get("ss_sd_model_name", "")
    on = f"{_plain(family)}; trained on {_plain(base)}" if base and base != "starter" else _plain(family)
    lines = [f"- File: `{name}.safetensors`", f"- Base model: {on}"]
    lines += [f"- Trigger word: **{_plain(trigger)}**"] if trigger else []
    lines += [f"- Strength: {english(strength.sentence)}"] if strength else []
    return "## How to use it\n\n" + "\n".join(lines)


def _training(metadata: Mapping[str, str], kind: str, rank: int) -> str:
    found = recipe.read(metadata)
    size = f" of rank {rank}" if rank else ""
    if not isinstance(found, Training):
        return f"## What it is\n\nA {_plain(kind)}{size}." if found is None else _blended(found, kind, size)
    own = len(found.images) - found.class_images
    settings = found.settings
    on = f" on {own:,} picture{'s' * (own != 1)}" if own else ""
    steps = f" for {found.steps:,} steps" if found.steps else ""
    line = f"A {_plain(kind)}{size}, trained{on}{steps} with LoRA Studio."
    shown = [
        (label, settings[key])
        for key, label in (("learning_rate", "learning rate"), ("batch", "batch"), ("optimizer", "optimizer"))
        if settings.get(key) not in (None, "")
    ]
    more = ", ".join(f"{label} {value:g}" if isinstance(value, float) else f"{label} {value}" for label, value in shown)
    return f"## How it was trained\n\n{line}" + (f" {_plain(more[:1].upper() + more[1:])}." if more else "")


def _blended(found: recipe.Blend, kind: str, size: str) -> str:
    names = ", ".join(f"{_plain(one.name)} × {one.weight:g}" for one in found.ingredients)
    return f"## How it was made\n\nA {_plain(kind)}{size}, blended with LoRA Studio from {names}."


def _rights(text: CardText) -> str:
    lines = [f"By {_plain(text.author)}."] if text.author else []
    lines += [f"Licence: {_plain(LICENCES.get(text.license, text.license).partition(':')[0])}."] if text.license else []
    lines += [f"Tags: {_plain(text.tags)}."] if text.tags else []
    return "## Author and licence\n\n" + " ".join(lines) if lines else ""
