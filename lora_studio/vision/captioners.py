"""Captioners: models of transformers that write a sentence about a picture. BLIP (Li et al. 2022), Florence-2 (Xiao et
al. 2023), and any other image-text-to-text model, which is told what to write.

A model comes from a folder in the hub's layout. Weights are read from safetensors alone, and code that a model brings
along is never run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import transformers
from PIL import Image
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from lora_studio.language import tr
from lora_studio.vision import loading
from lora_studio.vision.options import SentenceOptions

_BLIP_TOKENS, _CHAT_TOKENS = 50, 160
_FLORENCE_TOKENS = {"<CAPTION>": 60, "<DETAILED_CAPTION>": 160, "<MORE_DETAILED_CAPTION>": 320}
"""After which a caption is cut: more than these models usually write."""
_ROLE = tr("captioner")


class Sentence(NamedTuple):
    """A caption, on one line; ``cut`` if the model had more to say."""

    text: str
    cut: bool = False


class Captioner(Protocol):
    """A model that writes captions."""

    def caption(self, pictures: Sequence[Image.Image]) -> list[Sentence]:
        """One caption for each picture, all computed at once."""
        ...


def load(
    folder: Path,
    options: SentenceOptions | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Captioner:
    """The captioner in ``folder``, on ``device``.

    Raises:
        ModelError: it is damaged, of an unknown kind, needs code of its own, or has only pickled weights.
    """
    options = options or SentenceOptions()
    kind = loading.kind(folder, _ROLE)
    model, processor = _model(folder, device, dtype), _processor(folder)
    if kind == "blip":
        return Blip(model, processor, options)
    if kind == "florence2":
        return Florence2(model, processor, options)
    return Instructed(model, processor, options)


class _Writer:
    """What the captioners share: generating, decoding, and finding which captions were cut."""

    def __init__(self, model: Any, processor: Any, options: SentenceOptions):
        self.model, self.processor, self.options = model, processor, options

    def write(self, inputs: Any, usual: int, skip: int = 0, prompt: str = "") -> list[Sentence]:
        """The captions that the model writes for ``inputs``.

        Args:
            usual: tokens after which it is cut, unless the options say so.
            skip: tokens at the beginning of each output that repeat the input.
            prompt: text that the model may repeat before the caption.
        """
        most = self.options.max_tokens or usual
        inputs = inputs.to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            written = self.model.generate(**inputs, max_new_tokens=most, num_beams=self.options.beams, do_sample=False)[
                :, skip:
            ]
        texts = self.processor.batch_decode(written, skip_special_tokens=True)
        begins = 0 if skip else 1  # a token that begins the text, which may be the one that ends it
        cut = [self._cut(row[begins:].tolist(), most) for row in written]
        return [Sentence(tidy(text, prompt), one) for text, one in zip(texts, cut, strict=True)]

    def _cut(self, tokens: list[int], most: int) -> bool:
        """Whether a text ended at its limit; some models are made to write the end there."""
        end = next((place for place, token in enumerate(tokens) if token in self._ends()), len(tokens))
        return end >= most - (self.model.generation_config.forced_eos_token_id is not None)

    def _ends(self) -> set[int]:
        config = self.model.generation_config.eos_token_id
        found = config if isinstance(config, list) else [config]
        text = getattr(self.model.config, "text_config", self.model.config)
        return {one for one in (*found, getattr(text, "sep_token_id", None), text.eos_token_id) if one is not None}


class Blip(_Writer):
    """BLIP writes one short sentence; it takes no instruction."""

    def caption(self, pictures: Sequence[Image.Image]) -> list[Sentence]:
        return self.write(self.processor(images=list(pictures), return_tensors="pt"), _BLIP_TOKENS)


class Florence2(_Writer):
    """Florence-2 does one of the tasks that it was trained on: a short, a detailed or a long caption."""

    def caption(self, pictures: Sequence[Image.Image]) -> list[Sentence]:
        task = self.options.detail
        inputs = self.processor(
            images=list(pictures), text=[str(task)] * len(pictures), padding=True, return_tensors="pt"
        )
        return self.write(inputs, _FLORENCE_TOKENS[task])


class Instructed(_Writer):
    """A model that is told what to write, through its chat template; one without a template gets the instruction as it
    is.
    """

    def __init__(self, model: Any, processor: Any, options: SentenceOptions):
        super().__init__(model, processor, options)
        if not model.config.is_encoder_decoder:
            processor.tokenizer.padding_side = "left"  # a decoder continues at the right end

    def caption(self, pictures: Sequence[Image.Image]) -> list[Sentence]:
        instruction = self.options.instruction
        inputs = self.processor(
            images=[[one] for one in pictures],
            text=[self._prompt(instruction)] * len(pictures),
            padding=True,
            return_tensors="pt",
        )
        skip = 0 if self.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        return self.write(inputs, _CHAT_TOKENS, skip, instruction)

    def _prompt(self, instruction: str) -> str:
        if not self.processor.chat_template:
            return instruction
        said = [{"type": "image"}, {"type": "text", "text": instruction}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": said}], add_generation_prompt=True, tokenize=False
        )


def tidy(text: str, prompt: str = "") -> str:
    """``text`` on one line, without the prompt before it and without characters that cannot be seen.

    >>> tidy(" A boat.\\n\\nIt is red. "), tidy("Describe it. A boat.", "Describe it.")
    ('A boat. It is red.', 'A boat.')
    """
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    asked = " ".join(prompt.split())
    return line[len(asked) :].strip() if asked and line.startswith(asked) else line


def _model(folder: Path, device: torch.device | str, dtype: torch.dtype) -> Any:
    model = loading.model(transformers.AutoModelForImageTextToText, folder, _ROLE, dtype=dtype)
    return model.to(device).eval()


def _processor(folder: Path) -> Any:
    """What turns pictures and text into the model's input."""

    def loaded() -> Any:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return _for_pictures(PROCESSOR_MAPPING[type(config)]).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )

    return loading.quietly(folder, _ROLE, loaded)


def _for_pictures(kind: Any) -> Any:
    """The class of a processor without its part for videos, which would need torchvision."""
    parts = [part for part in kind.get_attributes() if "video" not in part]

    class PictureProcessor(kind):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return parts

    PictureProcessor.__name__ = kind.__name__
    return PictureProcessor
