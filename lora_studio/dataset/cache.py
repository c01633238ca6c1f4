"""Latents and text features, encoded once and cached on disk under hashes of their inputs.

An entry is a safetensors file whose name is a hash of everything that went into it: the bytes of the picture or mask,
bucket, crop and mirroring, or the caption; the encoders' fingerprint; the version of this procedure. Its header holds a
hash of its tensors. So an entry is never stale, and one that is incomplete or damaged is detected and encoded again.
Tensors keep the encoder's dtype: what training reads from disk is bit for bit what it would have encoded.

The cache also holds previews of the base model alone (``training.previews``), which ``entry_files.prune`` counts too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from lora_studio.dataset import entry_files, framing
from lora_studio.dataset.encoding import WORKERS, Encoder, Encoding, Made, TextEntry, View, ahead
from lora_studio.dataset.items import Draw, Sample
from lora_studio.dataset.preparation import Crop
from lora_studio.errors import DatasetError
from lora_studio.language import tr

VERSION = 2
"""Increased whenever the same picture or caption would be encoded differently."""

FILLER = " "
"""A text without words, unlike the empty caption: its features fill up those of short texts."""

Item = TypeVar("Item")
CacheProgress = Iterator[tuple[str, int, int]]
"""(stage, done, total) for every entry or batch."""


class Limits(NamedTuple):
    """Most bytes of entries to hold in memory, where the rest is read from disk when it is drawn; and to leave on disk,
    from where the least recently used are removed first, but none that the present run uses.
    """

    memory: int = 4 * 1024**3
    disk: int = 20 * 1024**3


class Cache:
    """Everything that training reads of a dataset. Call ``fill`` once, then draw.

    Args:
        folder: where entries are stored; may be shared by all runs.
        encoder: encodes what is missing.
        samples: all pictures, each with its bucket, the variants of its caption, and its copies.
        prompts: the prompts whose features will be needed (``features``).
        captions: further texts whose features will be needed as captions' (``of_captions``).
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
        captions: Sequence[str] = (),
        masks: bool = True,
        limits: Limits = Limits(),
    ):
        self.folder, self.encoder, self.samples, self.limits = folder, encoder, samples, limits
        self._encoding = Encoding(encoder, samples)
        self._held: dict[Path, dict[str, Tensor]] = {}
        self._held_bytes = 0
        self._latents = {
            view: self._path("latents", sample.picture.sha256, *self._framing(view), *self._colours(view))
            for index, sample in enumerate(samples)
            for view in _views(index, sample)
        }
        self._masks = {
            view: self._path("masks", mask.sha256, *self._framing(view))
            for view in self._latents
            if masks and (mask := samples[view.picture].picture.mask)
        }
        self._masked = {view: self._masked_path(view) for view in self._latents if self._masks and encoder.inpaints}
        written = (text for sample in samples for text in (*sample.captions, *sample.mirrored))
        self._captions = self._entries(["", *written, *captions])
        self._prompts = self._entries(["", *prompts], prompts=True)
        self._texts = {entry.path: entry for entry in (*self._prompts.values(), *self._captions.values())}
        self._filler: TextEntry | None = None
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
        if self._latents:
            views = {path: view for view, path in self._latents.items()}
            yield from self._fill(tr("pictures"), views, self._encoding.pictures)
        if self._masks:
            yield from self._fill(tr("masks"), {path: view for view, path in self._masks.items()}, self._encoding.masks)
        if self._masked:
            views = {path: view for view, path in self._masked.items()}
            yield from self._fill(tr("masked pictures"), views, self._encoding.masked)
        if texts:
            yield from self._fill(tr("captions"), self._texts, self._encoding.texts)
        used = {*self._latents.values(), *self._masks.values(), *self._masked.values(), *self._texts}
        entry_files.prune(self.folder, self.limits.disk, keep=used)

    def latents(self, draws: Sequence[Draw], generator: torch.Generator | None = None) -> Tensor:
        """x0 = mean + deviation · ε (Kingma & Welling 2014, §2.4) of the draws: (B, 4, H/8, W/8) scaled latents; ε from
        ``generator``, or 0 without one.
        """
        entries = [self._entry(self._latents[_view(draw)]) for draw in draws]
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
            if path := self._masks.get(_view(draw)):
                found[row] = self._entry(path)["mask"]
        return found.float() / 255

    def inpainting(self, draws: Sequence[Draw]) -> Tensor | None:
        """What a model that inpaints is shown of the draws' pictures, (B, 5, H/8, W/8) float32: as ``encode_masked``
        gave it; pictures without a mask are masked as a whole. None for other models, and if no picture of the dataset
        has a mask.
        """
        if not self._masked:
            return None
        return torch.stack([self._entry(self._masked[_view(draw)])["shown"] for draw in draws])

    def text(self, draws: Sequence[Draw]) -> dict[str, Tensor]:
        """The text features of the draws' captions by name, batch first; a dropped caption is the empty one. Shorter
        texts are filled up to the longest one.
        """
        return self.of_captions(self.captions(draws))

    def of_captions(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The same of ``texts``, captions of pictures or further ones."""
        return self._filled([self._entry(self._captions[text].path) for text in texts])

    def captions(self, draws: Sequence[Draw]) -> list[str]:
        """The caption of each draw; a dropped one is empty."""
        return ["" if draw.drop_caption else self.caption(draw) for draw in draws]

    def caption(self, draw: Draw) -> str:
        """The caption of a draw, also if it is dropped."""
        sample = self.samples[draw.picture]
        return (sample.mirrored if draw.flip else sample.captions)[draw.variant]

    def length(self, texts: Sequence[str]) -> int:
        """The chunks of the longest of ``texts``, as ``of_captions`` takes them."""
        return max(self._captions[text].length for text in texts)

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
        width, top and left of the crop in the scaled picture, height and width of the bucket, in pixels. A crop of the
        artist's own is a picture of its own: what she cut off was never there.
        """
        return torch.tensor([self._sizes(draw) for draw in draws], dtype=torch.float32)

    def _sizes(self, draw: Draw) -> tuple[float, ...]:
        picture, bucket = self.samples[draw.picture][:2]
        altered = _view(draw).alteration(self.samples)
        left, top, right, _ = framing.region((picture.width, picture.height), bucket, altered, picture.crop)
        scale = bucket.width / (right - left)
        own = picture.crop or Crop(0, 0, 1, 1)
        height, width = picture.height * (own.bottom - own.top), picture.width * (own.right - own.left)
        left, top = left - own.left * picture.width, top - own.top * picture.height
        return round(height), round(width), round(top * scale), round(left * scale), bucket.height, bucket.width

    def _entries(self, texts: Sequence[str], prompts: bool = False) -> dict[str, TextEntry]:
        """Where the features of ``texts`` are kept. Captions and prompts that are read alike share theirs."""
        readings = {text: self.encoder.reading(text, prompts) for text in dict.fromkeys(texts)}
        return {
            text: TextEntry(self._path("text", text, *reading), text, reading, prompts)
            for text, reading in readings.items()
        }

    def _masked_path(self, view: View) -> Path:
        """Pictures without a mask share an entry for each bucket: nothing of them is shown."""
        sample = self.samples[view.picture]
        picture = sample.picture
        if picture.mask is None:
            return self._path("masked", *sample.bucket)
        parts = picture.mask.sha256, *self._framing(view)[len(_shape(sample)) :], *self._colours(view)
        return self._path("masked", *_shape(sample), picture.sha256, *parts)

    def _framing(self, view: View) -> tuple[float, ...]:
        """What decides, beside the bytes, which pixels are encoded."""
        return *_shape(self.samples[view.picture]), view.flip, *view.alteration(self.samples).framing

    def _colours(self, view: View) -> tuple[float, ...]:
        altered = view.alteration(self.samples)
        return (altered.hue, altered.saturation, altered.brightness) if altered.recolours else ()

    def _path(self, kind: str, *parts: str | float) -> Path:
        key = hashlib.sha256(json.dumps([VERSION, self.encoder.fingerprint, *parts]).encode()).hexdigest()
        return self.folder / kind / f"{key}.safetensors"

    def _entry(self, path: Path) -> dict[str, Tensor]:
        entry = self._held.get(path) or entry_files.read(path)
        if entry is None:
            raise DatasetError(
                tr("An encoded picture or caption in the cache is missing or damaged."),
                where=path,
                do=tr("Resume the run, which encodes it again."),
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
        with ThreadPoolExecutor(WORKERS) as pool:
            for path, entry in zip(items, ahead(pool, entry_files.read, items), strict=True):
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


def _views(index: int, sample: Sample) -> list[View]:
    """All that may be drawn of a picture."""
    flips = (False, True)[: 1 + bool(sample.mirrored)]
    return [View(index, flip, copy) for copy in range(len(sample.copies)) for flip in flips]


def _view(draw: Draw) -> View:
    return View(draw.picture, draw.flip, draw.copy)


def _shape(sample: Sample) -> tuple[float, ...]:
    """What decides, beside the bytes, which pixels are encoded before mirroring."""
    return *sample.bucket, *(sample.picture.crop or ())


def _lengthened(feature: Tensor, filler: Tensor, rows: int) -> Tensor:
    """``feature`` (N·T, D) with ``filler`` (T, D) behind it, ``rows`` in all; or zeros behind zeros."""
    more = (rows - len(feature)) // len(filler)
    return torch.cat([feature, *[filler if feature.any() else torch.zeros_like(filler)] * more]) if more else feature
