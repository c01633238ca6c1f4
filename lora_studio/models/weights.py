"""Weights from safetensors files into a model, checked one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lora_studio.adapters import container, scales
from lora_studio.errors import AdapterError, ModelError
from lora_studio.families.layout import Source
from lora_studio.language import tr
from lora_studio.models.parts import AGAIN

_READERS = min(8, os.cpu_count() or 1)


class Weights:
    """The tensors of one or several safetensors files as one table. Headers are checked at once; a tensor is read when
    asked for. Scales of float8 weights are no tensors of their own here: weights are read multiplied by them.

    Raises:
        ModelError: a file is missing, a pickle, cut short, quantized in an unknown layout, or otherwise damaged.
    """

    def __init__(self, paths: Iterable[Path]):
        self.paths = list(paths)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.metadata: dict[str, str] = {}
        self.used: set[str] = set()
        """The keys that a model was filled from, or that were passed over on purpose."""
        self._home: dict[str, Path] = {}
        self._scales: dict[str, str] = {}
        for path in self.paths:
            header = read_header(path)
            self._scales |= scales.scales_of(header, path)
            beside = scales.beside(header)
            self.shapes |= {key: shape for key, shape in header.shapes.items() if key not in beside}
            self.metadata.update(header.metadata)
            self._home.update(dict.fromkeys(header.entries, path))

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._files = {path: self._stack.enter_context(safe_open(path, framework="pt")) for path in self.paths}
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.close()

    def read(self, key: str) -> Tensor:
        """The tensor named ``key``, on the CPU: in the file's dtype, or float32 where it has a scale."""
        tensor = self._stored(key)
        return scales.multiplied(tensor, self._stored(self._scales[key])) if key in self._scales else tensor

    def _stored(self, key: str) -> Tensor:
        return self._files[self._home[key]].get_tensor(key)


def read_header(path: Path) -> container.Header:
    """The checked header of a weight file.

    Raises:
        ModelError: it is missing, a pickle, cut short or otherwise damaged.
    """
    try:
        return container.read_header(path)
    except AdapterError as error:
        raise ModelError(error.what, where=error.where, do=error.do) from None


def fill(
    model: nn.Module,
    weights: Weights,
    sources: Callable[[str], list[Source]],
    dtype: torch.dtype,
    device: torch.device,
    what: str,
) -> None:
    """Gives ``model`` its weights, frozen and ready for use, on ``device``.

    Args:
        sources: a weight's name in ``model`` -> the places where it may lie, the likeliest first.
        what: the model's name for messages, such as "the VAE".

    Raises:
        ModelError: weights are missing, of a wrong shape, or not finite in ``dtype``.
    """
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = find(wanted, sources, weights, what)
    readers = _READERS if device.type != "mps" else 1  # Apple's GPUs are for one thread at a time
    # gigabytes are read from disk, converted and copied to the device: one thread alone would wait for each in turn
    with ThreadPoolExecutor(readers) as pool:
        tensors = pool.map(lambda name: _tensor(weights, found[name], wanted[name], dtype, device), wanted)
        state = dict(zip(wanted, tensors, strict=True))
    model.load_state_dict(state, assign=True)
    model.to(device).requires_grad_(False).eval()


def find(
    names: Iterable[str], sources: Callable[[str], list[Source]], weights: Weights, what: str
) -> dict[str, Source]:
    """Where each weight is, which is noted in ``weights.used``.

    Raises:
        ModelError: some are missing.
    """
    found, missing = {}, []
    for name in names:
        source = next((source for source in sources(name) if source.key in weights.shapes), None)
        if source is None:
            missing.append(name)
        else:
            found[name] = source
    if not found:
        raise lacks(weights, what)
    if missing:
        where = weights.paths[0]
        total = len(found) + len(missing)
        raise ModelError(
            tr(
                "{name} lacks {missing} of {total} weights of {part}, the first being {example}.",
                name=where.name,
                missing=len(missing),
                total=total,
                part=what,
                example=missing[0],
            ),
            where=where,
            do=AGAIN,
        )
    weights.used |= {source.key for source in found.values()}
    return found


def lacks(weights: Weights, what: str) -> ModelError:
    """The error for a file without ``what``."""
    where = weights.paths[0]
    return ModelError(
        tr("{name} does not hold {part}.", name=where.name, part=what),
        where=where,
        do=tr("Choose a checkpoint that holds the whole model."),
    )


def _tensor(weights: Weights, source: Source, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    tensor = source.change(weights.read(source.key))
    where = weights.paths[0]
    if tensor.shape != shape:
        raise ModelError(
            tr(
                "{name}: {key} has the shape {shape} where {wanted} belongs.",
                name=where.name,
                key=source.key,
                shape=str(tuple(tensor.shape)),
                wanted=str(tuple(shape)),
            ),
            where=where,
            do=AGAIN,
        )
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(
            tr(
                "{name}: {key} is in the format {format}, which no weight of a model is in.",
                name=where.name,
                key=source.key,
                format=kind,
            ),
            where=where,
            do=tr("Choose a copy of the model in fp16, bf16 or fp8."),
        )
    tensor = tensor.to(device, dtype, copy=True, memory_format=torch.contiguous_format)
    # in no more memory: what comes and goes beside a weight that stays leaves gaps
    if tensor.numel() and not torch.isfinite(torch.stack(tensor.aminmax())).all():
        raise ModelError(
            tr(
                "{name}: {key} has values that are not finite in {precision}.",
                name=where.name,
                key=source.key,
                precision=str(dtype).removeprefix("torch."),
            ),
            where=where,
            do=tr("Choose another precision, or another copy of the model."),
        )
    return tensor
