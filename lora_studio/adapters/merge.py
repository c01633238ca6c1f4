"""Folding adapters into a whole base model: W' = W + Σ wᵢ ΔWᵢ, tensor by tensor.

The base is a diffusers folder or one file in the original layout. One tensor is in memory at a time; its dtype is kept.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lora_studio import files
from lora_studio.adapters import detect, dora, foreign, keys, overflow, scales
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.adapters.container import PICKLES, Header, read_header
from lora_studio.adapters.output_change import OutputChange
from lora_studio.adapters.tensors import read_tensor, stream
from lora_studio.errors import AdapterError, MachineError, ModelError
from lora_studio.families import layout, registry
from lora_studio.families.family import part_title
from lora_studio.language import both, tr

KEY = "lora_studio.merged"
"""The header's entry that names what was folded in, as JSON [[name, weight], …]."""


class Place(NamedTuple):
    """Where a module's weight is in a checkpoint: a key, a third of its rows (the joint q, k, v of open_clip), or
    its transpose.
    """

    key: str
    third: int | None = None
    transposed: bool = False


Change = Factors | OutputChange


class Progress(NamedTuple):
    """``done`` of ``total`` tensors are written, ``name`` last."""

    done: int
    total: int
    name: str


class _Share(NamedTuple):
    place: Place
    change: Change
    weight: float


_Plan = dict[str, list[_Share]]


def places(path: str, family: str) -> list[Place]:
    """Every place where the weight of a canonical path may be, in a component's own file or in a single file."""
    component, _, rest = path.partition(".")
    if component == "unet":
        return [Place(f"{rest}.weight"), Place(f"model.diffusion_model.{keys.to_ldm(rest, family)}.weight")]
    inner = rest.removeprefix("text_model.")
    own = [Place(f"{rest}.weight"), Place(f"{inner}.weight")]
    if component == "text_encoder_2":
        return [*own, *_open_clip(inner, "conditioner.embedders.1.model.")]
    clip = [
        Place(f"{prefix}.{rest}.weight")
        for prefix in ("cond_stage_model.transformer", "conditioner.embedders.0.transformer")
    ]
    return [
        *own,
        *clip,
        Place(f"cond_stage_model.transformer.{inner}.weight"),
        *_open_clip(inner, "cond_stage_model.model."),
    ]


_OPEN_CLIP = {
    "self_attn.out_proj": "attn.out_proj.weight",
    "mlp.fc1": "mlp.c_fc.weight",
    "mlp.fc2": "mlp.c_proj.weight",
}


def _open_clip(inner: str, prefix: str) -> list[Place]:
    """open_clip's names, which the original layout has for SD 2 and for SDXL's second encoder."""
    if inner == "text_projection":
        return [Place(f"{prefix}text_projection", transposed=True)]
    if not (match := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", inner)):
        return []
    block, module = f"{prefix}transformer.resblocks.{match[1]}.", match[2]
    if module in _OPEN_CLIP:
        return [Place(block + _OPEN_CLIP[module])]
    third = {"self_attn.q_proj": 0, "self_attn.k_proj": 1, "self_attn.v_proj": 2}.get(module)
    return [] if third is None else [Place(f"{block}attn.in_proj_weight", third)]


def merge(base: Path | str, out: Path | str, adapters: Sequence[tuple[Adapter, float]]) -> Iterator[Progress]:
    """Writes ``base`` with every adapter folded in at its weight to ``out``; exhaust the generator to finish it.

    ``out`` gets its name only when all is written; closing the generator earlier leaves nothing. A single file gives a
    file, a folder a folder.

    Raises:
        AdapterError: a module finds no place in the base, or was made for another family; says how many were found.
        ModelError: the base is neither a diffusers folder nor a single .safetensors file.
        MachineError: the disk has not room enough.
    """
    base, out = Path(base), Path(out)
    if out.exists() and (out.is_dir() or out.samefile(base)):
        raise ModelError(tr("{name} exists already.", name=out.name), where=out, do=tr("Choose another name."))
    parts = weight_files(base)
    headers = {file: read_header(file) for file, _ in parts}
    for file, header in headers.items():
        scales.require_plain(header, file)
    for adapter, _ in adapters:
        adapter.require_weight_changes(tr("merged into a base model"))
        adapter.require_no_words(tr("merged into a base model"))
        foreign.require_not_apart(adapter.family, _family(base), base)
    plans = _plans(parts, headers, adapters)
    _require_room(base, out)
    note = json.dumps([[adapter.metadata.get("modelspec.title", "adapter"), weight] for adapter, weight in adapters])
    total = sum(len(headers[file].entries) for file in plans)
    done = 0
    with _Target(base, out, list(plans)) as target:
        for file, plan in plans.items():
            for name in _fold(file, headers[file], plan, target.place(file), note):
                done += 1
                yield Progress(done, total, name)


def unmerge(merged: Path | str, out: Path | str, adapters: Sequence[tuple[Adapter, float]]) -> Iterator[Progress]:
    """The inverse of ``merge`` with the same adapters and weights, within the rounding of the base's dtype.

    Raises:
        AdapterError: as ``merge``, and for a DoRA, whose change does not follow from the changed weight.
    """
    for adapter, _ in adapters:
        if adapter.kind.needs_base:
            raise AdapterError(
                tr(
                    "This is {a_title}, which cannot be taken out again: its change depended on the weights before it.",
                    a_title=adapter.kind.a_title,
                ),
                do=tr("Keep the unmerged base model."),
            )
    return merge(merged, out, [(adapter, -weight) for adapter, weight in adapters])


def weight_files(base: Path) -> list[tuple[Path, str]]:
    """The files that hold weights an adapter may change, with their component ("" for all in one)."""
    if base.is_file() and base.suffix == ".safetensors":
        return [(base, "")]
    found = [
        (file, component)
        for component in ("unet", "text_encoder", "text_encoder_2")
        for file in sorted((base / component).glob("*.safetensors"))
    ]
    if not found:
        raise ModelError(
            tr(
                "{name} is neither a diffusers folder with .safetensors files nor a single .safetensors file.",
                name=base.name,
            ),
            where=base,
            do=tr("Choose the base model's folder or file."),
        )
    return found


def _family(base: Path) -> str:
    """The family of a folder by its UNet's configuration. Unknown where there is none, as beside a single file."""
    file = base / "unet" / "config.json"
    config = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    found = registry.owner({"unet": config}) if config else None
    return found.name if found else registry.UNKNOWN


def _plans(
    parts: list[tuple[Path, str]], headers: dict[Path, Header], adapters: Sequence[tuple[Adapter, float]]
) -> dict[Path, _Plan]:
    """What to add to which tensor of which file; every module must have found its place."""
    plans: dict[Path, _Plan] = {}
    for adapter, weight in adapters:
        missing = []
        for path, change in adapter.changes.items():
            found = [
                (file, place)
                for file, component in parts
                if component in ("", path.partition(".")[0])
                if (
                    place := next(
                        (place for place in places(path, adapter.family) if place.key in headers[file].entries), None
                    )
                )
            ]
            for file, place in found:
                _require_shape(path, change, headers[file].entries[place.key].shape, place, adapter)
                plans.setdefault(file, defaultdict(list))[place.key].append(_Share(place, change, weight))
            if not found:
                missing.append(path)
        if missing:
            raise _misfit(missing, adapter, set().union(*(header.entries for header in headers.values())))
    return plans


def _misfit(missing: list[str], adapter: Adapter, held: set[str]) -> AdapterError:
    """Why the modules ``missing`` of ``adapter`` have no place in a base model of the tensors ``held``: it is another
    model, or a file without some of its parts.
    """
    count, made_for = len(adapter.changes), detect.label(adapter.family)
    known = registry.named(adapter.family)
    present = {
        path.partition(".")[0]
        for path in (known.modules if known else ())
        if any(place.key in held for place in places(path, adapter.family))
    }
    lacking = dict.fromkeys(path.partition(".")[0] for path in missing)
    if known and not present & set(lacking):
        parts = both(map(part_title, lacking))
        return AdapterError(
            tr(
                "This base model lacks {parts}, which {missing} of the adapter's {modules} modules change.",
                parts=parts,
                missing=len(missing),
                modules=count,
            ),
            do=tr("Choose a file or folder of {made_for} that holds {parts} as well.", made_for=made_for, parts=parts),
        )
    return AdapterError(
        tr(
            "Only {fitting} of {modules} modules have a place in this base model; {missing} has none.",
            fitting=count - len(missing),
            modules=count,
            missing=missing[0],
        ),
        do=tr("The adapter was made for {made_for}: choose a base model of that kind.", made_for=made_for),
    )


def _require_shape(path: str, change: Change, shape: tuple[int, ...], place: Place, adapter: Adapter) -> None:
    """1×1 convolutions and linear layers are the same change; any other difference is another model."""
    if place.third is not None:
        shape = (shape[0] // 3, *shape[1:])
    held = shape[:2] if shape[2:] in ((), (1, 1)) else shape
    held = held[::-1] if place.transposed else held
    own = layout.completed(change.shape, held)
    flat = own[:2] if own[2:] in ((), (1, 1)) else own
    if flat != held:
        raise AdapterError(
            tr(
                "The adapter was made for {family} and does not fit this base model: {path} is {held} "
                "there, not {flat}.",
                family=detect.label(adapter.family),
                path=path,
                held=str(held),
                flat=str(flat),
            ),
            where=path,
            do=tr("Choose a base model of that kind."),
        )


def _require_room(base: Path, out: Path) -> None:
    needed = (
        base.stat().st_size
        if base.is_file()
        else sum(file.stat().st_size for file in base.rglob("*") if file.is_file())
    )
    folder = next(parent for parent in out.resolve().parents if parent.exists())
    if (free := shutil.disk_usage(folder).free) < needed:
        raise MachineError(
            tr(
                "The disk has {free:.1f} GB free and the merged model takes {needed:.1f} GB.",
                free=free / 1e9,
                needed=needed / 1e9,
            ),
            where=folder,
            do=tr("Make room, or choose another disk."),
        )


def _fold(file: Path, header: Header, plan: _Plan, target: Path, note: str) -> Iterator[str]:
    """One file with its plan carried out, streamed to ``target``."""
    with open(file, "rb") as source:

        def changed(name: str) -> Tensor:
            tensor = read_tensor(source, header, name)
            return _added(name, tensor, plan[name]) if name in plan else tensor

        in_order = dict(sorted(header.entries.items(), key=lambda item: item[1].start))
        yield from stream(target, in_order, {**header.metadata, KEY: note}, changed)


def _added(name: str, tensor: Tensor, shares: list[_Share]) -> Tensor:
    """W + Σ wᵢ ΔWᵢ in float32, rounded to the tensor's dtype once."""
    before = tensor.float()
    after = before.clone()
    for place, one, weight in shares:
        old, new = _part(before, place), _part(after, place)
        change = dora.change(one, old if 0 in one.shape else old.reshape(one.shape))
        new += _strength(one, weight) * change.reshape(new.shape)
    overflow.require_merged(name, after, tensor.dtype)
    return after.to(tensor.dtype)


def _strength(one: Change, weight: float) -> float:
    return weight if isinstance(one, Factors) else float(one.strength(torch.tensor(weight)))


def _part(tensor: Tensor, place: Place) -> Tensor:
    """The view of ``tensor`` that a place means."""
    if place.third is not None:
        return tensor.chunk(3)[place.third]
    return tensor.T if place.transposed else tensor


class _Target:
    """Where a merge is written until it is complete: a partial folder with copies of unchanged files, or the file."""

    def __init__(self, base: Path, out: Path, changed: list[Path]):
        self.base, self.out, self.changed = base, out, changed
        self.partial = files.partial(out)

    def __enter__(self) -> _Target:
        if self.base.is_dir():
            components = {file.parent for file in self.changed}
            shutil.copytree(
                self.base,
                self.partial,
                ignore=lambda folder, names: [
                    name
                    for name in names
                    if Path(folder, name) in self.changed or (Path(folder) in components and name.endswith(PICKLES))
                ],
            )
        return self

    def place(self, file: Path) -> Path:
        return self.partial / file.relative_to(self.base) if self.base.is_dir() else self.out

    def __exit__(self, kind, *_) -> None:
        try:
            if kind is None and self.base.is_dir():
                files.replace(self.partial, self.out)
        finally:
            shutil.rmtree(self.partial, ignore_errors=True)


def weight_reader(base: Path | str, family: str):
    """A function that loads the base model's weight at a canonical path, for ``dora`` and ``analysis``.

    Raises:
        ModelError: ``base`` is no model; the function raises KeyError where it has no weight at a path.
    """
    parts = weight_files(Path(base))
    headers = {file: read_header(file) for file, _ in parts}
    factors = {file: scales.scales_of(header, file) for file, header in headers.items()}

    def weight(path: str) -> Tensor:
        for file, component in parts:
            if component in ("", path.partition(".")[0]):
                for place in places(path, family):
                    if place.key in headers[file].entries:
                        tensor = scales.read(file, headers[file], place.key, factors[file].get(place.key))
                        return _part(tensor, place).clone(memory_format=torch.contiguous_format)
        raise KeyError(path)

    return weight
