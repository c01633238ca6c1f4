"""Scales beside weights in eight bits: a float8 weight and its scale are multiplied to the weight that was meant.

Per tensor or per output row, as ComfyUI writes them: ``X.scale_weight`` with an empty mark ``scaled_fp8`` in its older
files, ``X.weight_scale`` with ``X.comfy_quant`` or the header's ``_quantization_metadata`` in its newer ones (ComfyUI,
``QUANTIZATION.md``). Scales of activations (``input_scale``, ``scale_input``) are for products in eight bits alone, so
they are not needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lora_studio.adapters.container import Header
from lora_studio.errors import ModelError
from lora_studio.language import tr

if TYPE_CHECKING:
    from torch import Tensor

MARK = "scaled_fp8"
"""An empty tensor in ComfyUI's older files."""
_SCALES = (".scale_weight", ".weight_scale")
_UNUSED = (".scale_input", ".input_scale", ".comfy_quant")
_FORMATS = ("float8_e4m3fn", "float8_e5m2")
_FLOAT8 = ("F8_E4M3", "F8_E5M2")
_OTHERS = {
    r"\.weight_scale_2$": "NVFP4",
    r"\.weight_scale_inv$": tr("block-wise float8"),
    r"\.weight\.(?:absmax|quant_map|quant_state\..+)$": tr("bitsandbytes' four bits"),
    r"\.(?:weight\.)?SCB$": tr("bitsandbytes' eight bits"),
    r"\.(?:qweight|qzeros)$": tr("GPTQ or AWQ"),
}
"""What ends a key -> the layout that it belongs to, which is not read."""
_DO = tr("Choose a copy of the model in fp16, bf16 or plain fp8.")


def scales_of(header: Header, path: Path) -> dict[str, str]:
    """Weight -> the key of its scale.

    Raises:
        ModelError: the file is in another layout of few bits, or a scale is neither one number nor one for each row.
    """
    for pattern, title in _OTHERS.items():
        if found := next((key for key in header.entries if re.search(pattern, key)), None):
            raise _unknown(path, title, found)
    for name in _formats(header, path):
        if name not in _FORMATS:
            raise _unknown(path, name, tr("its quantization metadata"))
    return dict(_pairs(header, path))


def beside(header: Header) -> set[str]:
    """The keys that belong to a weight in eight bits: scales and what says how it was made."""
    return {key for key in header.entries if f".{key}".endswith((f".{MARK}", *_SCALES, *_UNUSED))}


def multiplied(weight: Tensor, scale: Tensor) -> Tensor:
    """``weight`` (out, …) times ``scale``, () or one for each row: float32."""
    return weight.float() * scale.float().reshape(-1, *[1] * (weight.ndim - 1))


def read(path: Path, header: Header, key: str, scale: str | None) -> Tensor:
    """The tensor ``key`` of a file, multiplied by the tensor ``scale`` if that is given."""
    from lora_studio.adapters.tensors import read_tensor  # torch

    with open(path, "rb") as file:
        tensor = read_tensor(file, header, key)
        return multiplied(tensor, read_tensor(file, header, scale)) if scale else tensor


def _pairs(header: Header, path: Path) -> Iterator[tuple[str, str]]:
    shapes = header.shapes
    for key, shape in shapes.items():
        if not key.endswith(_SCALES):
            continue
        weight = f"{key.rpartition('.')[0]}.weight"
        if weight not in shapes:
            raise ModelError(
                tr("{name} has {key}, but not the weight that it scales.", name=path.name, key=key), where=path, do=_DO
            )
        rows = shapes[weight][:1]
        if header.entries[weight].dtype not in _FLOAT8:
            raise _unknown(path, tr("{precision} with scales", precision=header.entries[weight].dtype), weight)
        if any(side != 1 for side in shape) and (shape[:1] != rows or any(side != 1 for side in shape[1:])):
            layout = tr(
                "float8 with scales of shape {shape} for weights of {weight}",
                shape=str(shape),
                weight=str(shapes[weight]),
            )
            raise _unknown(path, layout, key)
        yield weight, key


def _formats(header: Header, path: Path) -> Iterator[str]:
    """The formats that the file says its layers are in."""
    try:
        layers = json.loads(header.metadata.get("_quantization_metadata", "{}")).get("layers", {})
        yield from {str(layer["format"]) for layer in layers.values()}
        with open(path, "rb") as file:
            for key, entry in header.entries.items():
                if key.endswith(".comfy_quant"):
                    file.seek(header.data_start + entry.start)
                    yield str(json.loads(file.read(min(entry.end - entry.start, 4096)))["format"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _unknown(path, tr("a layout that its quantization metadata does not name"), tr("it")) from None


def _unknown(path: Path, title: str, where: str) -> ModelError:
    return ModelError(
        tr("{name} is quantized as {title} ({where}), which cannot be read.", name=path.name, title=title, where=where),
        where=path,
        do=_DO,
    )


def require_plain(header: Header, path: Path) -> None:
    """Raises ModelError for a file whose weights have scales: what changes its weights one by one would change them by
    another amount.
    """
    if scaled := scales_of(header, path):
        raise ModelError(
            tr(
                "{name} holds scaled float8 weights ({number}), to which nothing can be added.",
                name=path.name,
                number=len(scaled),
            ),
            where=path,
            do=_DO,
        )
