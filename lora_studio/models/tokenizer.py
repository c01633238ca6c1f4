"""Captions to CLIP's tokens (Radford et al. 2021, *Learning Transferable Visual Models From Natural Language
Supervision*, §2.4).

The vocabulary beside this file, in ``tokenizer/``, is CLIP's own as OpenCLIP publishes it (MIT licence, see
``tokenizer/README.md``): single files hold none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

SHIPPED = Path(__file__).parent / "tokenizer"


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A CLIP vocabulary, and the token that fills up short captions."""

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
        """Tokens a caption is cut or filled up to, the two marks at its ends included."""
        return self.clip.model_max_length

    def __call__(self, captions: list[str]) -> Tensor:
        """(B, T) int64 tokens on the CPU. What does not fit is cut off at the end."""
        found = self.clip(captions, truncation=True, max_length=self.length).input_ids
        return torch.tensor([tokens + [self.pad] * (self.length - len(tokens)) for tokens in found])
