"""What a family of base models must say."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lora_studio.diffusion.process import Process
from lora_studio.diffusion.registry import process_of
from lora_studio.errors import SettingsError
from lora_studio.families import layout
from lora_studio.families.layout import Shape, Source
from lora_studio.language import tr

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIGS = Path(__file__).parent / "configs"
"""The configurations that single files lack, a folder each."""

_CARRIERS = ("style", "content", "layout")
"""What the blocks of a family may mostly carry."""
_PART_TITLES = {
    "unet": tr("the UNet"),
    "transformer": tr("the transformer"),
    "vae": tr("the VAE"),
    "text_encoder": tr("the text encoder"),
    "text_encoder_2": tr("the second text encoder"),
    "tokenizer": tr("the tokenizer"),
    "tokenizer_2": tr("the second tokenizer"),
    "scheduler": tr("the scheduler"),
}


def part_title(part: str) -> str:
    """The name of a part's folder in messages."""
    return _PART_TITLES[part] if part in _PART_TITLES else tr("the {part}", part=part.replace("_", " "))


def weighed(hidden: Tensor, weights: Tensor) -> Tensor:
    """Hidden states (B, T, D) times their tokens' ``weights`` (B, T) float32, brought back to the mean that each row
    had: A1111's normalization (``modules/sd_emphasis.py``, "Original"), row by row, so that no text depends on others.
    Rows without weights stay as they are, bit for bit.
    """
    states = hidden.float()
    changed = states * weights[..., None]
    before, after = (each.mean(dim=(1, 2), keepdim=True) for each in (states, changed))
    restored = changed * (before / after).where(after != 0, 1.0)
    touched = (weights != 1).any(dim=1)[:, None, None]
    return hidden.where(~touched, restored.to(hidden.dtype))


class Family(ABC):
    """Models of one architecture. One instance speaks for the whole family and holds no weights.

    Importing a family must not import torch: the library and the page ask for names, keys and shapes before it is
    loaded.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """As people name it."""
    heading: ClassVar[str] = ""
    """The title by itself, without an article and with a capital; empty where it is that already."""

    # Parts

    denoiser: ClassVar[str] = "unet"
    """The denoiser's folder in diffusers' layout, and the first word of its modules' canonical paths."""
    encoders: ClassVar[dict[str, str]] = {"text_encoder": "tokenizer"}
    """The text encoders' folders, each with its tokenizer's."""
    classes: ClassVar[dict[str, str]]
    """Part -> its class by dotted name, imported when a model is loaded. It is made by ``from_config`` if it has that
    (diffusers), else from its ``config_class`` (transformers).
    """

    memory: ClassVar[str] = ""
    """The function that records what a step keeps of a model, by dotted name, as ``training.unet_activations.walk``
    does for UNets. Empty where none is written: a run's memory can then be measured, but not estimated.
    """

    # Adapters

    targets: ClassVar[dict[str, str]]
    """The setting ``targets`` -> a regular expression for the ends of the denoiser's module names."""
    text_targets: ClassVar[dict[str, str]]
    """The same for its text encoders."""
    blocks: ClassVar[dict[str, tuple[str, ...]]] = {}
    """style, content and layout -> the canonical paths of the blocks that mostly carry it. Empty where nothing has been
    published.
    """
    style_blocks: ClassVar[tuple[str, ...]] = ()
    """The denoiser's modules whose channels tell the style of a picture, by name; empty where none have been chosen.
    ``evaluation.perception`` reads them.
    """
    subject_block: ClassVar[str] = ""
    """The denoiser's module whose output tells the subject of a picture."""
    roots: ClassVar[tuple[str, ...]] = ()
    """The denoiser's outermost modules: what a key without a component may begin with."""
    words: ClassVar[str] = ""
    """A regular expression for the module names with underscores: in kohya's keys every other underscore is a dot."""
    kohya: ClassVar[dict[str, str]] = {"text_encoder": "lora_te_"}
    """Component -> how kohya's keys begin; ``lora_`` and the component where it is not given."""
    original_keys: ClassVar[bool] = False
    """Whether kohya's keys name the denoiser's blocks as the original trainers do."""
    version: ClassVar[str] = ""
    """``ss_base_model_version`` of adapters' headers."""
    version_start: ClassVar[str] = ""
    """What that begins with for all models of the family, where it is not ``version``."""
    architecture: ClassVar[str] = ""
    """``modelspec.architecture`` of adapters' headers, without ``/lora``."""
    successor: ClassVar[str] = ""
    """The name of the family that took its place. Their models have the same shapes and different weights, so the
    adapters of one do not fit the models of the other.
    """
    resolution: ClassVar[int] = 0
    """The side in pixels that its published models were trained at."""

    # Single files

    configs: ClassVar[str] = ""
    """Folder in ``CONFIGS`` with the configurations of its published models; empty where none are shipped."""
    pads: ClassVar[tuple[int | None, ...]] = (None,)
    """For each text encoder, the token that its trainers filled up short captions with; None is the end of text."""
    prefixes: ClassVar[dict[str, str]] = {}
    """Part -> the start of its keys in a single file."""
    v_ends_in_noise: ClassVar[bool] = False
    """Whether a model that predicts v is taken for one with zero terminal SNR where its files do not say."""

    @property
    def parts(self) -> list[str]:
        """The folders that a model in diffusers' layout must hold."""
        return [self.denoiser, "vae", *self.encoders, *self.encoders.values(), "scheduler"]

    @property
    def components(self) -> tuple[str, ...]:
        """The parts that an adapter can change."""
        return (self.denoiser, *self.encoders)

    def kohya_prefix(self, component: str) -> str:
        """How kohya's keys of ``component`` begin."""
        return self.kohya.get(component, f"lora_{component}_")

    def named_blocks(self, lines: Sequence[str]) -> list[str]:
        """``lines``, with the blocks that ``style``, ``content`` or ``layout`` stands for where one begins with that.

        Raises:
            SettingsError: none have been published for this family.
        """
        found = []
        for line in lines:
            word, space, rest = line.partition(" ")
            if word in _CARRIERS and word not in self.blocks:
                raise SettingsError(
                    tr(
                        "Which blocks carry the {carried} in {family} has not been published.",
                        carried=word,
                        family=self.title,
                    ),
                    where="blocks",
                    do=tr(
                        "Name blocks yourself, such as up_blocks.1. What an adapter changes in the Library shows some."
                    ),
                )
            found += [f"{block}{space}{rest}" for block in self.blocks.get(word, (word,))]
        return found

    # Which models are its own

    @abstractmethod
    def owns_folder(self, denoiser: Mapping[str, Any]) -> bool:
        """Whether a denoiser of this configuration is of this family. It must say no to every other family's."""

    def owns_denoiser(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether a single file's denoiser is of this family; no if its single files cannot be read.

        Args:
            shapes: by its keys in the original layout, without a prefix.
        """
        return False

    @cached_property
    def modules(self) -> dict[str, Shape]:
        """Every linear layer and convolution that an adapter for a published model can change, by canonical path, with
        the shape of its weight. Empty where that is not known: its adapters are not recognized.
        """
        return {}

    def fits(self, path: str, shape: Shape) -> bool:
        """Whether one of its models has a weight of ``shape`` at the canonical path ``path``."""
        return path in self.modules and layout.same(shape, self.modules[path])

    def claimed_by(self, version: str, architecture: str) -> bool:
        """Whether an adapter's header with these entries claims to be made for this family."""
        start = self.version_start or self.version
        by_version, by_architecture = bool(start) and version.startswith(start), bool(self.architecture)
        return by_version or (by_architecture and architecture.startswith(self.architecture))

    def marks(self, noise: bool) -> tuple[str, str]:
        """``version`` and ``architecture`` of an adapter for a model that predicts the noise, or something else."""
        return self.version, self.architecture or self.name

    # Text, latents and noise

    clip_skips: ClassVar[tuple[int, ...]] = ()
    """The values of the setting ``clip_skip`` that mean something: 1 reads the text encoder after its last layer, 2
    before it. Empty where every model of the family is read at the same layer.
    """
    sequences: ClassVar[tuple[str, ...]] = ("hidden",)
    """The features with a place for each token, (B, T, D), which those of a longer text's chunks join to (B, N·T, D).
    Of the others a text has those of its first chunk.
    """

    def clip_skip(self, wanted: int, declared: int) -> int:
        """The clip skip of a model.

        Args:
            wanted: the setting; 0 leaves it to the model.
            declared: what its file says; 0 where it says nothing.

        Raises:
            SettingsError: this family has no such value.
        """
        if wanted > 1 and wanted not in self.clip_skips:
            what = tr(
                "{family} has no clip skip {wanted}: its text encoders are always read at the same layer.",
                family=self.title,
                wanted=wanted,
            )
            raise SettingsError(what, where="clip_skip", do=tr("Set clip_skip to 0."))
        return wanted or (declared if declared in self.clip_skips else 1)

    @abstractmethod
    def encode_text(
        self, encoders: Mapping[str, nn.Module], tokens: Sequence[Tensor], captions: Sequence[str], clip_skip: int
    ) -> dict[str, Tensor]:
        """The features of one chunk of each of ``captions`` by name, batch first, as the denoiser needs them. All of
        them are cached.

        Args:
            encoders: by the names of ``self.encoders``.
            tokens: (B, T) int64 for each encoder.
            captions: the whole texts, B of them; what is empty is the empty caption.
            clip_skip: one of ``clip_skips``, else 1.
        """

    def weigh(
        self, encoders: Mapping[str, nn.Module], features: Mapping[str, Tensor], weights: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """``features`` of chunks, as ``encode_text`` gave them, with each token's weight applied: ``weights`` (B, T)
        float32 for each encoder.
        """
        return {
            name: weighed(feature, weights[0]) if name in self.sequences else feature
            for name, feature in features.items()
        }

    def join(self, features: Mapping[str, Tensor], chunks: int) -> dict[str, Tensor]:
        """The features of B texts from those of their chunks: N·B rows, the first chunk of every text, then the second
        of every text, and so on.
        """
        if chunks == 1:
            return dict(features)
        return {
            name: feature.unflatten(0, (chunks, -1)).transpose(0, 1).flatten(1, 2)
            if name in self.sequences
            else feature[: len(feature) // chunks]
            for name, feature in features.items()
        }

    @abstractmethod
    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, text: Mapping[str, Tensor], sizes: Tensor
    ) -> Tensor:
        """What ``denoiser`` predicts, of the shape of ``noisy`` (B, C, h, w), differentiable.

        Args:
            timesteps: (B,) as the noise process draws them, or () for all.
            text: as ``encode_text`` gave it.
            sizes: (B, 6) float32 original height and width, top and left of the crop, height and width in pixels.
        """

    def process(self, schedule: Mapping[str, Any], prediction: str = "auto") -> Process:
        """Its noise process.

        Args:
            schedule: a model's scheduler configuration, as diffusers writes it.
            prediction: as the setting ``prediction`` names it.

        Raises:
            SettingsError: the studio cannot train it.
        """
        return process_of(schedule, prediction)

    def inpaints(self, denoiser: Mapping[str, Any]) -> bool:
        """Whether a denoiser of this configuration takes a mask (1 where it paints) and the latents of the masked
        picture behind the noisy latents.
        """
        return False

    def latent_channels(self, denoiser: Mapping[str, Any]) -> int:
        """C of the latents, from the denoiser's configuration."""
        return denoiser["out_channels" if self.inpaints(denoiser) else "in_channels"]

    def latent_scale(self, vae: Mapping[str, Any]) -> int:
        """Pixels per latent pixel along one side, from the VAE's configuration."""
        return 2 ** (len(vae["block_out_channels"]) - 1)

    def latent_side(self, denoiser: Mapping[str, Any]) -> int:
        """The side in latent pixels that a model was trained at, from the denoiser's configuration."""
        return denoiser["sample_size"]

    # Single files

    def config(self, part: str) -> dict[str, Any]:
        """The shipped configuration of ``part``, or of the ``scheduler``."""
        return json.loads((CONFIGS / self.configs / f"{part}.json").read_text("utf-8"))

    def fit(self, part: str, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """The shipped configuration of ``part`` with the widths that a single file's ``shapes`` tell.

        Args:
            shapes: of that part's keys, without their prefix.

        Raises:
            KeyError, IndexError, StopIteration: the file lacks a weight that tells one.
        """
        raise NotImplementedError(f"Single files of {self.title} are not read.")

    def sources(self, part: str, name: str, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> list[Source]:
        """Where the weight ``name`` of ``part`` can be in a single file, the likeliest place first, without the prefix.

        Args:
            config: of the part, as ``fit`` gave it.
            shapes: as for ``fit``.
        """
        raise NotImplementedError(f"Single files of {self.title} are not read.")

    def native_size(self, prediction: str, latent_side: int) -> int:
        """The side in latent pixels that a single file was trained at.

        Args:
            prediction: what it predicts.
            latent_side: the shipped configuration's.
        """
        return latent_side
