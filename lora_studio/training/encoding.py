"""What a run reads of its pictures, captions and prompts: encoded once, and drawn from."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator

import torch

from lora_studio import models
from lora_studio.config.settings import Settings
from lora_studio.config.slices import DatasetSettings
from lora_studio.dataset import augmentation, buckets, sides
from lora_studio.dataset.batch_sampler import BatchSampler
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.items import Dataset, Sample
from lora_studio.events import Event, Preparing
from lora_studio.runs import Run
from lora_studio.training import preservation, reading, sliders, visual_sliders, weights
from lora_studio.training.batches import Batches, BatchSource
from lora_studio.training.session import prompts


def encode(
    run: Run, settings: Settings, dataset: Dataset, base: models.Base, train: Collection[int] = ()
) -> Generator[Event, None, Cache]:
    """Fills the cache with every latent, caption and prompt that will be needed; then the encoders leave the device.

    Args:
        train: indices of the pictures that are trained on, which are mirrored and altered as the settings say.
    """
    samples, plain = _samples(settings, dataset, base, train), preservation.plain_caption(settings)
    trained = [samples[index] for index in train] if plain else []
    preserved = [plain(text) for one in trained for text in (*one.captions, *one.mirrored)] if plain else []
    cache = Cache(
        run.cache,
        reading.RunEncoder(base, settings),
        samples,
        captions=[*preserved, *sliders.texts_of(dataset.pairs)],
        prompts=[*prompts(settings, dataset.pairs), settings.previews.negative],
        masks=settings.dataset.masks,
    )
    last = 0.0
    for stage, done, total in cache.fill(texts=not settings.adapter.reads_text):
        if done == total or time.monotonic() - last > 0.5:
            last = time.monotonic()
            yield Preparing(stage=stage, done=done, total=total)
    base.encoders_to(torch.device("cpu"))
    return cache


def _samples(settings: Settings, dataset: Dataset, base: models.Base, train: Collection[int]) -> list[Sample]:
    assigned = buckets.assign(dataset.pictures, *bucketing(settings.dataset, base))
    samples = []
    for picture, bucket, texts in zip(dataset.pictures, assigned, reading.variants(dataset, settings), strict=True):
        sample = Sample(picture, bucket, texts)
        if len(samples) in train and not dataset.pairs:
            copies = augmentation.copies(picture, settings.augmentation, settings.run.seed)
            sample = sample._replace(mirrored=sides.mirrored(texts, settings.augmentation), copies=copies)
        samples.append(sample)
    return samples


def bucketing(settings: DatasetSettings, base: models.Base) -> tuple[int, int, float]:
    """Resolution and step in pixels, and the largest scale, as ``buckets`` takes them."""
    return settings.resolution or base.resolution, settings.bucket_step, settings.max_upscale


def batches(
    settings: Settings,
    dataset: Dataset,
    cache: Cache,
    base: models.Base,
    train: list[int],
    part: slice,
    pinned: bool,
) -> BatchSource:
    """What a run draws its batches from.

    Args:
        train: indices of the pictures that are trained on.
        part, pinned: as of ``Batches``.
    """
    if dataset.pictures and dataset.pairs:
        return visual_sliders.PicturePairBatches(dataset.pairs, cache, base.process, settings, part, pinned)
    if dataset.pairs:
        return sliders.batches(dataset.pairs, cache, base, settings, part, pinned)
    sampler = BatchSampler(
        cache.samples,
        batch=settings.optimizer.batch,
        seed=settings.run.seed,
        among=train,
        caption_dropout=settings.dataset.caption_dropout,
    )
    return Batches(
        cache,
        sampler,
        base.process,
        settings.run.seed,
        settings.loss,
        settings.noise,
        settings.adapter.reads_text,
        pinned=pinned,
        part=part,
        area=weights.average_area(cache, sampler.own, settings.loss),
        plain=preservation.plain_caption(settings),
    )
