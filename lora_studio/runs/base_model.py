"""What a base model's configurations and file headers tell of its family. No weight is read, torch is not imported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio.adapters import container
from lora_studio.errors import AdapterError, ModelError
from lora_studio.families import contents, registry
from lora_studio.families.contents import FilePart
from lora_studio.families.family import Family
from lora_studio.language import tr


class FileLook(NamedTuple):
    """A single file: its header, the parts of models in it, and the family of its denoiser."""

    header: container.Header
    parts: Sequence[FilePart]
    denoiser: FilePart
    family: Family


class FolderLook(NamedTuple):
    """A folder in diffusers' layout: its family, and its denoiser's configuration."""

    family: Family
    denoiser: dict[str, Any]


def of_file(path: Path) -> FileLook:
    """What is in the file ``path``.

    Raises:
        ModelError: it is damaged, holds no base model, or one of a family that is not supported.
    """
    header = header_of(path)
    parts = contents.parts(header.shapes)
    denoiser = next((part for part in parts if part.kind == "unet"), None)
    if denoiser is None:
        raise registry.unknown(header.shapes, path, "no base model")
    return FileLook(header, parts, denoiser, registry.of_denoiser(denoiser.shapes, path, header.shapes))


def of_folder(path: Path) -> FolderLook:
    """What is in the folder ``path``.

    Raises:
        ModelError: a configuration is damaged, there is no base model, or one of a family that is not supported.
    """
    found = {
        part: read_json(path / part / "config.json")
        for part in registry.denoiser_folders()
        if (path / part / "config.json").is_file()
    }
    index = path / "model_index.json"
    family = registry.of_folder(read_json(index) if index.is_file() else {}, found, path)
    return FolderLook(family, found[family.denoiser])


def header_of(path: Path) -> container.Header:
    """A file's header. Raises ModelError where it is damaged."""
    try:
        return container.read_header(path)
    except AdapterError as error:
        raise ModelError(error.what, where=error.where, do=error.do) from None


def read_json(path: Path) -> dict[str, Any]:
    """The table in a file. Raises ModelError where there is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ModelError(
            tr("{name} cannot be read as JSON.", name=path.name),
            where=path,
            do=tr("Download it again, or choose another base model."),
        )
    return found
