"""Texts to CLIP's tokens (Radford et al. 2021, *Learning Transferable Visual Models From Natural Language
Supervision*, §2.4), in chunks of what a text encoder reads at once.

The vocabulary beside this file, in ``tokenizer/``, is CLIP's own as OpenCLIP publishes it (MIT licence, see
``tokenizer/README.md``): single files hold none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from transformers import CLIPTokenizer

from lora_studio.texts.learned_words import LearnedWord, grouped
from lora_studio.texts.prompts import Part

SHIPPED = Path(__file__).parent / "tokenizer"


class Chunk(NamedTuple):
    """What a text encoder reads at once: T tokens, the two marks and the padding included, and their weights."""

    tokens: list[int]
    weights: list[float]


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A CLIP vocabulary, and the token that fills up short chunks."""

    clip: CLIPTokenizer
    pad: int

    @classmethod
    def of_folder(cls, folder: Path) -> Tokenizer:
        """The tokenizer that a diffusers folder holds, padding as its files say."""
        clip = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        return cls(clip, clip.pad_token_id)

    @classmethod
    def shipped(cls, pad: int | None = None) -> Tokenizer:
        """CLIP's own, padding with its end-of-text token or with the token ``pad``."""
        clip = CLIPTokenizer.from_pretrained(str(SHIPPED), local_files_only=True)
        return cls(clip, clip.eos_token_id if pad is None else pad)

    @property
    def length(self) -> int:
        """T of a chunk: what its text encoder has positions for. CLIP's is 77."""
        return self.clip.model_max_length

    @property
    def room(self) -> int:
        """Tokens of a text in one chunk: ``length`` without the marks at its ends."""
        return self.length - 2

    def spans(self, text: str, words: Sequence[LearnedWord] = ()) -> list[tuple[int, int]]:
        """Where each token of ``text`` begins and ends in it, in characters; a learned word's all where it is."""
        read = self.clip(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        places = read.offset_mapping
        return [
            (places[group.first][0], places[group.last][1])
            for group in grouped(read.input_ids, words)
            for _ in group.ids
        ]

    def tokens(self, text: str) -> list[int]:
        """What the vocabulary makes of ``text``, without the marks at its ends."""
        return self.clip(text, add_special_tokens=False, verbose=False).input_ids

    def counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, without the marks at its ends."""
        found = self.clip(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [len(tokens) for tokens in found.input_ids]

    def chunks(self, parts: Sequence[Part], words: Sequence[LearnedWord] = ()) -> list[Chunk]:
        """The chunks of ``parts``, one at least. Each is filled with as many tokens as it has room for, and the next
        one takes what is left: words may be divided, as sd-scripts divides them. A learned word never is.
        """
        rows: list[tuple[list[int], list[float]]] = [([], [])]
        for part in parts:
            if part.begins:
                rows.append(([], []))
            for group in grouped(self.tokens(part.text), words):
                if len(rows[-1][0]) + len(group.ids) > self.room:
                    rows.append(([], []))
                rows[-1][0].extend(group.ids)
                rows[-1][1].extend([part.weight] * len(group.ids))
        return [self._marked(*row) for row in rows]

    @property
    def empty(self) -> Chunk:
        """A chunk without words: what fills up a text to the length of a longer one."""
        return self._marked([], [])

    def _marked(self, tokens: list[int], weights: list[float]) -> Chunk:
        clip, spare = self.clip, self.room - len(tokens)
        return Chunk(
            [clip.bos_token_id, *tokens, clip.eos_token_id, *[self.pad] * spare], [1.0, *weights, *[1.0] * (1 + spare)]
        )
