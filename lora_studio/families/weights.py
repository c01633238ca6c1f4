"""A base model's files as one sum, to find the same model again at another place. Imports no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lora_studio import files
from lora_studio.families import registry


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
