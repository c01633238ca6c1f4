"""Latents and text features, encoded once and cached on disk under hashes of their inputs.

An entry is a safetensors file whose name is a hash of everything that went into it: the bytes of the picture or mask,
bucket and mirroring, or the caption; the encoders' fingerprint; the version of this procedure. Its header holds a hash
of its tensors. So an entry is never stale, and one that is incomplete or damaged is detected and encoded again.
Tensors keep the encoder's dtype: what training reads from disk is bit for bit what it would have encoded.

The cache also holds previews of the base model alone (``training.previews``), which ``entry_files.prune`` counts too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from lora_studio.dataset import buckets, entry_files, fitted
from lora_studio.dataset.items import Bucket, Draw, Sample
from lora_studio.errors import DatasetError, ModelError

VERSION = 2
"""Increased whenever the same picture or caption would be encoded differently."""
_PIXELS_AT_ONCE = 1024**2
_PICTURES_AT_ONCE = 32
_CHUNKS_AT_ONCE = 32
_WORKERS = min(8, os.cpu_count() or 1)

FILLER = " "
"""A text without words, unlike the empty caption: its features fill up those of short texts."""

Item = TypeVar("Item")
Out = TypeVar("Out")
Made = dict[Path, dict[str, Tensor]]
"""New entries by path."""
CacheProgress = Iterator[tuple[str, int, int]]
"""(stage, done, total) for every entry or batch."""


class Encoder(Protocol):
    """What the cache needs of a base model."""

    @property
    def fingerprint(self) -> str:
        """Equal for two encoders only if they give the same results."""

    @property
    def scale(self) -> int:
        """Pixels to a side of each element of the latents."""

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


class Limits(NamedTuple):
    """Most bytes of entries to hold in memory, where the rest is read from disk when it is drawn; and to leave on disk,
    from where the least recently used are removed first, but none that the present run uses.
    """

    memory: int = 4 * 1024**3
    disk: int = 20 * 1024**3


class _View(NamedTuple):
    """One picture as it is encoded: its index, and whether it is mirrored."""

    picture: int
    flip: bool


class _TextEntry(NamedTuple):
    """A text whose features are kept at ``path``, and how it is read."""

    path: Path
    text: str
    reading: tuple[str | int, ...]
    prompts: bool

    @property
    def length(self) -> int:
        """Its chunks."""
        return _chunks(self.reading)


class Cache:
    """Everything that training reads of a dataset. Call ``fill`` once, then draw.

    Args:
        folder: where entries are stored; may be shared by all runs.
        encoder: encodes what is missing.
        samples: all pictures, each with its bucket and the variants of its caption.
        prompts: the prompts whose features will be needed (``features``).
        flip: mirrored pictures are needed too.
        masks: use the pictures' masks.
        limits: how much to keep in memory and on disk.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        samples: Sequence[Sample],
        *,
        prompts: Sequence[str] = (),
        flip: bool = False,
        masks: bool = True,
        limits: Limits = Limits(),
    ):
        self.folder, self.encoder, self.samples, self.limits = folder, encoder, samples, limits
        self._held: dict[Path, dict[str, Tensor]] = {}
        self._held_bytes = 0
        self._latents = {
            _View(index, flipped): self._path("latents", sample.picture.sha256, *sample.bucket, flipped)
            for index, sample in enumerate(samples)
            for flipped in (False, True)[: 1 + flip]
        }
        self._masks = {
            view: self._path("masks", mask.sha256, *samples[view.picture].bucket, view.flip)
            for view in self._latents
            if masks and (mask := samples[view.picture].picture.mask)
        }
        self._captions = self._entries(["", *(text for sample in samples for text in sample.captions)])
        self._prompts = self._entries(["", *prompts], prompts=True)
        self._texts = {entry.path: entry for entry in (*self._prompts.values(), *self._captions.values())}
        self._filler: _TextEntry | None = None
        if len({entry.reading for entry in self._texts.values()}) > 1:
            self._filler = self._entries([FILLER])[FILLER]
            self._texts[self._filler.path] = self._filler

    def fill(self, texts: bool = True) -> CacheProgress:
        """Loads what is cached, encodes what is not, and yields (stage, done, total).

        Args:
            texts: include captions; not needed if the text encoders themselves are trained.

        Raises:
            DatasetError: a picture changed or disappeared since it was scanned.
            ModelError: the encoder gives NaN or infinite values.
            MachineError: an entry cannot be written.
        """
        yield from self._fill("pictures", {path: view for view, path in self._latents.items()}, self._encoded_pictures)
        if self._masks:
            yield from self._fill("masks", {path: view for view, path in self._masks.items()}, self._encoded_masks)
        if texts:
            yield from self._fill("captions", self._texts, self._encoded_texts)
        used = {*self._latents.values(), *self._masks.values(), *self._texts}
        entry_files.prune(self.folder, self.limits.disk, keep=used)

    def latents(self, draws: Sequence[Draw], generator: torch.Generator | None = None) -> Tensor:
        """x0 = mean + deviation · ε (Kingma & Welling 2014, §2.4) of the draws: (B, 4, H/8, W/8) scaled latents; ε from
        ``generator``, or 0 without one.
        """
        entries = [self._entry(self._latents[_View(draw.picture, draw.flip)]) for draw in draws]
        mean, deviation = (torch.stack([entry[name] for entry in entries]) for name in ("mean", "deviation"))
        if generator is None:
            return mean
        return mean + deviation * torch.randn(
            mean.shape, generator=generator, device=generator.device, dtype=mean.dtype
        ).to(mean.device)

    def masks(self, draws: Sequence[Draw], like: Tensor) -> Tensor | None:
        """The masks of the draws, (B, 1, H/8, W/8) float32 from 0 (not learned) to 1; 1 for pictures without one. None
        if no picture of the dataset has one.

        Args:
            like: their latents, whose size they have.
        """
        if not self._masks:
            return None
        found = torch.full((len(draws), 1, *like.shape[2:]), 255, dtype=torch.uint8)
        for row, draw in enumerate(draws):
            if path := self._masks.get(_View(draw.picture, draw.flip)):
                found[row] = self._entry(path)["mask"]
        return found.float() / 255

    def text(self, draws: Sequence[Draw]) -> dict[str, Tensor]:
        """The text features of the draws' captions by name, batch first; a dropped caption is the empty one. Shorter
        texts are filled up to the longest one.
        """
        return self._filled([self._entry(self._captions[text].path) for text in self.captions(draws)])

    def captions(self, draws: Sequence[Draw]) -> list[str]:
        """The caption of each draw; a dropped one is empty."""
        return ["" if draw.drop_caption else self.samples[draw.picture].captions[draw.variant] for draw in draws]

    def length(self, draws: Sequence[Draw]) -> int:
        """The chunks of the draws' longest caption."""
        return max(self._captions[text].length for text in self.captions(draws))

    def features(self, prompts: Sequence[str], length: int = 0) -> dict[str, Tensor]:
        """The text features of prompts by name, batch first, filled up to the longest one and to ``length`` chunks."""
        return self._filled([self._entry(self._prompts[text].path) for text in prompts], length)

    def _filled(self, entries: list[dict[str, Tensor]], length: int = 0) -> dict[str, Tensor]:
        """Stacked, each with the features of empty chunks behind its own. What is all zeros, as SDXL's empty caption,
        stays so: attention to zeros is zero, however many there are.
        """

        def column(name: str) -> Tensor:
            features = [entry[name] for entry in entries]
            if self._filler is None or name not in self.encoder.sequences:
                return torch.stack(features)
            filler = self._entry(self._filler.path)[name]
            rows = max(length * len(filler), *map(len, features))
            return torch.stack([_lengthened(feature, filler, rows) for feature in features])

        return {name: column(name) for name in entries[0]}

    def sizes(self, draws: Sequence[Draw]) -> Tensor:
        """SDXL's size conditions of the draws (Podell et al. 2023, §2.2): (B, 6) float32, each row original height and
        width, top and left of the crop in the scaled picture, height and width of the bucket, in pixels."""
        return torch.tensor([self._sizes(draw.picture) for draw in draws], dtype=torch.float32)

    def _sizes(self, index: int) -> tuple[float, ...]:
        picture, bucket, _ = self.samples[index]
        left, top, right, _ = buckets.crop_box(picture.width, picture.height, bucket)
        scale = bucket.width / (right - left)
        return picture.height, picture.width, round(top * scale), round(left * scale), bucket.height, bucket.width

    def _entries(self, texts: Sequence[str], prompts: bool = False) -> dict[str, _TextEntry]:
        """Where the features of ``texts`` are kept. Captions and prompts that are read alike share theirs."""
        readings = {text: self.encoder.reading(text, prompts) for text in dict.fromkeys(texts)}
        return {
            text: _TextEntry(self._path("text", text, *reading), text, reading, prompts)
            for text, reading in readings.items()
        }

    def _path(self, kind: str, *parts: str | int) -> Path:
        key = hashlib.sha256(json.dumps([VERSION, self.encoder.fingerprint, *parts]).encode()).hexdigest()
        return self.folder / kind / f"{key}.safetensors"

    def _entry(self, path: Path) -> dict[str, Tensor]:
        entry = self._held.get(path) or entry_files.read(path)
        if entry is None:
            raise DatasetError(
                "An encoded picture or caption in the cache is missing or damaged.",
                where=path,
                do="Resume the run, which encodes it again.",
            )
        return entry

    def _hold(self, path: Path, entry: dict[str, Tensor]) -> None:
        size = sum(tensor.nbytes for tensor in entry.values())
        if self._held_bytes + size <= self.limits.memory:
            self._held[path] = entry
            self._held_bytes += size

    def _fill(
        self,
        stage: str,
        items: dict[Path, Item],
        encoded: Callable[[ThreadPoolExecutor, dict[Path, Item]], Iterator[Made]],
    ) -> CacheProgress:
        """Loads or encodes one kind of entry: ``items`` by path; ``encoded`` encodes those that are missing."""
        missing, done = {}, 0
        yield stage, done, len(items)
        with ThreadPoolExecutor(_WORKERS) as pool:
            for path, entry in zip(items, _ahead(pool, entry_files.read, items), strict=True):
                if entry is None:
                    missing[path] = items[path]
                    continue
                with suppress(OSError):  # when it was last used; a read-only cache works too
                    os.utime(path)
                self._hold(path, entry)
                done += 1
                yield stage, done, len(items)
            for made in encoded(pool, missing):
                list(pool.map(entry_files.write, made.keys(), made.values()))
                for path, entry in made.items():
                    self._hold(path, entry)
                done += len(made)
                yield stage, done, len(items)

    def _encoded_pictures(self, pool: ThreadPoolExecutor, missing: dict[Path, _View]) -> Iterator[Made]:
        """Batches of one bucket each, as large as ``_PIXELS_AT_ONCE`` allows, while the next pictures are decoded."""
        by_bucket: dict[Bucket, list[tuple[Path, _View]]] = {}
        for path, view in missing.items():
            by_bucket.setdefault(self.samples[view.picture].bucket, []).append((path, view))
        batches = [
            batch
            for bucket, views in by_bucket.items()
            for batch in _batches(
                views, min(_PICTURES_AT_ONCE, max(1, _PIXELS_AT_ONCE // (bucket.width * bucket.height)))
            )
        ]
        for batch, pixels in zip(
            batches, _ahead(pool, self._pixels, ([view for _, view in batch] for batch in batches)), strict=True
        ):
            with torch.no_grad():
                mean, deviation = self.encoder.encode_images(pixels)
            made = {
                path: {"mean": _own(mean[row]), "deviation": _own(deviation[row])}
                for row, (path, _) in enumerate(batch)
            }
            for path, view in batch:
                _require_finite(made[path], "latents", self.samples[view.picture].picture.path)
            yield made

    def _encoded_texts(self, pool: ThreadPoolExecutor, missing: dict[Path, _TextEntry]) -> Iterator[Made]:
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
                _require_finite(made[path], "text features", text)
            yield made

    def _encoded_masks(self, pool: ThreadPoolExecutor, missing: dict[Path, _View]) -> Iterator[Made]:
        for path, mask in zip(missing, _ahead(pool, self._weights, missing.values()), strict=True):
            yield {path: {"mask": mask}}

    def _pixels(self, views: list[_View]) -> Tensor:
        """(B, 3, H, W) float32 in [-1, 1]: pictures of one bucket."""
        chosen = [(self.samples[view.picture], view.flip) for view in views]
        return torch.stack([fitted.pixels(sample.picture, sample.bucket, flip) for sample, flip in chosen])

    def _weights(self, view: _View) -> Tensor:
        """(1, H/8, W/8) uint8: a mask."""
        picture, bucket, _ = self.samples[view.picture]
        assert picture.mask
        return fitted.weights(picture.mask, bucket, view.flip, self.encoder.scale)


def _chunks(reading: tuple[str | int, ...]) -> int:
    """The chunks of a text that is read so; see ``Encoder.reading``."""
    return int(reading[-1]) if reading else 1


def _lengthened(feature: Tensor, filler: Tensor, rows: int) -> Tensor:
    """``feature`` (N·T, D) with ``filler`` (T, D) behind it, ``rows`` in all; or zeros behind zeros."""
    more = (rows - len(feature)) // len(filler)
    return torch.cat([feature, *[filler if feature.any() else torch.zeros_like(filler)] * more]) if more else feature


def _own(tensor: Tensor) -> Tensor:
    """A copy on the CPU that shares no memory with its batch."""
    return tensor.to("cpu", copy=True).contiguous()


def _require_finite(entry: dict[str, Tensor], kind: str, where: object) -> None:
    if not all(tensor.isfinite().all() for tensor in entry.values()):
        raise ModelError(
            f"The base model's {kind} are NaN or infinite.",
            where=where,
            do="Set precision to fp32: parts of some models overflow in fp16.",
        )


def _batches(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _ahead(pool: ThreadPoolExecutor, function: Callable[[Any], Out], arguments: Iterable[Any]) -> Iterator[Out]:
    """``map`` that computes only a few results in advance, so that thousands of pictures do not fill the memory."""
    waiting: deque[Future[Out]] = deque()
    for argument in arguments:
        waiting.append(pool.submit(function, argument))
        if len(waiting) > _WORKERS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
