"""New entries of the cache: pictures, masks and texts through the encoder, a batch at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from lora_studio.dataset import fitted
from lora_studio.dataset.items import Alteration, Bucket, Sample
from lora_studio.errors import ModelError
from lora_studio.language import tr

WORKERS = min(8, os.cpu_count() or 1)
"""Threads that read and decode."""
_PIXELS_AT_ONCE = 1024**2
_PICTURES_AT_ONCE = 32
_CHUNKS_AT_ONCE = 32

Out = TypeVar("Out")
Made = dict[Path, dict[str, Tensor]]
"""New entries by path."""


class Encoder(Protocol):
    """What the cache needs of a base model."""

    @property
    def fingerprint(self) -> str:
        """Equal for two encoders only if they give the same results."""

    @property
    def scale(self) -> int:
        """Pixels to a side of each element of the latents."""

    @property
    def inpaints(self) -> bool:
        """Whether it takes ``encode_masked`` beside noisy latents."""

    @property
    def sequences(self) -> tuple[str, ...]:
        """The text features whose first axis, after the batch, grows with the text."""

    def encode_text(self, texts: list[str], prompts: bool = False) -> Mapping[str, Tensor]:
        """Features of captions, or of ``prompts``, by name, batch first."""

    def reading(self, text: str, prompts: bool = False) -> tuple[str | int, ...]:
        """How ``text`` is read, the number of its chunks last; empty for one chunk that is read as it is written. Texts
        with the same reading have features of the same shape.
        """

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents of ``pixels`` (B, 3, H, W) float32 in [-1, 1]; both
        (B, 4, H/8, W/8).
        """

    def encode_masked(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """What a model that inpaints is shown of ``pixels`` (B, 3, H, W) float32 in [-1, 1] behind ``masks``
        (B, 1, H, W) float32 in [0, 1]: (B, 5, H/8, W/8) float32.
        """


class View(NamedTuple):
    """One picture as it is encoded: its index, whether it is mirrored, and which of its copies it is."""

    picture: int
    flip: bool = False
    copy: int = 0

    def alteration(self, samples: Sequence[Sample]) -> Alteration:
        """How it differs from the picture."""
        return samples[self.picture].copies[self.copy]._replace(flip=self.flip)


class TextEntry(NamedTuple):
    """A text whose features are kept at ``path``, and how it is read."""

    path: Path
    text: str
    reading: tuple[str | int, ...]
    prompts: bool

    @property
    def length(self) -> int:
        """Its chunks."""
        return _chunks(self.reading)


class Encoding:
    """Encodes what is missing. Every method takes the missing entries by path and yields them batch by batch.

    Raises DatasetError where a picture or mask changed or disappeared since it was scanned, ModelError where the
    encoder gives NaN or infinite values.
    """

    def __init__(self, encoder: Encoder, samples: Sequence[Sample]):
        self.encoder, self.samples = encoder, samples

    def pictures(self, pool: ThreadPoolExecutor, missing: dict[Path, View]) -> Iterator[Made]:
        """Batches of one bucket each, as large as ``_PIXELS_AT_ONCE`` allows, while the next pictures are decoded."""
        for batch, pixels in self._decoded(pool, missing, self._pixels):
            with torch.no_grad():
                mean, deviation = self.encoder.encode_images(pixels)
            yield self._latents(batch, {"mean": mean, "deviation": deviation})

    def masked(self, pool: ThreadPoolExecutor, missing: dict[Path, View]) -> Iterator[Made]:
        """What models that inpaint are shown of pictures; in batches as ``pictures``."""
        for batch, (pixels, masks) in self._decoded(pool, missing, self._masked_pixels):
            with torch.no_grad():
                shown = self.encoder.encode_masked(pixels, masks)
            yield self._latents(batch, {"shown": shown})

    def texts(self, pool: ThreadPoolExecutor, missing: dict[Path, TextEntry]) -> Iterator[Made]:
        """Batches of texts of one length, so that none is filled up."""
        alike: dict[tuple[bool, tuple], list[tuple[Path, str]]] = {}
        for path, entry in missing.items():
            alike.setdefault((entry.prompts and bool(entry.reading), entry.reading), []).append((path, entry.text))
        for prompts, batch in [
            (prompts, batch)
            for (prompts, reading), texts in alike.items()
            for batch in _batches(texts, max(1, _CHUNKS_AT_ONCE // _chunks(reading)))
        ]:
            with torch.no_grad():
                features = self.encoder.encode_text([text for _, text in batch], prompts)
            made = {
                path: {name: _own(tensor[row]) for name, tensor in features.items()}
                for row, (path, _) in enumerate(batch)
            }
            for path, text in batch:
                _require_finite(made[path], tr("text features"), text)
            yield made

    def masks(self, pool: ThreadPoolExecutor, missing: dict[Path, View]) -> Iterator[Made]:
        """Masks at the size of the latents."""
        for path, mask in zip(missing, ahead(pool, self._weights, missing.values()), strict=True):
            yield {path: {"mask": mask}}

    def _decoded(
        self, pool: ThreadPoolExecutor, missing: dict[Path, View], decode: Callable[[list[View]], Out]
    ) -> Iterator[tuple[list[tuple[Path, View]], Out]]:
        """Batches of one bucket each, with what ``decode`` makes of their views."""
        by_bucket: dict[Bucket, list[tuple[Path, View]]] = {}
        for path, view in missing.items():
            by_bucket.setdefault(self.samples[view.picture].bucket, []).append((path, view))
        batches = [
            batch
            for bucket, views in by_bucket.items()
            for batch in _batches(
                views, min(_PICTURES_AT_ONCE, max(1, _PIXELS_AT_ONCE // (bucket.width * bucket.height)))
            )
        ]
        yield from zip(batches, ahead(pool, decode, ([view for _, view in batch] for batch in batches)), strict=True)

    def _latents(self, batch: list[tuple[Path, View]], encoded: dict[str, Tensor]) -> Made:
        """The entries of a batch, from its tensors by name."""
        made = {
            path: {name: _own(tensor[row]) for name, tensor in encoded.items()} for row, (path, _) in enumerate(batch)
        }
        for path, view in batch:
            _require_finite(made[path], tr("latents"), self.samples[view.picture].picture.path)
        return made

    def _pixels(self, views: list[View]) -> Tensor:
        """(B, 3, H, W) float32 in [-1, 1]: pictures of one bucket."""
        chosen = [(self.samples[view.picture], view.alteration(self.samples)) for view in views]
        return torch.stack([fitted.pixels(sample.picture, sample.bucket, altered) for sample, altered in chosen])

    def _masked_pixels(self, views: list[View]) -> tuple[Tensor, Tensor]:
        """``_pixels`` and their masks, (B, 1, H, W) float32 in [0, 1]; 1 for pictures without one."""
        pixels = self._pixels(views)
        masks = torch.ones_like(pixels[:, :1])
        for row, view in enumerate(views):
            if self.samples[view.picture].picture.mask:
                masks[row] = self._mask(view, scale=1) / 255
        return pixels, masks

    def _weights(self, view: View) -> Tensor:
        """(1, H/8, W/8) uint8: a mask."""
        return self._mask(view, self.encoder.scale)

    def _mask(self, view: View, scale: int) -> Tensor:
        """(1, H/scale, W/scale) uint8."""
        picture, bucket = self.samples[view.picture][:2]
        assert picture.mask
        return fitted.weights(picture.mask, bucket, scale, view.alteration(self.samples), picture.crop)


def _chunks(reading: tuple[str | int, ...]) -> int:
    """The chunks of a text that is read so; see ``Encoder.reading``."""
    return int(reading[-1]) if reading else 1


def ahead(pool: ThreadPoolExecutor, function: Callable[[Any], Out], arguments: Iterable[Any]) -> Iterator[Out]:
    """``map`` that computes only a few results in advance, so that thousands of pictures do not fill the memory."""
    waiting: deque[Future[Out]] = deque()
    for argument in arguments:
        waiting.append(pool.submit(function, argument))
        if len(waiting) > WORKERS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _own(tensor: Tensor) -> Tensor:
    """A copy on the CPU that shares no memory with its batch."""
    return tensor.to("cpu", copy=True).contiguous()


def _require_finite(entry: dict[str, Tensor], kind: str, where: object) -> None:
    if not all(tensor.isfinite().all() for tensor in entry.values()):
        raise ModelError(
            tr("The base model's {kind} are NaN or infinite.", kind=kind),
            where=where,
            do=tr("Set precision to fp32: parts of some models overflow in fp16."),
        )


def _batches(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
