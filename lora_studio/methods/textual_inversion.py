"""Textual inversion (Gal et al. 2022, *An Image is Worth One Word*) and prompt tuning (Lester et al. 2021, *The Power
of Scale for Parameter-Efficient Prompt Tuning*): the model stays as it is, and some of the vectors that it reads are
learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lora_studio.methods.method import AdapterOptions, Layer, LayerInput, LayerShape, Method

if TYPE_CHECKING:
    import torch

    from lora_studio.adapters.adapter import Factors


class TextualInversion(Method):
    """The trigger word's vectors, between the words of a caption: the token embeddings that the text encoders read."""

    name, title = "textual-inversion", "Textual inversion"
    help = "Textual inversion learns the trigger word alone: a file of kilobytes, and a looser hold on the style"
    low_precision = True
    ignores = ("rank", "alpha", "rslora", "dropout", "targets", "blocks", "by_block", "train_text", "init")
    changes_layers = False
    default_tokens = 4

    def start(
        self, layers: Mapping[str, Layer], options: AdapterOptions, source: torch.Generator
    ) -> Mapping[str, Factors] | None:
        """There are no layers: the words start in ``models.learned_words``."""
        return None

    def read(self, layer: Layer, subtracted: Factors | None) -> Factors:
        raise NotImplementedError(f"{self.title} changes no layers.")

    def begin(self, layer: Layer, given: Factors) -> None:
        raise NotImplementedError(f"{self.title} changes no layers.")

    def parameters(self, options: AdapterOptions, shape: LayerShape) -> int:
        return 0

    def kept(self, options: AdapterOptions, shape: LayerShape, given: LayerInput) -> float:
        return 0.0


class PromptTuning(TextualInversion):
    """The vectors stand before every caption of the style, and later before every prompt that is drawn.

    The paper puts them before the embedded input of a frozen model (section 2). Here that is what the text encoders
    read; behind them they would be frozen features, which no other program can load.
    """

    name, title = "prompt-tuning", "Prompt tuning"
    help = "Prompt tuning learns tokens that go before every prompt by themselves"
    default_tokens = 8
    in_front = True
