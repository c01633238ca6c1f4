"""A base model's files before they are loaded: whether they are there, and one sum to find the same model again at
another place. Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from lora_studio import files
from lora_studio.errors import ModelError
from lora_studio.families import registry


def require_given(vae: str, text_encoders: Sequence[str]) -> None:
    """Raises ModelError where a file that completes a base model, as the settings of these names, is not there."""
    for where, text in [("vae", vae), *(("text_encoders", each) for each in text_encoders)]:
        path = os.path.expanduser(text)
        if text and not os.path.isfile(path):
            what = f"{text} is a folder, not a file." if os.path.isdir(path) else f"There is no file at {text}."
            raise ModelError(what, where=where, do="Give the path of a .safetensors file.")


def sha256_of(path: Path) -> str:
    """SHA-256 of a single file, or over the names and sums of a folder's weight files; in hexadecimal.

    Raises:
        OSError: a file cannot be read.
    """
    if path.is_file():
        return files.sha256(path)
    parts = dict.fromkeys(part for family in registry.FAMILIES for part in (family.denoiser, "vae", *family.encoders))
    weights = (file for part in parts for file in sorted((path / part).glob("*.safetensors")))
    return hashlib.sha256(
        "".join(f"{file.relative_to(path).as_posix()} {files.sha256(file)}\n" for file in weights).encode()
    ).hexdigest()
