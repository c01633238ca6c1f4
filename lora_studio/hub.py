"""Fetching a model from the Hugging Face hub: only when asked to. Everything else in the studio looks into the hub's
local cache alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, constants, file_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import build_hf_headers

from lora_studio import files, locks
from lora_studio.errors import MachineError, ModelError
from lora_studio.language import tr

_FOLDERS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
_INDEX = "model_index.json"
LARGE = 8 * 2**20
"""Bytes from which on a file that was fetched in part is kept, also when the process ends."""


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


def base_model(name: str, sizes: dict[str, int]) -> dict[str, int]:
    """The files that the studio reads of a base model: of each part the half precision weights where there are any,
    since that is half as much to fetch.

    Raises:
        ModelError: it is not in diffusers' layout with safetensors weights.
    """
    if _INDEX not in sizes:
        raise ModelError(
            tr("{name} is not in diffusers' layout.", name=name),
            where=name,
            do=tr("Download its .safetensors file in the browser, and give that as base model."),
        )
    wanted = {_INDEX: sizes[_INDEX]}
    for folder in _FOLDERS:
        inside = {path: size for path, size in sizes.items() if path.startswith(f"{folder}/")}
        wanted |= {
            path: size for path, size in inside.items() if path.endswith((".json", ".txt")) and "index" not in path
        }
        stem = f"{folder}/{'diffusion_pytorch_model' if folder in ('unet', 'vae') else 'model'}"
        found = next((found for variant in (".fp16", "") if (found := weights(inside, stem, variant))), {})
        if not found and f"{folder}/config.json" in inside:
            raise ModelError(
                tr("{name} has no safetensors weights for its {part}.", name=name, part=folder),
                where=name,
                do=tr("Choose a model that has them: pickled weights can run code."),
            )
        wanted |= found
    return wanted


Choose = Callable[[str, dict[str, int]], dict[str, int]]
"""Of a model's name and all its files, the files to fetch."""


def look(name: str, choose: Choose = base_model) -> Offer:
    """What the hub says of the model ``name``, and what of it would be fetched.

    Raises:
        ModelError: the hub has no such model or wants a login for it; or what ``choose`` raises.
        MachineError: the hub cannot be reached.
    """
    with _explained(name):
        info = HfApi().model_info(name, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    licence = next((tag.removeprefix("license:") for tag in info.tags or [] if tag.startswith("license:")), "")
    return Offer(name, info.sha or "", licence, choose(name, sizes))


def weights(inside: dict[str, int], stem: str, variant: str = "") -> dict[str, int]:
    """A part's whole file, or its shards with their index; empty if there are no safetensors."""
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

    A connection that breaks is taken up where it was, a few times; after that, or when the process ends, the next call
    goes on from there.

    Raises:
        ModelError: the hub refuses it.
        MachineError: there is no room for it, or the connection broke.
    """
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if offer.size > free:
        raise MachineError(
            tr(
                "{name} takes {size:.1f} GB, and {free:.1f} GB are free.",
                name=offer.name,
                size=offer.size / 1e9,
                free=free / 1e9,
            ),
            where=cache,
            do=tr("Free some space, or set HF_HOME to a folder on a larger disk."),
        )
    with _explained(offer.name):
        for path, size in offer.files.items():
            if size >= LARGE:
                _fetch_large(offer.name, path)
        return Path(snapshot_download(offer.name, revision="main", allow_patterns=list(offer.files), max_workers=2))


def _fetch_large(name: str, path: str) -> None:
    """Puts a file's content where the hub's cache keeps it, from what an earlier call has left of it on: the library
    itself begins a file anew in each process.

    Raises:
        MachineError: what came is not what the hub names.
    """
    url = file_download.hf_hub_url(name, path)
    told = file_download.get_hf_file_metadata(url)
    if not told.etag:
        return  # the library fetches it
    blob = _blobs(name) / told.etag
    files.make_folder(blob.parent)
    partial = blob.with_name(f"{blob.name}.kept")
    with locks.held(blob.with_name(f"{blob.name}.lock")):
        if blob.exists():
            return
        headers = build_hf_headers()
        if urlsplit(told.location).netloc != urlsplit(url).netloc:  # a token is for the hub alone
            headers.pop("authorization", None)
        with open(partial, "ab") as file:
            kept = file.tell()
            file_download.http_get(
                told.location, file, resume_size=kept, headers=headers, expected_size=told.size, displayed_filename=path
            )
        if kept and len(told.etag) == 64 and files.sha256(partial) != told.etag:
            files.unlink(partial)
            raise MachineError(
                tr("{path} came damaged.", path=path),
                where=name,
                do=tr("Start the download again: that file is fetched anew."),
            )
        os.replace(partial, blob)


def _blobs(name: str) -> Path:
    """Where the hub's cache keeps a model's files, each named by the hash of its content."""
    return Path(constants.HF_HUB_CACHE) / file_download.repo_folder_name(repo_id=name, repo_type="model") / "blobs"


def fetched(name: str) -> int:
    """Bytes of the model ``name`` that are here, also of files that are being fetched."""
    try:
        return sum(entry.stat().st_size for entry in _blobs(name).iterdir())
    except OSError:  # nothing yet, or a file was just renamed
        return 0


@contextmanager
def _explained(name: str) -> Generator[None]:
    """The hub's errors in plain words."""
    again = tr("Start the command again: files that are here whole are not fetched twice.")
    try:
        yield
    except HFValidationError:
        raise ModelError(
            tr("{name!r} is no name of a model on the hub.", name=name),
            where="NAME",
            do=tr("It has the form author/model."),
        ) from None
    except GatedRepoError:
        raise ModelError(
            tr("{name} is only given to those who accepted its licence.", name=name),
            where=name,
            do=tr("Accept it on its page at huggingface.co, then log in with: hf auth login"),
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            tr("The hub has no model named {name}, or not for everyone.", name=name),
            where=name,
            do=tr("Check the name on huggingface.co."),
        ) from None
    except OfflineModeIsEnabled:
        raise MachineError(
            tr("HF_HUB_OFFLINE forbids downloads here."),
            where="HF_HUB_OFFLINE",
            do=tr("Unset that variable for this command."),
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError) as error:
        raise MachineError(
            tr("The download broke off: {reason}", reason=str(error).splitlines()[0]), where=name, do=again
        ) from error
    except OSError as error:
        raise MachineError(
            tr("The download cannot be saved: {reason}.", reason=error.strerror or error),
            where=error.filename or constants.HF_HUB_CACHE,
            do=again,
        ) from error
