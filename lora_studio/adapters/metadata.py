"""The header's metadata: what ComfyUI, A1111 and Forge show, ModelSpec, hashes and privacy. Imports no torch.

Every value is a string. ``ss_*`` are the reference trainer's, ``modelspec.*`` the ModelSpec standard's (1.0.1),
``sshs_*`` its hashes over the tensors, ``lora_studio.*`` ours (see ``recipe`` and ``usage``).
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from lora_studio.errors import AdapterError
from lora_studio.families import registry
from lora_studio.language import tr

THUMBNAIL_SIDE = 256
MAX_THUMBNAIL = 2 * 2**20
_IMAGES = ("image/jpeg", "image/png", "image/webp")
_CLIP_SKIP = ("ss_clip_skip", "modelspec.encoder_layer")
"""sd-scripts writes both, the second into checkpoints too (its ``library/sai_model_spec.py``)."""


class Privacy(StrEnum):
    """How much an exported file says about its making."""

    NONE = "none"
    """Only what a program needs to load it, and its title."""
    MINIMAL = "minimal"
    """Also what its users need: trigger word, strength, thumbnail, author, base model."""
    FULL = "full"
    """Also the recipe: settings, seeds, hashes of the pictures, tags, versions."""


_NEEDED = {
    "ss_v2",
    "ss_base_model_version",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
    "lora_adapter_metadata",
} | {
    f"modelspec.{name}"
    for name in ("sai_model_spec", "architecture", "implementation", "title", "resolution", "prediction_type")
}
_MINIMAL = (
    _NEEDED
    | {"ss_output_name", "ss_sd_model_name", "ss_new_sd_model_hash", "ss_clip_skip", "lora_studio.strength"}
    | {
        f"modelspec.{name}"
        for name in (
            "description",
            "author",
            "date",
            "trigger_phrase",
            "usage_hint",
            "lora_default_weight",
            "thumbnail",
            "tags",
            "license",
            "merged_from",
        )
    }
)


def at(metadata: Mapping[str, str], level: Privacy) -> dict[str, str]:
    """The entries of a header that ``level`` allows."""
    allowed = {Privacy.NONE: _NEEDED, Privacy.MINIMAL: _MINIMAL}.get(level)
    return {key: value for key, value in metadata.items() if allowed is None or key in allowed}


def clip_skip(metadata: Mapping[str, str]) -> int:
    """The clip skip in the header of an adapter or checkpoint: 1 is after the text encoder's last layer, 2 before it; 0
    where the header states none.
    """
    values = [metadata.get(entry, "").strip() for entry in _CLIP_SKIP]
    return next((int(value) for value in values if value in {str(layer) for layer in range(1, 13)}), 0)


def common_clip_skip(stated: Iterable[int], allowed: Collection[int]) -> int:
    """The clip skip to draw with several adapters: the one that all agree on that state one, if it is ``allowed``; else
    0.
    """
    values = {value for value in stated if value}
    return values.pop() if len(values) == 1 and values <= set(allowed) else 0


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def technical(
    family: str, ranks: list[int], alphas: list[float], current: Mapping[str, str], title: str
) -> dict[str, str]:
    """What follows from the tensors, and replaces what a header said before.

    Args:
        family: as ``detect.family`` found it. Of an unknown one the header's own claim is kept.
        ranks: the modules' ranks; none of learned words alone. If they differ, ``ss_network_dim`` is "Dynamic", as in
            the reference resize script.
        alphas: likewise.
        current: the header so far; its title, resolution and kind of SD 2 are kept.
        title: for a header without one.
    """
    known = registry.named(family)
    if known:
        version, architecture = known.marks(_predicts_noise(current))
    else:
        version = current.get("ss_base_model_version", "")
        architecture = current.get("modelspec.architecture", registry.UNKNOWN).partition("/")[0]
    side = known.resolution if known else 0
    kind, network = "textual-inversion", {}
    if ranks:
        kind, network = "lora", _network(ranks, alphas, current)
    return network | {
        "ss_v2": str(version.startswith("sd_v2")),
        "ss_base_model_version": version,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/{kind}",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": current.get("modelspec.title") or title,
        "modelspec.resolution": current.get("modelspec.resolution") or f"{side}x{side}",
    }


def _network(ranks: list[int], alphas: list[float], current: Mapping[str, str]) -> dict[str, str]:
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": _one([str(rank) for rank in ranks]),
        "ss_network_alpha": _one([_number(alpha) for alpha in alphas]),
        "ss_network_args": current.get("ss_network_args", "{}"),
    }


def _predicts_noise(metadata: Mapping[str, str]) -> bool:
    return metadata.get("modelspec.prediction_type") == "epsilon" or metadata.get("ss_base_model_version") == "sd_v2"


def _one(values: list[str]) -> str:
    return values[0] if len(set(values)) == 1 else "Dynamic"


WORD = "lora_studio.word"
"""Names the learned word of a file that holds one alone, whatever the file is called."""
IN_FRONT = "lora_studio.in_front"
"""Lists, as JSON, the learned words that go before every prompt."""
STALE = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256", "lora_adapter_metadata", WORD, IN_FRONT)
"""Entries that are valid for one file's bytes only, and never copied to another file."""


def hashes(ss_head: bytes, data: bytes) -> dict[str, str]:
    """The three hashes of a file's tensors.

    Args:
        ss_head: length and header that the file would have with only its ``ss_*`` metadata.
        data: all bytes after the header. ``sshs_legacy_hash`` is over 64 KiB at 1 MiB of that file, its first 8 digits.
    """
    digest = hashlib.sha256(data).hexdigest()
    begin = 0x100000 - len(ss_head)
    window = (ss_head[0x100000:] + data[max(begin, 0) :])[:0x10000] if begin < 0 else data[begin : begin + 0x10000]
    return {
        "sshs_model_hash": digest,
        "sshs_legacy_hash": hashlib.sha256(window).hexdigest()[:8],
        "modelspec.hash_sha256": f"0x{digest}",
    }


def thumbnail(picture: Path | bytes) -> str:
    """``modelspec.thumbnail`` of an image: a JPEG of at most 256 px a side as a data URL.

    Raises:
        AdapterError: it is not an image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(
            io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=("PNG", "JPEG", "WEBP")
        ) as image:
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    except (UnidentifiedImageError, OSError) as error:
        raise AdapterError(
            tr("The thumbnail is not an image that can be read: {error}.", error=error),
            where="thumbnail",
            do=tr("Choose a PNG, JPEG or WebP."),
        ) from None
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnail_bytes(metadata: Mapping[str, str]) -> bytes | None:
    """The image file of a header's thumbnail; None if there is none, or it is oversized or of another kind."""
    kind, _, code = metadata.get("modelspec.thumbnail", "").partition(";base64,")
    if kind.removeprefix("data:") not in _IMAGES or len(code) > MAX_THUMBNAIL:
        return None
    try:
        return base64.b64decode(code, validate=True)
    except ValueError:
        return None


_TRIGGERS = ("modelspec.trigger_phrase", "ss_trigger_words", "trigger_words", "trained_words")
"""Entries that name the trigger by definition: ModelSpec's, then those that converters and websites write."""


def trigger(metadata: Mapping[str, str]) -> str:
    """The trigger phrase that a header states; empty if it states none. A list is joined with commas.

    It is never guessed from ``ss_tag_frequency``: the most frequent tag of a dataset is seldom its trigger. The one
    exception is ai-toolkit, which has no other place for it and writes ``{"1_ink": {"ink": 1}}``.
    """
    for key in _TRIGGERS:
        if phrase := _phrase(metadata.get(key, "")):
            return phrase[:200]
    return _of_ai_toolkit(metadata)[:200]


def _phrase(text: str) -> str:
    """``text``, or the strings of the JSON list that it holds."""
    found = _json(text) if text.lstrip().startswith("[") else None
    if isinstance(found, list):
        return ", ".join(word for item in found if isinstance(item, str) and (word := item.strip()))
    return text.strip()


def _of_ai_toolkit(metadata: Mapping[str, str]) -> str:
    software, tags = (_json(metadata.get(key, "")) for key in ("software", "ss_tag_frequency"))
    if not isinstance(software, dict) or software.get("name") != "ai-toolkit":
        return ""
    if not isinstance(tags, dict) or len(tags) != 1:
        return ""
    [(folder, counts)] = tags.items()
    word = folder.removeprefix("1_")
    return word.strip() if counts == {word: 1} else ""


def _json(text: str) -> Any:
    """The value of a JSON text; None if it is none, or holds lone surrogates, which no file or page can hold."""
    try:
        return from_json(text)
    except ValueError:
        return None
