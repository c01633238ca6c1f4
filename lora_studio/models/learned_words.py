"""Words with learned vectors in a model's text encoders: under training, or of adapters on top.

A tokenizer's chunk holds a number beyond the vocabulary for each of a word's vectors. A hook takes these numbers out
before an encoder sees its tokens (SDXL's second one finds the end of a text by its largest number), and another one
puts the vectors in their places behind the token embedding: everything else reads them like any token.

Letters: n a word's vectors, D width of a text encoder, B texts of T tokens.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lora_studio.adapters.adapter import Adapter
from lora_studio.adapters.embedding import Embedding
from lora_studio.errors import AdapterError
from lora_studio.language import both, ntr, tr
from lora_studio.texts.learned_words import LearnedWord
from lora_studio.texts.tokenizer import Tokenizer

TRAINED = "learned_words"
"""Name of the module that holds the vectors under training, within a text encoder."""


class LearnedVectors(nn.Module):
    """The vectors of the word under training in one text encoder.

    Args:
        start: (n, D) float32.
        keep_norm: whether each keeps the length that it starts with, so that only its direction is learned.
    """

    norms: Tensor | None

    def __init__(self, start: Tensor, keep_norm: bool):
        super().__init__()
        self.vectors = nn.Parameter(start)
        self.register_buffer("norms", start.norm(dim=1, keepdim=True) if keep_norm else None, persistent=False)

    def forward(self) -> Tensor:
        """(n, D), differentiable."""
        return self.vectors if self.norms is None else F.normalize(self.vectors, dim=1) * self.norms


class _Word(NamedTuple):
    """A word that some adapter brings."""

    word: str
    source: int
    """The adapter's place among those on top; -1 for the one under training."""
    first: int
    """The number of its first vector, from the vocabulary's end on."""
    vectors: Mapping[str, Tensor | LearnedVectors]
    """By component."""
    in_front: bool

    @property
    def tokens(self) -> int:
        one = next(iter(self.vectors.values()))
        return len(one.vectors if isinstance(one, LearnedVectors) else one)


def spoken(word: str, embeddings: Mapping[str, Embedding]) -> Embedding | None:
    """Those of the ``embeddings`` that ``word`` would start with: the same word's, or the only ones."""
    given = {name.lower(): one for name, one in embeddings.items()}
    return given.get(word.lower()) or (next(iter(given.values())) if len(given) == 1 else None)


class LearnedWords:
    """The learned words of a model. There may be none; then nothing is hooked.

    Args:
        encoders: the model's text encoders by component, each with the tokenizer of the same place.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], tokenizers: Sequence[Tokenizer]):
        self._encoders, self._tokenizers = encoders, tokenizers
        self._words: list[_Word] = []
        self._names: list[str] = []
        """Of the adapters on top, for messages."""
        self._hooks: list[RemovableHandle] = []
        self._ids: dict[str, Tensor] = {}

    # What reads texts asks

    def vocabulary(self, weights: Sequence[float] = ()) -> list[list[LearnedWord]]:
        """What each text encoder's tokenizer must know of them.

        Args:
            weights: of the adapters on top. One of 0 is without its words.
        """
        active = self._active(weights)
        return [
            [LearnedWord(one.word, tuple(tokenizer.tokens(one.word)), tuple(_numbers(encoder, one))) for one in active]
            for encoder, tokenizer in zip(self._encoders.values(), self._tokenizers, strict=True)
        ]

    def fronted(self, prompt: str, weights: Sequence[float] = ()) -> str:
        """``prompt`` with the words before it that go before every prompt. An empty one stays empty."""
        words = [one.word for one in self._active(weights) if one.in_front]
        missing = [word for word in words if word.lower() not in prompt.lower()]
        return ", ".join([*missing, prompt]) if prompt.strip() else prompt

    def require_distinct(self, weights: Sequence[float]) -> None:
        """Raises AdapterError where two adapters of other weights than 0 have learned the same word differently."""
        owners: dict[str, _Word] = {}
        for one in self._active(weights):
            other = owners.setdefault(one.word.lower(), one)
            if other is not one and not _same(one, other):
                raise AdapterError(
                    tr(
                        "{one} and {other} have both learned the word {word!r}.",
                        one=self._name(other),
                        other=self._name(one),
                        word=one.word,
                    ),
                    where=one.word,
                    do=tr("Draw with one of them, or set the other's weight to 0."),
                )

    def _name(self, one: _Word) -> str:
        return tr("The adapter under training") if one.source < 0 else self._names[one.source]

    # What puts them there

    def train(self, word: str, starts: Mapping[str, Tensor], keep_norm: bool, in_front: bool) -> None:
        """Adds the word under training, which starts with the vectors ``starts`` (n, D) of each component."""
        held: dict[str, LearnedVectors] = {}
        for component, start in starts.items():
            encoder = self._encoders[component]
            at = next(encoder.parameters()).device
            held[component] = LearnedVectors(start.float().to(at), keep_norm)
            encoder.add_module(TRAINED, held[component])
        self._put([_Word(word, -1, 0, held, in_front), *self._words])

    @torch.no_grad()
    def begin(self, embeddings: Mapping[str, Embedding]) -> Embedding | None:
        """Has the word under training start with the vectors of the same word in ``embeddings``, or of the only one:
        as many as both have. With ``keep_norm`` it takes their directions. Returns the word that it started with.
        """
        for one in self._words:
            if one.source < 0 and (found := spoken(one.word, embeddings)):
                for component, held in one.vectors.items():
                    rows = found.vectors[component][: one.tokens]
                    cast(LearnedVectors, held).vectors[: len(rows)] = rows.to(cast(LearnedVectors, held).vectors)
                return found
        return None

    @property
    def learning(self) -> str:
        """The word under training; empty if there is none."""
        return next((one.word for one in self._words if one.source < 0), "")

    @property
    def trained(self) -> int:
        """How many vectors the word under training has; 0 if there is none."""
        return sum(one.tokens for one in self._words if one.source < 0)

    def read(self) -> dict[str, Embedding]:
        """What was learned: float32 copies on the CPU."""
        return {
            one.word: Embedding(one.word, {part: _copied(held) for part, held in one.vectors.items()}, one.in_front)
            for one in self._words
            if one.source < 0
        }

    def load(self, adapters: Sequence[Adapter]) -> None:
        """Adds the words of adapters on top, in place of those loaded before.

        Raises:
            AdapterError: a word's vectors do not fit the text encoders.
        """
        for adapter in adapters:
            for one in adapter.embeddings.values():
                self.require_fit(one, adapter.file)
        self._names = [
            adapter.file or tr("adapter {number}", number=number) for number, adapter in enumerate(adapters, 1)
        ]
        loaded = [
            _Word(one.word, source, 0, one.vectors, one.in_front)
            for source, adapter in enumerate(adapters)
            for one in adapter.embeddings.values()
        ]
        self._put([*(one for one in self._words if one.source < 0), *loaded])

    def require_fit(self, one: Embedding, where: str) -> None:
        """Raises AdapterError where a word's vectors do not fit the text encoders."""
        own = {component: _embedding_of(encoder).embedding_dim for component, encoder in self._encoders.items()}
        if one.widths != own:
            raise AdapterError(
                ntr(
                    len(own),
                    "The vectors of the word {word!r} are {widths} wide; the base model's text encoder reads {read}.",
                    "The vectors of the word {word!r} are {widths} wide; the base model's text encoders read {read}.",
                    word=one.word,
                    widths=_wide(one.widths),
                    read=_wide(own),
                ),
                where=where,
                do=tr("Choose one that was made for this base model, or the base model that it was made for."),
            )
        if one.tokens > (room := min(tokenizer.room for tokenizer in self._tokenizers)):
            raise AdapterError(
                tr(
                    "The word {word!r} has {vectors} vectors; a text encoder reads {room} tokens at once.",
                    word=one.word,
                    vectors=one.tokens,
                    room=room,
                ),
                where=where,
                do=tr("Choose an embedding with fewer vectors."),
            )

    def unload(self) -> None:
        """Takes away what ``load`` added."""
        self._put([one for one in self._words if one.source < 0])

    def remove(self) -> None:
        """Takes all words away, the one under training as well."""
        for encoder in self._encoders.values():
            if hasattr(encoder, TRAINED):
                delattr(encoder, TRAINED)
        self._put([])

    @contextmanager
    def without(self) -> Generator[None]:
        """Within it the words that are there now are plain text."""
        before = self._words, self._names
        self._put([])
        try:
            yield
        finally:
            words, self._names = before
            self._put(words)

    def _active(self, weights: Sequence[float]) -> list[_Word]:
        return [one for one in self._words if one.source < 0 or not weights or weights[one.source]]

    def _put(self, words: Sequence[_Word]) -> None:
        """``words``, numbered anew."""
        numbered, first = [], 0
        for one in words:
            numbered.append(one._replace(first=first))
            first += one.tokens
        self._words = numbered
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for component, encoder in self._encoders.items() if numbered else ():
            self._hooks += [
                encoder.register_forward_pre_hook(partial(self._take_out, component)),
                _embedding_of(encoder).register_forward_hook(partial(self._put_in, component)),
            ]

    def _take_out(self, component: str, encoder: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Remembers the tokens ``inputs[0]`` (B, T), and gives the encoder 0 in place of a learned vector's number."""
        ids, *others = inputs
        self._ids[component] = ids
        return (ids.where(ids < _embedding_of(encoder).num_embeddings, 0), *others)

    def _put_in(self, component: str, module: nn.Embedding, _: object, output: Tensor) -> Tensor:
        """``output`` (B, T, D) with the learned vectors in their places."""
        rows = self._ids.pop(component) - module.num_embeddings
        tables = [held() if isinstance(held := one.vectors[component], LearnedVectors) else held for one in self._words]
        table = torch.cat([one.to(output) for one in tables])
        return torch.where((rows >= 0)[..., None], table[rows.clamp_min(0)], output)


def start_from(encoder: nn.Module, tokenizer: Tokenizer, words: str, count: int) -> Tensor:
    """(count, D) float32 on the CPU: the encoder's vectors of the tokens of ``words``, again from the first where there
    are fewer. With as many as the text has tokens, the encoder reads it as before.

    Raises:
        AdapterError: the text has no tokens.
    """
    tokens = tokenizer.tokens(words)
    if not tokens:
        do = tr("Choose a word of the language, such as painting.")
        raise AdapterError(tr("{words!r} has no tokens to start from.", words=words), where="init_word", do=do)
    known = _embedding_of(encoder).weight.detach().float().cpu()
    return torch.stack([known[tokens[place % len(tokens)]] for place in range(count)])


def _numbers(encoder: nn.Module, one: _Word) -> range:
    first = _embedding_of(encoder).num_embeddings + one.first
    return range(first, first + one.tokens)


def _embedding_of(encoder: nn.Module) -> nn.Embedding:
    """The token embedding of CLIP's text model, with or without a projection around it."""
    return cast(Any, encoder).get_input_embeddings()


def _copied(held: Tensor | LearnedVectors) -> Tensor:
    with torch.no_grad():
        tensor = held() if isinstance(held, LearnedVectors) else held
        return tensor.to("cpu", torch.float32, copy=True)


def _same(one: _Word, other: _Word) -> bool:
    pairs = [(_copied(one.vectors[part]), _copied(other.vectors[part])) for part in one.vectors]
    return all(torch.equal(*pair) for pair in pairs)


def _wide(widths: Mapping[str, int]) -> str:
    return both(str(width) for width in widths.values())
