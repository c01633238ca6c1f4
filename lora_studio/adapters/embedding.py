"""Learned words (textual inversion, Gal et al. 2022): what text encoders read in place of a word's tokens. No torch.

Files, as programs read them:

- ``emb_params``, or for SDXL ``clip_l`` and ``clip_g``: (n, D) each. A1111 (``create_embedding_from_data``) and ComfyUI
  (``load_embed``) call the word by the file's name.
- One tensor under the word itself, (D,) or (n, D): diffusers' ``learned_embeds.safetensors``.
- In an adapter's file ``bundle_emb.WORD.string_to_param.*``, or ``bundle_emb.WORD.clip_l`` and ``.clip_g``: A1111 and
  Forge read both (``load_network``), ComfyUI takes such a file for an embedding too. OneTrainer writes the second form,
  also for a single text encoder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lora_studio.adapters.metadata import IN_FRONT, WORD
from lora_studio.errors import AdapterError
from lora_studio.language import tr

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

_BUNDLED = re.compile(r"^bundle_emb\.([^.]+)\.(string_to_param\.\*|emb_params|clip_l|clip_g)$")
_ALONE = ("emb_params", "emp_params", "string_to_param.*")
"""Names of the tensor for a single text encoder. The second is OneTrainer's spelling."""
_ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
_UNFIT = re.compile(r"[\s.,:|()\[\]{}<>/\\\"'*?]")


@dataclass(frozen=True, eq=False)
class Embedding:
    """A word, and what each text encoder reads in its place.

    Args:
        vectors: by component (``text_encoder``, for SDXL ``text_encoder_2`` as well): (n, D), n the same for all.
        in_front: whether it goes before every prompt without being written (prompt tuning).

    Raises:
        AdapterError: there are no vectors, or their shapes do not fit each other.
    """

    word: str
    vectors: Mapping[str, Tensor]
    in_front: bool = False

    def __post_init__(self) -> None:
        shapes = [tuple(tensor.shape) for tensor in self.vectors.values()]
        counts = {shape[0] for shape in shapes if len(shape) == 2}
        if not shapes or any(len(shape) != 2 for shape in shapes) or len(counts) != 1 or counts == {0}:
            what = tr(
                "The vectors of the word {word!r} have the shapes {shapes}, which do not fit each other.",
                word=self.word,
                shapes=str(shapes),
            )
            raise AdapterError(what, do=tr("The file is damaged: get it again."))

    @property
    def tokens(self) -> int:
        """n: how many tokens of a prompt it takes."""
        return next(iter(self.vectors.values())).shape[0]

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.vectors.values())

    @property
    def widths(self) -> dict[str, int]:
        """D of each text encoder, by component."""
        return {component: tensor.shape[1] for component, tensor in self.vectors.items()}

    def map(self, change: Callable[[Tensor], Tensor]) -> Embedding:
        """With every tensor changed."""
        return replace(self, vectors={component: change(tensor) for component, tensor in self.vectors.items()})


Parts = Mapping[str, T]
"""A word's tensors, or their shapes, by component."""


def split(tensors: Mapping[str, T]) -> tuple[dict[str, dict[str, T]], dict[str, T]]:
    """The bundled words of a file, each with its tensors by component, and the file's other tensors."""
    words: dict[str, dict[str, T]] = {}
    rest: dict[str, T] = {}
    for name, tensor in tensors.items():
        if match := _BUNDLED.match(name):
            words.setdefault(match[1], {})[_ENCODERS.get(match[2], "text_encoder")] = tensor
        else:
            rest[name] = tensor
    return words, rest


def alone(tensors: Mapping[str, T], metadata: Mapping[str, str], path: Path) -> dict[str, dict[str, T]]:
    """The word that a file holds and nothing else, with its tensors by component; empty if it is no such file."""
    named = metadata.get(WORD) or path.stem
    if tensors and set(tensors) <= set(_ENCODERS):
        return {named: {_ENCODERS[name]: tensor for name, tensor in tensors.items()}}
    if len(tensors) != 1:
        return {}
    [(name, tensor)] = tensors.items()
    if name in _ALONE:
        return {named: {"text_encoder": tensor}}
    shape: Any = getattr(tensor, "shape", tensor)
    return {name: {"text_encoder": tensor}} if "." not in name and len(shape) in (1, 2) else {}


def collect(tensors: Mapping[str, T], metadata: Mapping[str, str], path: Path) -> tuple[dict[str, dict[str, T]], dict]:
    """Every word of a file with its tensors by component, and the file's other tensors."""
    if one := alone(tensors, metadata, path):
        return one, {}
    return split(tensors)


def decode(words: Mapping[str, Parts[Tensor]], metadata: Mapping[str, str]) -> dict[str, Embedding]:
    """Embeddings by word, from a file's tensors.

    Raises:
        AdapterError: their shapes do not fit each other.
    """
    front = _listed(metadata.get(IN_FRONT, ""))
    return {
        word: Embedding(
            word,
            {part: tensor[None] if tensor.dim() == 1 else tensor for part, tensor in sorted(parts.items())},
            word in front,
        )
        for word, parts in words.items()
    }


def encode(embeddings: Mapping[str, Embedding], bundled: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A file's tensors and the entries of its header.

    Args:
        bundled: beside an adapter's own tensors. Otherwise there is one word.

    Raises:
        AdapterError: a word cannot be part of a tensor's name, or there are several and the file holds nothing else.
    """
    tensors: dict[str, Tensor] = {}
    bundled = bundled or len(embeddings) > 1
    for word, one in embeddings.items():
        require_usable(word)
        single = set(one.vectors) == {"text_encoder"}
        for key, component in _ENCODERS.items():
            if component in one.vectors:
                name = ("string_to_param.*" if bundled else "emb_params") if single else key
                tensors[f"bundle_emb.{word}.{name}" if bundled else name] = one.vectors[component]
    front = [word for word, one in embeddings.items() if one.in_front]
    texts = {} if bundled else {WORD: next(iter(embeddings), "")}
    return tensors, texts | ({IN_FRONT: json.dumps(front)} if front else {})


def require_usable(word: str) -> None:
    """Raises AdapterError where programs could not read ``word`` in a prompt, or its file."""
    if not word or len(word) > 100 or _UNFIT.search(word):
        raise AdapterError(
            tr(
                "{word!r} cannot be a learned word: programs read it as one word of a prompt, and as the "
                "name of a file.",
                word=word,
            ),
            where="trigger",
            do=tr("Choose one word of letters, digits, hyphens and underscores, such as anastyle."),
        )


def shapes(widths: Mapping[str, Mapping[str, int]]) -> dict[str, tuple[int, int]]:
    """The shapes of weights, by canonical path, that tell the family of models whose text encoders have these widths.

    Args:
        widths: of each word, by component.
    """
    return {
        f"{component}.text_model.encoder.layers.0.self_attn.q_proj": (width, width)
        for one in widths.values()
        for component, width in one.items()
    }


def _listed(text: str) -> list[str]:
    try:
        found = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return []
    return [word for word in found if isinstance(word, str)] if isinstance(found, list) else []
