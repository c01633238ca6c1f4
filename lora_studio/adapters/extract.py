"""An adapter of two checkpoints: the difference of each layer as thin factors, ΔW ≈ U·S·Vᵀ at a rank.

By Eckart and Young the truncated SVD is the nearest change of its rank. It is found by subspace iteration from a random
start (Halko, Martinsson, Tropp 2011, algorithms 4.4 and 5.1), in a few products with the difference. One layer of each
model is in memory at a time; each of them is a single file or a diffusers folder.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio.adapters import block_names, detect, merge, scales, svd
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.adapters.container import Header, read_header
from lora_studio.adapters.merge import Progress
from lora_studio.errors import AdapterError, ModelError
from lora_studio.families import registry
from lora_studio.families.family import Family


class Ranks(NamedTuple):
    """The rank of linear layers and 1×1 convolutions, and that of larger convolutions (0 leaves them out)."""

    linear: int
    kernels: int

    def of(self, shape: tuple[int, ...]) -> int:
        """The rank for a weight of ``shape``, which may allow less."""
        wanted = self.linear if shape[2:] in ((), (1, 1)) else self.kernels
        return min(wanted, shape[0], torch.Size(shape[1:]).numel())


@dataclass
class Extraction:
    """What was found; complete once ``extract`` has ended."""

    family: str = ""
    factors: dict[str, Factors] = field(default_factory=dict)
    energies: dict[str, tuple[float, float]] = field(default_factory=dict)
    """‖ΔW‖² of each layer that differs, and what of it the adapter keeps (0 of a layer that is left out)."""
    others: dict[str, float] = field(default_factory=dict)
    """‖Δ‖² of each changed tensor that no adapter can hold: norms, biases, embeddings."""
    alone: list[str] = field(default_factory=list)
    """Layers that only one of the two models has."""

    @property
    def adapter(self) -> Adapter:
        """The adapter, for the family of both models."""
        known = registry.named(self.family)
        return Adapter(self.factors, {"ss_base_model_version": known.version} if known and known.version else {})

    @property
    def kept(self) -> float:
        """The share of all layers' energy that the adapter keeps."""
        return _share(list(self.energies.values()))

    @property
    def kept_by_block(self) -> dict[str, float]:
        """The same of each block (``block_names.block_of``)."""
        blocks: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for path, energy in self.energies.items():
            blocks[block_names.block_of(path)].append(energy)
        return {block: _share(found) for block, found in blocks.items()}

    @property
    def beyond(self) -> float:
        """The share of the whole change's energy that is in ``others``."""
        outside, inside = sum(self.others.values()), sum(whole for whole, _ in self.energies.values())
        return outside / (outside + inside) if outside else 0.0


def _share(energies: list[tuple[float, float]]) -> float:
    whole = sum(energy for energy, _ in energies)
    return sum(kept for _, kept in energies) / whole if whole else 1.0


def extract(base: Path, tuned: Path, ranks: Ranks, found: Extraction, text: bool = True) -> Iterator[Progress]:
    """Fills ``found`` with the difference of ``tuned`` from ``base``; exhaust the generator to finish it.

    Args:
        text: whether the text encoders' layers are compared too.

    Raises:
        ModelError: one of the two is no model, is quantized in a way that is not read, or they are of two families.
        AdapterError: no layer differs.
    """
    family = family_of(base)
    if (other := family_of(tuned)) is not family:
        raise ModelError(
            f"{base.name} is {family.title} and {tuned.name} is {other.title}: they have no difference.",
            where=tuned,
            do="Choose the model that it was trained from.",
        )
    found.family = family.name
    before, after = merge.weight_reader(base, family.name), merge.weight_reader(tuned, family.name)
    paths = [path for path in family.modules if text or path.partition(".")[0] == family.denoiser]
    for done, path in enumerate(paths, 1):
        _add(found, path, family.modules[path][2:], (before, after), ranks)
        yield Progress(done, len(paths), path)
    found.others.update(_others(base, tuned, family, text))
    if not found.factors:
        raise AdapterError(
            f"{tuned.name} does not differ from {base.name} in any layer that an adapter can change.",
            where=tuned,
            do="Choose the model that was trained, and the one that it was trained from.",
        )


def _add(
    found: Extraction,
    path: str,
    kernel: tuple[int, ...],
    readers: tuple[Callable[[str], Tensor], Callable[[str], Tensor]],
    ranks: Ranks,
) -> None:
    """Adds the layer at ``path`` with its ``kernel`` if both models have it and differ there."""
    before, after = (_read(reader, path) for reader in readers)
    if before is None or after is None:
        found.alone += [] if before is after else [path]
        return
    if before.shape != after.shape:
        raise ModelError(
            f"{path} is {tuple(before.shape)} in one model and {tuple(after.shape)} in the other.",
            where=path,
            do="Choose two models of one architecture.",
        )
    difference = _difference(path, before, after)
    if difference is None:
        return
    shape = (*before.shape[:2], *kernel) if before.shape[2:] in ((), (1, 1)) else tuple(before.shape)
    rank, energy = ranks.of(shape), float(difference.double().square().sum())
    found.energies[path] = energy, 0.0
    if rank:
        U, S, Vt = svd.leading(difference.flatten(1), rank)
        found.energies[path] = energy, min(energy, float(S.double().square().sum()))
        found.factors[path] = _factors(U, S, Vt, shape)


def _read(reader: Callable[[str], Tensor], path: str) -> Tensor | None:
    """The weight of the layer at ``path``; None where the model has none."""
    try:
        return reader(path)
    except KeyError:
        return None


def _difference(name: str, before: Tensor, after: Tensor) -> Tensor | None:
    """W' − W in float32; None where the two are equal in the coarser of their number formats.

    Raises:
        ModelError: one of the two holds whole numbers, NaN or infinity.
    """
    if not (before.is_floating_point() and after.is_floating_point()):
        raise ModelError(
            f"{name} holds whole numbers in one of the models: it is quantized in a way that is not read.",
            where=name,
            do="Choose the model in fp32, fp16, bf16 or float8.",
        )
    coarser = max(before.dtype, after.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    if torch.equal(before.to(coarser), after.to(coarser)):
        return None
    difference = after.float() - before.float()
    if not bool(difference.isfinite().all()):
        raise ModelError(
            f"{name} contains NaN or infinity in one of the models.",
            where=name,
            do="Its training diverged, or the file is damaged: choose another one.",
        )
    return difference


def _factors(U: Tensor, S: Tensor, Vt: Tensor, shape: tuple[int, ...]) -> Factors:
    """U·diag(S)·Vᵀ with the scale shared between both factors and alpha = r."""
    root = S.sqrt()
    up, down = U * root, root[:, None] * Vt
    if shape[2:]:
        up, down = up[:, :, None, None], down.reshape(len(S), *shape[1:])
    return Factors(down.contiguous(), up.contiguous(), float(len(S)))


def family_of(model: Path) -> Family:
    """The family that the shapes of the denoiser's layers tell.

    Raises:
        ModelError: it is no model, or none that the studio knows.
    """
    headers = [(read_header(file), component) for file, component in merge.weight_files(model)]
    for family in registry.FAMILIES:
        start = f"{family.denoiser}."
        entries = [header.entries for header, component in headers if component in ("", family.denoiser)]
        shapes = {
            path: held[place.key].shape
            for path in family.modules
            if path.startswith(start)
            for place in merge.places(path, family.name)
            for held in entries
            if place.key in held
        }
        if shapes and detect.family(shapes) == family.name:
            return family
    raise ModelError(
        f"{model.name} is none of the models that the studio knows: {', '.join(map(str, registry.titles()))}.",
        where=model,
        do="Choose a diffusers folder or a .safetensors checkpoint of one of these.",
    )


def _others(base: Path, tuned: Path, family: Family, text: bool) -> Iterator[tuple[str, float]]:
    """The changed tensors outside the layers, with their ‖Δ‖², where both models name them alike."""
    layers = {place.key for path in family.modules for place in merge.places(path, family.name)}
    first, second = _tensors(base), _tensors(tuned)
    parts = family.components if text else (family.denoiser,)
    starts = tuple(family.prefixes[part] for part in parts if part in family.prefixes)
    for name in first.keys() & second.keys() - layers:
        component, _, key = name.rpartition("\n")
        if component not in ("", *parts) or key in layers or (not component and not key.startswith(starts)):
            continue
        before, after = first[name](), second[name]()
        if before.shape != after.shape or not (before.is_floating_point() and after.is_floating_point()):
            continue
        if (difference := _difference(key, before, after)) is not None:
            yield key, float(difference.double().square().sum())


def _tensors(model: Path) -> dict[str, Callable[[], Tensor]]:
    """What reads each tensor of a model but scales, by its component ("" in a single file) and key."""
    readers: dict[str, Callable[[], Tensor]] = {}
    for file, component in merge.weight_files(model):
        header = read_header(file)
        pairs = scales.scales_of(header, file)
        for key in header.entries.keys() - scales.beside(header):
            readers[f"{component}\n{key}"] = _reader(file, header, key, pairs.get(key))
    return readers


def _reader(file: Path, header: Header, key: str, scale: str | None) -> Callable[[], Tensor]:
    return lambda: scales.read(file, header, key, scale)
