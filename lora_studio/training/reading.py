"""How a run reads its captions and prompts, and what of its captions it leaves out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.dataset.caption_variants import all_variants
from lora_studio.dataset.items import Dataset
from lora_studio.dataset.problems import Problem
from lora_studio.language import ntr, tr
from lora_studio.models import Base
from lora_studio.texts.chunks import Reading, Vocabulary, read, seen
from lora_studio.texts.learned_words import LearnedWord
from lora_studio.texts.tokenizer import Tokenizer

_SHOWN = 160
"""Characters of the lost words that a warning shows."""


def of_captions(settings: Settings) -> Reading:
    """Every character as it is written, up to ``caption_tokens``."""
    return Reading(tokens=settings.dataset.caption_tokens)


def of_prompts(settings: Settings) -> Reading:
    """Whole, with weights where ``prompt_weights`` says so."""
    return Reading(weights=settings.previews.prompt_weights)


def variants(dataset: Dataset, settings: Settings) -> list[list[str]]:
    """The texts that training sees for each picture's caption. Class pictures do not show the style, so the trigger
    word is not put before theirs.
    """
    written = [picture.full_caption for picture in dataset.pictures]
    triggers = ["" if picture.regularisation else settings.run.trigger for picture in dataset.pictures]
    return all_variants(written, triggers, settings.dataset, settings.run.seed)


def cut_captions(dataset: Dataset, settings: Settings, tokenizers: Sequence[Tokenizer]) -> list[Problem]:
    """Which captions or prompts of pairs are longer than what is read of them, with the words that an example loses."""
    limit, lost, learned = of_captions(settings), {}, _vocabulary(settings, tokenizers)
    read_texts = dict(zip(map(dataset.name, dataset.pictures), variants(dataset, settings), strict=True))
    pairs = {f"pair {number}": [*pair.prompts] for number, pair in enumerate(dataset.pairs, 1)}
    for name, texts in (read_texts | pairs).items():
        for text in texts:
            if rest := _unread(text, limit, tokenizers, learned):
                lost.setdefault(name, (text, rest))
    if not lost:
        return []
    name, (_, rest) = next(iter(lost.items()))
    most = min(limit.most_chunks(tokenizer) * tokenizer.room for tokenizer in tokenizers)
    longest = max(
        len(tokenizer.spans(text, words))
        for text, _ in lost.values()
        for tokenizer, words in zip(tokenizers, learned, strict=True)
    )
    shown = rest if len(rest) <= _SHOWN else f"{rest[:_SHOWN]}…"
    what = ntr(
        len(lost),
        "{count} caption is longer than {most} tokens and read only so far. Lost in {name}: “{shown}”.",
        "{count} captions are longer than {most} tokens and read only so far. Lost in {name}: “{shown}”.",
        most=most,
        name=name,
        shown=shown,
    )
    highest = SPECS["caption_tokens"].high or 0
    needed = -(-longest // 75) * 75
    do = tr("Set caption_tokens to {needed}, or write the most important words first.", needed=needed)
    if needed > highest:
        do = tr("Set caption_tokens to at most {most:g}, or write the most important words first.", most=highest)
    return [
        Problem(
            "warning",
            "long caption",
            name,
            what,
            do,
            tuple(lost),
        )
    ]


def _vocabulary(settings: Settings, tokenizers: Sequence[Tokenizer]) -> list[list[LearnedWord]]:
    """The word that is learned, as far as counting goes: its tokens get their numbers with the base model."""
    word, count = settings.run.trigger.strip(), settings.adapter.tokens
    if not count:
        return [[] for _ in tokenizers]
    return [[LearnedWord(word, tuple(one.tokens(word)), (-1,) * count)] for one in tokenizers]


def _unread(text: str, limit: Reading, tokenizers: Sequence[Tokenizer], learned: Vocabulary) -> str:
    """The words of ``text`` that are not read, or not to their last letter."""
    end = len(seen(text, limit, tokenizers, learned))
    if end == len(text):
        return ""
    while end and text[end].isalnum() and text[end - 1].isalnum():
        end -= 1
    return text[end:].strip(" ,")


def tags_seen(text: str, settings: Settings, tokenizers: Sequence[Tokenizer]) -> list[str]:
    """The comma-separated tags of a caption that are read to their last letter."""
    heard = seen(text, of_captions(settings), tokenizers, _vocabulary(settings, tokenizers))
    tags, rest = [tag.strip() for tag in heard.split(",")], text[len(heard) :].strip()
    if rest and not rest.startswith(","):
        tags.pop()
    return [tag for tag in tags if tag]


class RunEncoder:
    """What the cache asks of the base model, in a run with ``settings``: ``dataset.cache.Encoder``."""

    def __init__(self, base: Base, settings: Settings):
        self.base, self.captions, self.prompts = base, of_captions(settings), of_prompts(settings)
        self.learned = _vocabulary(settings, base.tokenizers)

    @property
    def fingerprint(self) -> str:
        return self.base.fingerprint

    @property
    def scale(self) -> int:
        return self.base.scale

    @property
    def inpaints(self) -> bool:
        return self.base.inpaints

    @property
    def sequences(self) -> tuple[str, ...]:
        return self.base.family.sequences

    def encode_text(self, texts: list[str], prompts: bool = False) -> dict[str, Tensor]:
        return self.base.encode_text(texts, self.prompts if prompts else self.captions)

    def reading(self, text: str, prompts: bool = False) -> tuple[str | int, ...]:
        found = read(text, self.prompts if prompts else self.captions, self.base.tokenizers, self.learned)
        if found.plain:
            return (found.length,) if found.length > 1 else ()
        return ("weights", found.length)

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.encode_images(pixels)

    def encode_masked(self, pixels: Tensor, masks: Tensor) -> Tensor:
        return self.base.encode_masked(pixels, masks)
