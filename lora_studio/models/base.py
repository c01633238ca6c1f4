"""A base model, and what a family of them has to say for itself."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lora_studio import files
from lora_studio.diffusion.process import Process
from lora_studio.events import BaseLoaded, Warned
from lora_studio.families import weights
from lora_studio.families.family import Family
from lora_studio.methods.method import Method
from lora_studio.models import autoencode
from lora_studio.models.distilled import Distilled
from lora_studio.models.learned_words import TRAINED, LearnedWords
from lora_studio.models.overlay import AdapterOverlay
from lora_studio.models.pieces import Given
from lora_studio.texts.chunks import LITERAL, ChunkedText, Reading, read
from lora_studio.texts.tokenizer import Tokenizer

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By their size in bytes."""


@dataclass(eq=False)
class Base:
    """A base model in memory, frozen. Made by ``lora_studio.models.load``.

    ``device`` and ``dtype`` are the denoiser's; the encoders may be elsewhere (``encoders_to``). The VAE computes in
    float32 whatever ``dtype`` is: SDXL's overflows in fp16, and latents that are cached once deserve all their digits.
    Its decoder alone may be narrower, where nothing but pictures comes of it (``sampling.shortcuts``).
    """

    family: Family
    name: str
    path: Path
    """A diffusers folder or a single file."""
    unet: Any
    """The denoiser: a UNet or, where the family says so, another network."""
    vae: Any
    text_encoders: dict[str, nn.Module]
    tokenizers: list[Tokenizer]
    process: Process
    """How noise is added to its latents and removed again."""
    device: torch.device
    dtype: torch.dtype
    tiled: bool = False
    """Whether the VAE always works in tiles, not only where a whole picture does not fit."""
    in_turn: bool = False
    """Whether the VAE and the text encoders take turns on ``device`` while one is needed, and rest on the CPU
    otherwise: slower where they alternate.
    """
    given: Given = Given()
    """Files that completed it or replaced parts of it."""
    reason: str = ""
    """How it is known what it predicts, and how its noise ends."""
    distilled: Distilled | None = None
    """What is known of its distillation, if it was distilled to draw in a few steps."""
    notices: list[Warned] = field(default_factory=list)
    """What the user should know about it."""
    declared_clip_skip: int = 0
    """The clip skip that its file says; 0 where it says nothing."""
    clip_skip: int = 1
    """That its texts are read with (``Family.clip_skip``)."""
    method: Method | None = None
    """Of the adapter under training; see ``inject``."""
    start: AdapterOverlay | None = None
    """What is subtracted while an adapter trains, if its method wants that; see ``inject``."""
    loaded: AdapterOverlay | None = None
    """Finished adapters on top; see ``inject``."""
    make_room: autoencode.MakeRoom = autoencode.nothing_to_free
    """Frees what was kept to draw sooner; see ``sampling.replay``."""
    decode_at_once: int = 0
    """Pixels of the pictures that are decoded together; one picture always is."""
    _masked: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)
    """What an inpainting model takes behind noisy latents of a size."""

    @property
    def loaded_event(self) -> BaseLoaded:
        """What is said when it is in memory."""
        return BaseLoaded(name=self.name, family=self.family.title, predicts=self.process.describe, reason=self.reason)

    @property
    def scale(self) -> int:
        """Pixels per latent pixel, along one side."""
        return self.family.latent_scale(self.vae.config)

    @property
    def channels(self) -> int:
        """C of its latents."""
        return self.family.latent_channels(self.unet.config)

    @property
    def inpaints(self) -> bool:
        """Whether it takes a mask and a masked picture behind noisy latents."""
        return self.family.inpaints(self.unet.config)

    @property
    def resolution(self) -> int:
        """The side in pixels that it was trained at."""
        return self.family.latent_side(self.unet.config) * self.scale

    @property
    def models(self) -> dict[str, nn.Module]:
        """What an adapter can change: the denoiser and the text encoders, by the first word of a canonical path."""
        return {self.family.denoiser: self.unet, **self.text_encoders}

    @cached_property
    def words(self) -> LearnedWords:
        """The words that its text encoders have learned, under training or of the adapters on top; see ``inject``."""
        return LearnedWords(self.text_encoders, self.tokenizers)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], reading: Reading = LITERAL, length: int = 0) -> dict[str, Tensor]:
        """The text encoders' features: ``hidden`` (B, N·T, D) of N chunks of T tokens, and for SDXL ``pooled`` (B, P),
        the first chunk's. They are where the encoders do.

        Args:
            reading: how the texts are read.
            length: the least N. Otherwise it is that of the longest text; the others are filled up with empty chunks.

        Raises:
            SettingsError: a text is too long, or weighs a word too much.
        """
        encoders = list(self.text_encoders.values())
        self._turn(*encoders)
        training = [encoder.training for encoder in encoders]
        for encoder in encoders:
            encoder.eval()  # an adapter's dropout is for training alone
        try:
            return self.features(texts, reading, length)
        finally:
            for encoder, was in zip(encoders, training, strict=True):
                encoder.train(was)

    def features(self, texts: Sequence[str], reading: Reading = LITERAL, length: int = 0) -> dict[str, Tensor]:
        """As ``encode_text``, but differentiable, and as text encoders under training have it."""
        read_texts = [self.read(text, reading, row) for row, text in enumerate(texts)]
        length = max(length, *(text.length for text in read_texts))
        # chunk by chunk, since overlays repeat their weights for the samples once for every chunk
        rows = list(zip(*(text.rows(self.tokenizers, length) for text in read_texts), strict=True))
        chunks = [chunk for row in rows for chunk in row]
        places = [_device(encoder) for encoder in self.text_encoders.values()]
        tokens, weights = (
            [torch.tensor([of[number][part] for of in chunks], device=at) for number, at in enumerate(places)]
            for part in (0, 1)
        )
        found = self.family.encode_text(
            self.text_encoders, tokens, [text.words for text in read_texts] * length, self.clip_skip
        )
        if any(text.weighted for text in read_texts):
            found = self.family.weigh(self.text_encoders, found, weights)
        return self.family.join(found, length)

    def read(self, text: str, reading: Reading = LITERAL, row: int = 0) -> ChunkedText:
        """As ``texts.read``, for its own text encoders and the words that they have learned.

        Args:
            row: the text's place in its batch, where the samples have weights of their own for the adapters on top:
                with a weight of 0 an adapter's words are plain text.
        """
        return read(text, reading, self.tokenizers, self.words.vocabulary(self.weights_of(row)))

    def weights_of(self, row: int) -> Sequence[float]:
        """The weights of the adapters on top for sample ``row`` of a batch."""
        if self.loaded is None:
            return ()
        return self.loaded.weights[row % len(self.loaded.weights)]

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the latents of ``pixels`` (B, 3, H, W) float32 in [-1, 1]: each (B, 4, H/8, W/8)
        float32, scaled to unit variance.

        A training latent is mean + deviation · ε (Kingma & Welling 2014, §2.4), times the VAE's factor, which both
        already hold.
        """
        self._turn(self.vae)
        return self._encode(pixels)

    @torch.no_grad()
    def encode_masked(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """What an inpainting model is shown of pictures: (B, C + 1, H/8, W/8) float32, the mask (1 where it paints)
        and the latents' mean of the picture in which that part is grey: 0 in [-1, 1]. As in diffusers'
        ``StableDiffusionInpaintPipeline.prepare_mask_latents``, which draws latents around that mean.

        Args:
            pixels: (B, 3, H, W) float32 in [-1, 1].
            masks: (B, 1, H, W) float32 in [0, 1]; from 0.5 on it paints.
        """
        self._turn(self.vae)
        return self._encode_masked(pixels, masks)

    def _encode_masked(self, pixels: Tensor, masks: Tensor) -> Tensor:
        painted = masks >= 0.5
        mean, _ = self._encode(pixels * ~painted)
        return torch.cat([F.interpolate(painted.to(mean), mean.shape[-2:], mode="nearest"), mean], dim=1)

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = autoencode.encode(self.vae, pixels, self.tiled, self.make_room)
        shift = self.vae.config.shift_factor or 0.0
        return (mean - shift) * self.vae.config.scaling_factor, deviation * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) float32 in [0, 1] of scaled latents (B, 4, h, w)."""
        self._turn(self.vae)
        shift = self.vae.config.shift_factor or 0.0
        unscaled = latents / self.vae.config.scaling_factor + shift
        pixels = autoencode.decode(self.vae, unscaled, self.tiled, self.make_room)
        return (pixels / 2 + 0.5).clamp(0, 1)

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Mapping[str, Tensor],
        sizes: Tensor | None = None,
        inpainting: Tensor | None = None,
    ) -> Tensor:
        """What the denoiser predicts, differentiable.

        Args:
            noisy: (B, C, h, w) latents with noise.
            timesteps: (B,) as ``process`` draws them, or () for all.
            text: as ``encode_text`` gave it; moved and cast as need be.
            sizes: (B, 6) original height and width, top and left of the crop, height and width; None says "whole, and
                of this size".
            inpainting: what an inpainting model is shown, as ``encode_masked`` gave it; None masks the whole pictures.

        Returns:
            (B, C, h, w) float32: what ``process`` has it predict.
        """
        text = {name: feature.to(self.device, self.dtype) for name, feature in text.items()}
        sizes = self.whole(noisy) if sizes is None else sizes.to(self.device, torch.float32)
        noisy = noisy.to(self.device, self.dtype)
        if self.inpaints:
            shown = self._all_masked(noisy) if inpainting is None else inpainting
            noisy = torch.cat([noisy, shown.to(noisy)], dim=1)
        return self.family.predict(self.unet, noisy, timesteps, text, sizes).float()

    def _all_masked(self, noisy: Tensor) -> Tensor:
        """(B, C + 1, h, w): a mask of ones, and the latents of the picture that is left, which is grey: 0 in [-1, 1].
        So inpainting models were trained on a part of their batches, and answer as text-to-image models.
        """
        size = noisy.shape[-2:]
        if size not in self._masked:
            pixels = torch.zeros(1, 3, *(side * self.scale for side in size))
            with torch.no_grad():  # where the VAE rests, once for each size: a step under capture copies nothing here
                self._masked[size] = self._encode_masked(pixels, torch.ones_like(pixels[:, :1])).to(self.device)
        return self._masked[size].expand(len(noisy), -1, -1, -1)

    def whole(self, latents: Tensor) -> Tensor:
        """The (B, 6) sizes of uncropped pictures of exactly the latents' size."""
        height, width = (side * self.scale for side in latents.shape[-2:])
        return torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=self.device).repeat(
            len(latents), 1
        )

    def encoders_to(self, device: torch.device | str) -> None:
        """Moves the VAE and the text encoders, as to the CPU once everything is encoded; frees what they held on the
        accelerator. One under training stays.
        """
        for module in (self.vae, *self.text_encoders.values()):
            _move(module, device)
        self._free()

    def _turn(self, *wanted: nn.Module) -> None:
        """Brings ``wanted`` to the accelerator, if encoders take turns, and sends the others away first."""
        if not self.in_turn or all(_device(module) == self.device for module in wanted):
            return
        for module in (self.vae, *self.text_encoders.values()):
            if module not in wanted:
                _move(module, "cpu")
        self._free()
        for module in wanted:
            _move(module, self.device)

    def _free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tokenizers, text encoders, clip skip and VAE, and whether that works in tiles: two models
        with the same one encode alike, digit for digit.
        """
        digest = hashlib.sha256(f"{self.family.name}{' tiled' if self.tiled else ''}".encode())
        if self.clip_skip != 1:
            digest.update(f"clip skip {self.clip_skip}".encode())
        for tokenizer in self.tokenizers:
            digest.update(
                json.dumps([sorted(tokenizer.clip.get_vocab().items()), tokenizer.length, tokenizer.pad]).encode()
            )
        with ThreadPoolExecutor() as pool:  # gigabytes, which one processor alone would take seconds for
            for module in (*self.text_encoders.values(), self.vae):
                names, tensors = zip(*sorted(module.state_dict().items()), strict=True)
                sums = zip(names, tensors, pool.map(_sha256, tensors), strict=True)
                digest.update(
                    "\n".join(
                        [
                            _settings(module),
                            *(f"{name} {tensor.dtype} {tuple(tensor.shape)} {of}" for name, tensor, of in sums),
                        ]
                    ).encode()
                )
        return digest.hexdigest()

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over the denoiser's configuration and a quick sum of each frozen weight, in the modules' order: the
        same with an adapter in it, which renames weights.

        It is a key for what the denoiser draws, not a signature: words that change places within one weight go
        unnoticed, and so do the scales of packed ones. Two different models differ in nearly every weight, and biases,
        norms and convolutions are never packed. Do not ask for it the first time within ``inject.without_adapter``,
        which freezes the adapter too.
        """
        weights = [parameter.detach() for parameter in self.unet.parameters() if not parameter.requires_grad]
        sums = torch.stack([_sum(weight) for weight in weights]).tolist()  # the device is waited for but once
        described = (f"{weight.dtype} {tuple(weight.shape)} {of}" for weight, of in zip(weights, sums, strict=True))
        return hashlib.sha256("\n".join([_settings(self.unet), *described]).encode()).hexdigest()

    def sha256(self) -> str:
        """As ``weights.sha256_of``."""
        return weights.sha256_of(self.path)

    def given_sha256(self) -> dict[str, str]:
        """SHA-256 of each file that was given beside it, by the file's name; with its folder's, where two files have
        the same, as those of diffusers' folders do.
        """
        given = dict.fromkeys(self.given.files)
        names = Counter(path.name for path in given)
        return {
            path.name if names[path.name] == 1 else f"{path.absolute().parent.name}/{path.name}": files.sha256(path)
            for path in given
        }


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()).hexdigest()


def _sum(weight: Tensor) -> Tensor:
    """() int64 on the weight's device: its memory, read as integers of 64 bits where it comes out even, added up modulo
    2⁶⁴. Copies nothing: to add up smaller numbers in 64 bits, torch would first make a tensor of them, thirty times
    slower on a CPU."""
    words = weight.permute(
        sorted(range(weight.ndim), key=weight.stride, reverse=True)
    ).flatten()  # channels last are one row too
    many = 8 // words.itemsize
    if words.numel() % many or words.storage_offset() % many:
        return words.view(_INTEGERS[words.itemsize]).sum(dtype=torch.int64)
    return words.view(torch.int64).sum()


def _settings(module: nn.Module) -> str:
    """A part's configuration as sorted JSON, without what says where it came from."""
    config: Any = module.config
    config = config if isinstance(module.config, Mapping) else config.to_dict()
    return json.dumps(
        {
            key: value
            for key, value in config.items()
            if not key.startswith("_") and key not in ("transformers_version", "dtype", "torch_dtype")
        },
        sort_keys=True,
        default=str,
    )


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _move(module: nn.Module, device: torch.device | str) -> None:
    """A module with an adapter under training keeps its place: its parameters lie in the optimizer's buffer. It is
    told by its modules and not by its gradients, which ``inject.without_adapter`` switches off.
    """
    trains = hasattr(module, TRAINED) or any(isinstance(layer, BaseTunerLayer) for layer in module.modules())
    if not trains:
        module.to(device)
