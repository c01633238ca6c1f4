"""A base model's files before they are loaded: whether they are there, and one sum to find the same model again at
another place. Imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from lora_studio import files
from lora_studio.errors import ModelError
from lora_studio.families import registry
from lora_studio.language import tr

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def require_given(vae: str, text_encoders: Sequence[str]) -> None:
    """Raises ModelError where a file that completes a base model, as the settings of these names, is not there."""
    for where, text in [("vae", vae), *(("text_encoders", each) for each in text_encoders)]:
        path = os.path.expanduser(text)
        if text and not os.path.isfile(path):
            what = tr("There is no file at {path}.", path=text)
            if os.path.isdir(path):
                what = tr("{path} is a folder, not a file.", path=text)
            raise ModelError(what, where=where, do=tr("Give the path of a .safetensors file."))


def located(base: str) -> Path:
    """The folder or file that ``base`` names, which is not the starter.

    Raises:
        ModelError: it is none, and no model of that name is in the hub's local cache.
    """
    path = Path(base).expanduser()
    if path.is_file() or path.is_dir():
        return path
    if _HUB_NAME.fullmatch(base):
        return _cached(base)
    raise ModelError(
        tr("There is no base model at {path}.", path=path),
        where="base",
        do=tr("Give the path of a diffusers folder or of a .safetensors file, or take the starter."),
    )


def _cached(name: str) -> Path:
    """Its folder in the hub's local cache. That it was fetched whole is not asked: of many repositories a model needs
    only some files.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True, allow_patterns=["model_index.json"]))
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError, OSError):
        raise ModelError(
            tr("{name} is neither a file or folder here nor a model that was downloaded.", name=name),
            where="base",
            do=tr(
                "Fetch it with: {command}. Or give the path of a diffusers folder or of a .safetensors file.",
                command=f"python3 app.py download {name}",
            ),
        ) from None


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
