"""How programs read the learned words of a file, for the proof of exports. As ``targets`` it shares no code with the
writers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from lora_studio.adapters.embedding import Embedding
from lora_studio.language import both, in_sequence, tr

Tensors = Mapping[str, Tensor]
_KEYS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


class Heard(NamedTuple):
    """A file's words as one program reads them."""

    vectors: dict[str, dict[str, Tensor]]
    """By word ("" where the program goes by the file's name) and component."""
    how: str
    """What the user must do for it: a sentence, or empty."""


def _a1111(tensors: Tensors, encoders: list[str]) -> Heard:
    """A1111 and Forge: bundled words with the LoRA (``load_network``), else the file as an embedding
    (``create_embedding_from_data``).
    """
    bundles: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        head, _, part = key.partition(".")
        if head == "bundle_emb":
            name, vector = part.split(".", 1)
            bundles.setdefault(name, {})[vector.split(".")[0]] = tensor
    if bundles:
        return Heard({name: _of_one(held, encoders) for name, held in bundles.items()}, "")
    return Heard({"": _of_one(tensors, encoders)}, tr("It is called by the file's name, from the folder embeddings."))


def _of_one(held: Tensors, encoders: list[str]) -> dict[str, Tensor]:
    if "clip_g" in held and "clip_l" in held:
        return {component: held[key] for component, key in _KEYS.items()}
    if len(held) != 1:
        raise ValueError(tr("it expects one tensor, or clip_l and clip_g"))
    return {encoders[0]: next(iter(held.values()))}


def _comfyui(tensors: Tensors, encoders: list[str]) -> Heard:
    """ComfyUI reads words from its folder of embeddings alone, also out of a LoRA's file (``load_embed``)."""
    found = {}
    for component in encoders:
        key = _KEYS[component]
        chosen = [tensors[key]] if key in tensors else _ending(tensors, ".string_to_param.*")
        chosen = chosen or _ending(tensors, f".{key}") or list(tensors.values())[:1]
        found[component] = torch.cat(chosen)
    bundled = any(key.startswith("bundle_emb.") for key in tensors)
    if bundled:
        how = tr(
            "Put the file into models/embeddings as well: its LoRA node does not read words. Write embedding: and the "
            "file's name into the prompt."
        )
    else:
        how = tr("Write embedding: and the file's name into the prompt.")
    return Heard({"": found}, how)


def _ending(tensors: Tensors, end: str) -> list[Tensor]:
    return [tensor for key, tensor in tensors.items() if key.startswith("bundle_emb.") and key.endswith(end)]


def _diffusers(tensors: Tensors, encoders: list[str]) -> Heard:
    """diffusers' ``load_textual_inversion`` takes one tensor, or one for each encoder; its LoRA loader refuses a file
    with tensors that are no LoRA's.
    """
    if any(key.startswith("bundle_emb.") for key in tensors):
        raise ValueError(
            tr("diffusers refuses a LoRA's file with bundled words: leave them out, and export them alone")
        )
    if len(encoders) == 1 and len(tensors) == 1:
        return Heard({"": {encoders[0]: next(iter(tensors.values()))}}, tr("Pass the word as token=."))
    return Heard({"": {part: tensors[_KEYS[part]] for part in encoders}}, tr("Load clip_l and clip_g one by one."))


READERS: dict[str, Callable[[Tensors, list[str]], Heard]] = {
    "comfyui": _comfyui,
    "forge": _a1111,
    "a1111": _a1111,
    "diffusers": _diffusers,
}


def heard(path: Path, target: str, embeddings: Mapping[str, Embedding]) -> tuple[str, str]:
    """What the program does with the words in the file at ``path``.

    Returns:
        Why they do not arrive, or empty; and what is to be said if they do.
    """
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in sorted(file.keys())}
    if target not in READERS:
        return tr("It reads no learned words."), ""
    try:
        found = READERS[target](tensors, sorted(next(iter(embeddings.values())).vectors))
    except (KeyError, ValueError, RuntimeError) as error:
        return tr("Its words do not arrive: {error}.", error=error), ""
    for word, one in embeddings.items():
        theirs = found.vectors.get(word) or found.vectors.get("", {})
        for component, vectors in one.vectors.items():
            if not _same(theirs.get(component), vectors):
                return tr("The word {word!r} would be read otherwise.", word=word), ""
    arrives = tr("The word {words} arrives.", words=both(embeddings))
    return "", in_sequence([arrives, found.how])


def bundled(path: Path) -> int:
    """The tensors in a file that are words."""
    with safe_open(str(path), framework="pt") as file:
        return sum(key.startswith("bundle_emb.") or key in ("emb_params", *_KEYS.values()) for key in file.keys())


def _same(theirs: Tensor | None, own: Tensor) -> bool:
    """Whether both are equal up to the rounding of the file's number format."""
    if theirs is None or theirs.shape != own.shape:
        return False
    close = 2 * torch.finfo(theirs.dtype).eps
    return torch.allclose(theirs.float(), own.float(), rtol=close, atol=1e-7)
