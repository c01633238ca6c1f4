"""Fetching a base model from the Hugging Face hub: only when asked to. Everything else in the studio looks into the
hub's local cache alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from lora_studio.errors import MachineError, ModelError

_FOLDERS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
_INDEX = "model_index.json"


@dataclass(frozen=True)
class Offer:
    """A model on the hub, and what of it would be fetched."""

    name: str
    revision: str
    """Its commit."""
    licence: str
    """As its author names it; empty if none is named."""
    files: dict[str, int]
    """Path -> bytes: one set of safetensors weights and the configurations."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def look(name: str) -> Offer:
    """What the hub says of the model ``name``.

    Raises:
        ModelError: the hub has no such model, wants a login for it, or it is not in diffusers' layout with safetensors
        weights.
        MachineError: the hub cannot be reached.
    """
    with _explained(name):
        info = HfApi().model_info(name, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    licence = next((tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:")), "")
    return Offer(name, info.sha or "", licence, _wanted(name, sizes))


def _wanted(name: str, sizes: dict[str, int]) -> dict[str, int]:
    """The files that the studio reads: of each part the half precision weights where there are any, since that is half
    as much to fetch.
    """
    if _INDEX not in sizes:
        raise ModelError(
            f"{name} is not in diffusers' layout.",
            where=name,
            do="Download its .safetensors file in the browser, and give that as base model.",
        )
    wanted = {_INDEX: sizes[_INDEX]}
    for folder in _FOLDERS:
        inside = {path: size for path, size in sizes.items() if path.startswith(f"{folder}/")}
        wanted |= {
            path: size for path, size in inside.items() if path.endswith((".json", ".txt")) and "index" not in path
        }
        stem = f"{folder}/{'diffusion_pytorch_model' if folder in ('unet', 'vae') else 'model'}"
        weights = next((found for variant in (".fp16", "") if (found := _weights(inside, stem, variant))), {})
        if not weights and f"{folder}/config.json" in inside:
            raise ModelError(
                f"{name} has no safetensors weights for its {folder}.",
                where=name,
                do="Choose a model that has them: pickled weights can run code.",
            )
        wanted |= weights
    return wanted


def _weights(inside: dict[str, int], stem: str, variant: str) -> dict[str, int]:
    """A part's whole file, or its shards with their index."""
    whole, index = f"{stem}{variant}.safetensors", f"{stem}.safetensors.index{variant}.json"
    if whole in inside:
        return {whole: inside[whole]}
    if index not in inside:
        return {}
    shards = {
        path: size
        for path, size in inside.items()
        if path.startswith(f"{stem}{variant}-") and path.endswith(".safetensors")
    }
    return {index: inside[index], **shards}


def fetch(offer: Offer) -> Path:
    """Fetches what is not here yet into the hub's local cache, showing progress on standard error. Returns the model's
    folder.

    A connection that breaks is taken up where it was, a few times; after that, or after Ctrl-C, the next call keeps
    every file that was fetched whole.

    Raises:
        ModelError: the hub refuses it.
        MachineError: there is no room for it, or the connection broke.
    """
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if offer.size > free:
        raise MachineError(
            f"{offer.name} takes {offer.size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free.",
            where=cache,
            do="Free some space, or set HF_HOME to a folder on a larger disk.",
        )
    with _explained(offer.name):
        return Path(snapshot_download(offer.name, revision="main", allow_patterns=list(offer.files), max_workers=2))


@contextmanager
def _explained(name: str) -> Generator[None]:
    """The hub's errors in plain words."""
    again = "Start the command again: files that are here whole are not fetched twice."
    try:
        yield
    except HFValidationError:
        raise ModelError(
            f"{name!r} is no name of a model on the hub.", where="NAME", do="It has the form author/model."
        ) from None
    except GatedRepoError:
        raise ModelError(
            f"{name} is only given to those who accepted its licence.",
            where=name,
            do="Accept it on its page at huggingface.co, then log in with: hf auth login",
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"The hub has no model named {name}, or not for everyone.",
            where=name,
            do="Check the name on huggingface.co.",
        ) from None
    except OfflineModeIsEnabled:
        raise MachineError(
            "HF_HUB_OFFLINE forbids downloads here.", where="HF_HUB_OFFLINE", do="Unset that variable for this command."
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError) as error:
        raise MachineError(f"The download broke off: {str(error).splitlines()[0]}", where=name, do=again) from error
    except OSError as error:
        raise MachineError(
            f"The download cannot be saved: {error.strerror or error}.",
            where=error.filename or constants.HF_HUB_CACHE,
            do=again,
        ) from error
