"""How captions and prompts are read: literally or with weights, whole or up to a limit, in chunks for every text
encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_studio.errors import SettingsError
from lora_studio.language import tr
from lora_studio.texts.learned_words import LearnedWord, without_prefix
from lora_studio.texts.prompts import Part, parse
from lora_studio.texts.tokenizer import Chunk, Tokenizer

MOST_CHUNKS = 40
"""A longer prompt is refused: 3000 of CLIP's tokens are forty times what it was trained on."""
MOST_WEIGHT = 100.0
"""A heavier word is refused: 2 already distorts an image, and the arithmetic overflows somewhere above this."""


@dataclass(frozen=True)
class Reading:
    """How texts are read."""

    weights: bool = False
    """Whether brackets weigh words and ``BREAK`` begins a chunk (``prompts.parse``). Otherwise every character is read
    as it is.
    """
    tokens: int = 0
    """The most tokens of a text, rounded up to whole chunks: 75 tokens each with CLIP. What follows is left out. 0
    reads the whole text.
    """

    def parts(self, text: str) -> list[Part]:
        """The parts of ``text``."""
        return parse(text) if self.weights else [Part(text)]

    def most_chunks(self, tokenizer: Tokenizer) -> int:
        """The most chunks of a text; 0 where there is no limit."""
        return -(-self.tokens // tokenizer.room)


LITERAL = Reading()


@dataclass(frozen=True)
class ChunkedText:
    """A text as the text encoders read it."""

    words: str
    """Without what only weighs them."""
    chunks: list[list[Chunk]]
    """For each text encoder: one at least."""
    plain: bool
    """Whether it is read as it is written."""

    @property
    def length(self) -> int:
        """The number of its chunks."""
        return max(map(len, self.chunks))

    @property
    def weighted(self) -> bool:
        """Whether any word weighs more or less than 1."""
        return any(weight != 1 for chunk in self.chunks[0] for weight in chunk.weights)

    def rows(self, tokenizers: Sequence[Tokenizer], length: int) -> list[tuple[Chunk, ...]]:
        """Its chunks in their order, each for all text encoders, with empty ones behind them: ``length`` in all."""
        filled = [
            own + [tokenizer.empty] * (length - len(own))
            for own, tokenizer in zip(self.chunks, tokenizers, strict=True)
        ]
        return list(zip(*filled, strict=True))


Vocabulary = Sequence[Sequence[LearnedWord]]
"""The learned words of each text encoder; empty where there are none."""


def read(text: str, reading: Reading, tokenizers: Sequence[Tokenizer], learned: Vocabulary = ()) -> ChunkedText:
    """``text`` for every one of ``tokenizers``.

    Raises:
        SettingsError: it is too long for any use, or a weight is too large.
    """
    learned = learned or [()] * len(tokenizers)
    written = without_prefix(text, [one.word for one in learned[0]])
    parts = reading.parts(written)
    if any(abs(part.weight) > MOST_WEIGHT for part in parts):
        what = tr("A word of the prompt {prompt} weighs more than {most:g}.", prompt=_beginning(text), most=MOST_WEIGHT)
        raise SettingsError(what, where="prompt", do=tr("Weights from 0.5 to 1.5 make sense; 1 is as written."))
    chunks = [
        tokenizer.chunks(parts, words)[: reading.most_chunks(tokenizer) or None]
        for tokenizer, words in zip(tokenizers, learned, strict=True)
    ]
    if max(map(len, chunks)) > MOST_CHUNKS:
        most = MOST_CHUNKS * tokenizers[0].room
        what = tr("The prompt {prompt} is longer than {most} tokens.", prompt=_beginning(text), most=most)
        raise SettingsError(what, where="prompt", do=tr("Shorten it: in so long a text a single word hardly counts."))
    return ChunkedText("".join(part.text for part in parts), chunks, parts == [Part(text)])


def seen(text: str, reading: Reading, tokenizers: Sequence[Tokenizer], learned: Vocabulary = ()) -> str:
    """How much of the beginning of a caption the text encoders read within the limit of ``reading``."""
    ends = [len(text)]
    for tokenizer, words in zip(tokenizers, learned or [()] * len(tokenizers), strict=True):
        most = reading.most_chunks(tokenizer) * tokenizer.room
        if most and len(spans := tokenizer.spans(text, words)) > most:
            ends.append(spans[most][0])
    return text[: min(ends)]


def _beginning(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
