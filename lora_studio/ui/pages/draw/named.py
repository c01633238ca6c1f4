"""Adapters by the names that people write in prompts and scripts."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lora_studio.adapters.kinds import EMBEDDING
from lora_studio.adapters.recipe import MOST_WEIGHT
from lora_studio.config.specs import did_you_mean
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.jobs.image_spec import Placed
from lora_studio.language import english, in_sequence, tr
from lora_studio.runs.library import Entry
from lora_studio.texts import learned_words, prompts
from lora_studio.ui.pages.library import cards


class NamedAdapter(NamedTuple):
    """An adapter that a prompt or a script names."""

    entry: Entry
    weight: float

    @property
    def placed(self) -> Placed:
        return Placed(path=self.entry.path, weight=self.weight, name=cards.stem(self.entry))


def in_prompt(prompt: str, entries: Sequence[Entry]) -> tuple[str, list[NamedAdapter]]:
    """``prompt`` without what it says of adapters, ``<lora:NAME:WEIGHT>``, and these.

    Raises:
        AdapterError: the library has none of a name.
        SettingsError: a weight is out of range.
    """
    plain, told = prompts.taken(prompt)
    return plain, named(told, entries)


_PREFIXED = re.compile(r"\bembedding:([^\s,:()\[\]]+)", re.IGNORECASE)


def embeddings_in(
    texts: Sequence[str],
    entries: Sequence[Entry],
    fits: Callable[[Entry], bool] = lambda entry: True,
    taken: Collection[str] = (),
) -> list[NamedAdapter]:
    """The library's embeddings whose words ``texts`` name, plainly or as ``embedding:WORD``; of several with one word
    the latest, saved states of runs last.

    Args:
        fits: whether an embedding is for the base model; asked only of those that are named.
        taken: the paths of adapters that are drawn with anyway. They bring their own words.

    Raises:
        AdapterError: ``embedding:WORD`` names none.
    """
    known = {word.casefold() for entry in entries if entry.path in taken for word in entry.words}
    found: dict[str, NamedAdapter] = {}
    for entry in sorted(entries, key=lambda entry: entry.step is not None):
        for word in entry.words if entry.method == EMBEDDING.name else ():
            new = word.casefold() not in known | found.keys()
            if new and any(learned_words.named(text, [word]) for text in texts) and fits(entry):
                found[word.casefold()] = NamedAdapter(entry, 1.0)
    for text in texts:
        for name in _PREFIXED.findall(text):
            if name.casefold().removesuffix(".safetensors") not in known | found.keys():
                what = tr("The library has no embedding named {name} for this base model.", name=name)
                raise AdapterError(what, where=f"embedding:{name}", do=tr("Add it on the page Library."))
    return list(found.values())


def named(told: Iterable[tuple[str, float]], entries: Sequence[Entry]) -> list[NamedAdapter]:
    """The adapters of these names, with these weights.

    Raises:
        AdapterError: the library has none of a name.
        SettingsError: a weight is out of range.
    """
    found = []
    for name, weight in told:
        if not abs(weight) <= MOST_WEIGHT:
            raise SettingsError(
                tr("The weight of {name} is {weight:g}.", name=name, weight=weight),
                where=name,
                do=tr("Give a number from −10 to 10; 0.5 to 1 is usual."),
            )
        found.append(NamedAdapter(_entry(name, entries), weight))
    return found


def _entry(name: str, entries: Sequence[Entry]) -> Entry:
    """The latest adapter whose file has that name, or whose title is that."""
    wanted = name.strip().removesuffix(".safetensors").casefold()
    for of in (cards.stem, lambda entry: Path(entry.path).stem, lambda entry: english(cards.title(entry))):
        for entry in entries:
            if of(entry).casefold() == wanted:
                return entry
    near = did_you_mean(name, [cards.stem(entry) for entry in entries], listed=4) if entries else ""
    others = tr("Others are added on the page Library.")
    raise AdapterError(
        tr("The library has no adapter named {name}.", name=name),
        where=f"<lora:{name}>",
        do=in_sequence((near, others)),
    )
