"""Adapter files and folders, in any dialect: reading and writing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lora_studio import files
from lora_studio.adapters import detect, diffusers, embedding, foreign, keys, kohya, output_kinds, overflow, peft
from lora_studio.adapters import metadata as meta
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.adapters.head import head, with_hashes
from lora_studio.adapters.tensors import body, laid_out, load, require_finite
from lora_studio.errors import AdapterError
from lora_studio.families import registry
from lora_studio.language import both, tr

Dialect = Literal["kohya", "diffusers", "peft"]


def read(path: Path | str) -> Adapter:
    """The adapter in a .safetensors file or a peft folder, whatever its dialect and method.

    LoHa and LoKr become plain factors of a larger rank, exactly; DoRA keeps its magnitude. Tensors keep their dtype.

    Raises:
        AdapterError: the file is no adapter, damaged, hostile, holds NaN or overflows, or holds parts that the studio
            cannot apply.
    """
    adapter = _read(Path(path))
    overflow.require_usable(adapter.factors, path)
    return replace(adapter, file=Path(path).name)


def _read(path: Path) -> Adapter:
    if path.is_dir():
        return _read_folder(path)
    config = path.with_name(peft.CONFIG)
    if path.name == peft.MODEL and config.is_file():
        return _read_folder(path.parent)
    held, header = load(path)
    words, tensors = embedding.collect(held, header.metadata, path)
    embeddings = embedding.decode(words, header.metadata)
    if embeddings and not tensors:
        return _of_words(Adapter({}, header.metadata, embeddings=embeddings), path)
    modules = _modules(tensors, header.metadata, path)
    texts = detect.told(header.metadata, tensors)
    kernels = _kernels(modules, texts)
    plain, outputs = output_kinds.parted(modules)
    if detect.dialect(tensors) == "kohya":
        return Adapter(kohya.decode(plain, kernels), texts, outputs=outputs, embeddings=embeddings)
    return Adapter(diffusers.decode(plain, texts, kernels), texts, outputs=outputs, embeddings=embeddings)


def _of_words(adapter: Adapter, path: Path) -> Adapter:
    """``adapter``, which holds words alone, unless no family's text encoders read them."""
    if adapter.family == registry.UNKNOWN:
        widths = sorted({width for one in adapter.embeddings.values() for width in one.widths.values()})
        raise AdapterError(
            tr(
                "{name} holds vectors of {widths} numbers, which no text encoder of the studio's base models reads.",
                name=path.name,
                widths=both(map(str, widths)),
            ),
            where=path,
            do=tr("Choose an embedding for Stable Diffusion 1.5, 2 or XL."),
        )
    return adapter


def _modules(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path, component: str = ""
) -> dict[str, dict[str, Tensor]]:
    """The file's tensors by module; refuses a file that is no adapter or that holds more than factors."""
    modules, unknown = keys.collect(tensors, component)
    if unknown or not modules or foreign.text_alone(modules, metadata):
        raise foreign.refusal(_shapes(tensors), unknown, metadata, path)
    return modules


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _kernels(modules: kohya.Modules, metadata: Mapping[str, str]) -> kohya.Kernels:
    """The kernels of the family that the file was made for."""
    try:
        return detect.kernels(detect.family_of({path: _shapes(module) for path, module in modules.items()}, metadata))
    except IndexError:
        return {}  # factors of too few dimensions, which the decoders name


def _read_folder(folder: Path) -> Adapter:
    """A peft folder, or one that holds a peft folder for each component."""
    parts = (
        {"": folder}
        if (folder / peft.MODEL).is_file()
        else {
            component: folder / component
            for component in registry.components()
            if (folder / component / peft.MODEL).is_file()
        }
    )
    if not parts:
        raise AdapterError(
            tr("{name} holds no {file}.", name=folder.name, file=peft.MODEL),
            where=folder,
            do=tr("Choose a .safetensors file or a folder that peft wrote."),
        )
    configs = {component: _config(part / peft.CONFIG) for component, part in parts.items()}
    modules: dict[str, dict[str, dict[str, Tensor]]] = {}
    metadata: dict[str, str] = {}
    for component, part in parts.items():
        peft.require_readable(configs[component], part / peft.CONFIG)
        tensors, header = load(part / peft.MODEL)
        modules[component] = _modules(tensors, header.metadata, part / peft.MODEL, component)
        metadata.update(header.metadata)
    kernels = _kernels({path: module for part in modules.values() for path, module in part.items()}, metadata)
    factors: dict[str, Factors] = {}
    for component, part in modules.items():
        factors.update(peft.decode(part, configs[component], kernels))
    return Adapter(factors, metadata)


def _config(path: Path) -> dict[str, Any]:
    """peft's config; a folder without one has scale 1, as in files without alpha."""
    try:
        config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError, OSError):
        config = None
    if not isinstance(config, dict):
        raise AdapterError(
            tr("{name} is not valid JSON.", name=path.name),
            where=path,
            do=tr("Get the folder again: the adapter's alpha is in this file."),
        )
    return config


def write(
    adapter: Adapter,
    path: Path | str,
    dialect: Dialect = "kohya",
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
    privacy: meta.Privacy = meta.Privacy.FULL,
    raw_dora: bool = False,
) -> Path:
    """Writes the adapter in one step, so that after a crash the old file or the new one is there.

    Args:
        path: the file; for peft a folder, which must not exist yet or be empty.
        dialect: ``kohya`` is what ComfyUI, A1111 and Forge load.
        dtype: number format of the weights; None keeps theirs.
        metadata: laid over the adapter's own; rank, alpha, family and hashes are always written as the tensors have
            them.
        privacy: how much of that the file reveals.
        raw_dora: writes DoRA's magnitude, which most programs read wrongly or drop; ``dora.as_lora`` gives what all
            read.

    Returns:
        The path written to.

    Raises:
        AdapterError: there is nothing in it, it is a DoRA and not asked for raw, or a value does not fit ``dtype``.
    """
    path = Path(path)
    if not adapter.changes and not adapter.embeddings:
        raise AdapterError(
            tr("The adapter is empty."), where=path, do=tr("Train or choose one with at least one module.")
        )
    if any(one.magnitude is not None for one in adapter.factors.values()) and not raw_dora:
        raise AdapterError(
            tr("This is a DoRA, which other programs read wrongly."),
            where=path,
            do=tr("Export it as plain LoRA, or ask for the raw DoRA."),
        )
    if dialect != "kohya":
        purpose = tr("written for {program}", program=dialect)
        adapter.require_factors(purpose)
        adapter.require_no_words(purpose)
    adapter = adapter if dtype is None else adapter.to(dtype)
    texts = _texts(adapter, metadata or {}, path.stem, privacy)
    if dialect == "peft":
        return _write_folder(adapter, path, texts)
    tensors, more = diffusers.encode(adapter) if dialect == "diffusers" else _kohya(adapter)
    files.write(path, serialized(tensors, texts | more, path))
    return path


def _kohya(adapter: Adapter) -> tuple[dict[str, Tensor], dict[str, str]]:
    """kohya's tensors, with the words that it has learned, and what the header says of those."""
    words, texts = embedding.encode(adapter.embeddings, bundled=bool(adapter.changes))
    return kohya.encode(adapter) | words, texts


def _texts(adapter: Adapter, metadata: Mapping[str, str], title: str, privacy: meta.Privacy) -> dict[str, str]:
    texts = {key: value for key, value in {**adapter.metadata, **metadata}.items() if key not in meta.STALE}
    stated = [_rank_and_alpha(factors) for factors in adapter.factors.values()]
    ranks, alphas = [rank for rank, _ in stated], [alpha for _, alpha in stated]
    texts |= meta.technical(adapter.family, ranks, alphas, texts, title)
    if algorithm := adapter.kind.algorithm:
        texts |= {"ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps({"algo": algorithm})}
    return meta.at(texts, privacy)


def _rank_and_alpha(factors: Factors) -> tuple[int, float]:
    """As the file has them: of factors with parts, the parts'."""
    if not factors.parts:
        return factors.rank, factors.alpha
    rank = detect.rank(_shapes(factors.parts.tensors))
    return rank, float(factors.parts.tensors.get("alpha", torch.tensor(rank)))


def serialized(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: Path) -> bytes:
    """A whole safetensors file, hashes added to its header; the same input always gives the same bytes.

    Raises:
        AdapterError: a tensor holds NaN or infinity.
    """
    for name, tensor in tensors.items():
        require_finite(name, tensor, where)
    entries, data = body(tensors)
    return with_hashes(entries, metadata, data) + data


def size(adapter: Adapter, dtype: torch.dtype | None = None) -> int:
    """Bytes of the kohya file that ``write`` would make, without making it."""
    tensors, more = _kohya(adapter)
    entries = laid_out(
        {
            name: (tensor.dtype if dtype is None or not tensor.dim() else dtype, tuple(tensor.shape))
            for name, tensor in tensors.items()
        }
    )
    texts = _texts(adapter, {}, "", meta.Privacy.FULL) | more | meta.hashes(b"", b"")
    return len(head(entries, texts)) + max(entry.end for entry in entries.values())


def _write_folder(adapter: Adapter, folder: Path, texts: Mapping[str, str]) -> Path:
    """A peft folder; several components have folders of their names in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AdapterError(
            tr("{name} exists already.", name=folder.name),
            where=folder,
            do=tr("Choose another name, or remove it first."),
        )
    partial = files.partial(folder)
    parts = peft.components(adapter.factors)
    try:
        for component, part in parts.items():
            place = partial / component if len(parts) > 1 or component != "unet" else partial
            tensors, config = peft.encode(component, part)
            files.write(place / peft.CONFIG, json.dumps(config, indent=2))
            files.write(place / peft.MODEL, serialized(tensors, texts, folder))
        if folder.exists():
            folder.rmdir()
        files.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
