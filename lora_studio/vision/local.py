"""Finds a model that looks at pictures on this machine: a folder, a file, or the hub's local cache. Never asks the
network, and opens no weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants, file_download

from lora_studio.errors import ModelError
from lora_studio.language import in_sequence, tr
from lora_studio.vision import catalogue
from lora_studio.vision.catalogue import Task

TAGS_FILE = "selected_tags.csv"
CONFIG = "config.json"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class FoundModel(NamedTuple):
    """A model on this machine. ``path`` is the folder of a captioner, and the ``.onnx`` file of the others."""

    path: Path
    name: str
    """For people."""
    task: Task


def find(model: str) -> FoundModel:
    """The model that ``model`` names: a key of the catalogue, a folder in the hub's layout, an ``.onnx`` file, or a
    name on the hub that was downloaded.

    Raises:
        ModelError: there is none, or it cannot be used. Where a download would help, ``details`` has the name on the
            hub as ``download``.
    """
    offered = catalogue.named(model)
    path = Path(model).expanduser()
    if offered is None and path.exists():
        return _at(path, path.resolve().name)
    name = offered.hub if offered else model
    if not _HUB_NAME.fullmatch(name):
        keys = ", ".join(one.key for one in catalogue.MODELS)
        raise ModelError(
            tr("There is no model at {path}.", path=path),
            where=model,
            do=tr(
                "Give a folder, an .onnx file, a name on the hub such as author/model, or one of: {keys}.", keys=keys
            ),
        )
    return _at(_cached(name), offered.title if offered else name)


def _cached(name: str) -> Path:
    """Its folder in the hub's local cache
    (https://huggingface.co/docs/huggingface_hub/guides/manage-cache#understand-caching). That it was fetched whole is
    not asked: of many repositories a model needs only some files.
    """
    cached = Path(constants.HF_HUB_CACHE) / file_download.repo_folder_name(repo_id=name, repo_type="model")
    try:
        folder = cached / "snapshots" / (cached / "refs" / "main").read_text().strip()
    except OSError:
        raise missing(name) from None
    if not folder.is_dir():
        raise missing(name)
    return folder


def missing(name: str) -> ModelError:
    """The error for a model of the hub that was not downloaded: what it takes, and how to get it."""
    offered = catalogue.named(name)
    download = tr(
        "Download it with: {command}. With --look, that command only shows its size and licence.",
        command=f"python3 app.py download {name}",
    )
    size = tr("It takes {size:.1f} GB.", size=offered.size / 1e9) if offered and offered.size else ""
    licence = tr("Its licence is {licence}.", licence=offered.licence) if offered else ""
    return ModelError(
        tr("{name} was not downloaded yet.", name=name),
        where=name,
        do=in_sequence([size, licence, download]),
        details={"download": name},
    )


def _at(path: Path, name: str) -> FoundModel:
    if path.is_file():
        if path.suffix.lower() != ".onnx":
            raise ModelError(
                tr("{name} is no .onnx file.", name=path.name),
                where=path,
                do=tr("Give an .onnx file or a model's folder."),
            )
        return FoundModel(path, name, Task.TAGS if (path.parent / TAGS_FILE).is_file() else Task.MASKS)
    if (path / TAGS_FILE).is_file():
        return FoundModel(_onnx(path), name, Task.TAGS)
    if weights(path):
        return FoundModel(path, name, Task.SENTENCES)
    if [*path.glob("*.onnx"), *path.glob("onnx/*.onnx")]:
        return FoundModel(_onnx(path), name, Task.MASKS)
    raise _unusable(path)


def weights(folder: Path) -> Sequence[Path]:
    """The safetensors files of a captioner in the hub's layout; empty if ``folder`` holds none, or no configuration."""
    return sorted(folder.glob("*.safetensors")) if (folder / CONFIG).is_file() else []


def _onnx(folder: Path) -> Path:
    """The model's file: ``model.onnx``, there or in ``onnx/``, or the only one there is."""
    for usual in (folder / "model.onnx", folder / "onnx" / "model.onnx"):
        if usual.is_file():
            return usual
    found = sorted(folder.glob("*.onnx"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelError(
            tr("{name} holds no .onnx file.", name=folder.name), where=folder, do=tr("Download the model again.")
        )
    listed = ", ".join(path.name for path in found)
    raise ModelError(
        tr("{name} holds several .onnx files: {names}.", name=folder.name, names=listed),
        where=folder,
        do=tr("Name one of them."),
    )


def _unusable(folder: Path) -> ModelError:
    if any(path.suffix.lower() in _PICKLES for path in folder.iterdir()):
        return ModelError(
            tr("{name} holds pickled weights, which can run code, and no safetensors.", name=folder.name),
            where=folder,
            do=tr("Choose a model that has safetensors weights."),
        )
    return ModelError(
        tr("{name} is no model that looks at pictures.", name=folder.name),
        where=folder,
        do=tr(
            "A captioner's folder holds config.json and safetensors weights, a tagger's an .onnx "
            "file and {tags_file}, a segmenter's an .onnx file.",
            tags_file=TAGS_FILE,
        ),
    )
