"""What is to be drawn: the fields of the page, or the arguments of a script, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio import __version__, files
from lora_studio.config.slices import PreviewSettings
from lora_studio.errors import ModelError, SettingsError, StudioError
from lora_studio.jobs.image_spec import ImageSpec, Placed
from lora_studio.language import tr
from lora_studio.runs import library
from lora_studio.runs.library import Entry
from lora_studio.sampling.image_settings import FromImage, Hires, ImageSettings
from lora_studio.sampling.picture_recipe import PictureRecipe, StartedFrom, UsedAdapter, sha256
from lora_studio.ui.pages.draw import named, sizes
from lora_studio.ui.pages.draw.sizes import PixelSize
from lora_studio.ui.paths import tidy
from lora_studio.ui.scene.base_reading import number, read_from
from lora_studio.ui.scene.mixture import Mix

AT_ONCE = 4
"""Pictures that are asked for together: they share the denoiser's work, and a row that is ended keeps those before."""
MOST = 64
"""Pictures of a row."""


class DrawFields(NamedTuple):
    """What is drawn, as the page's fields have it. An empty number field is None."""

    prompt: str
    negative: str = ""
    seed: float | None = 1
    count: float | None = 1
    shape: str = "1:1"
    upright: bool = False
    width: float | None = None
    height: float | None = None
    steps: float | None = 20
    guidance: float | None = 5.0
    sampler: str = "dpm++"
    prompt_weights: bool = True
    base: str = "starter"
    base_read: Mapping[str, Any] = {}
    larger: bool = False
    scale: float | None = 2.0
    scale_strength: float | None = 0.5
    scale_steps: float | None = 0
    start: str = ""
    """The path of the picture to start from; empty for none."""
    start_strength: float | None = 0.6


@dataclass(frozen=True)
class DrawOrder:
    """Pictures to draw with one spec, whose seeds follow each other.

    Attributes:
        prompt: as it was typed, with what it says of adapters.
    """

    spec: ImageSpec
    prompt: str

    def parts(self) -> Iterator[ImageSpec]:
        """Specs of at most ``AT_ONCE`` pictures."""
        for first in range(0, self.spec.count, AT_ONCE):
            count = min(AT_ONCE, self.spec.count - first)
            yield self.spec.model_copy(update={"seed": self.spec.seed + first, "count": count})

    def recipe(self) -> PictureRecipe:
        """The recipe of its first picture. Reads every file that it is drawn from, for their hashes."""
        spec = self.spec
        settings = {key: getattr(spec, key) for key in ImageSettings.model_fields} | _as_drawn(spec)
        noise = {key: getattr(spec, key) for key in ("prediction", "zero_snr", "flow_shift", "clip_skip")}
        start = spec.start and StartedFrom(
            name=Path(spec.start.path).name, sha256=spec.start.sha256, strength=spec.start.strength
        )
        return PictureRecipe(
            **settings,
            **noise,
            prompt=spec.prompt,
            seed=spec.seed,
            base=Path(spec.base).name,
            base_sha256=sha256(Path(spec.base)),
            parts={Path(one).name: sha256(Path(one)) for one in (spec.vae, *spec.text_encoders) if one},
            adapters=tuple(UsedAdapter.of(Path(one.path), one.weight, one.name, one.blocks) for one in spec.adapters),
            start=start,
            version=__version__,
        )


def _as_drawn(spec: ImageSpec) -> dict[str, Any]:
    """Steps and guidance as a distilled base model is drawn with, where the defaults were left."""
    if spec.base == "starter":
        return {}
    from lora_studio.models.load import distillation  # torch, which the starter does without

    try:
        found = distillation(spec.base)
    except StudioError:  # drawing it says so
        return {}
    if found is None:
        return {}
    suited = found.suited(PreviewSettings(preview_steps=spec.steps, guidance=spec.guidance))
    return {"steps": suited.preview_steps, "guidance": suited.guidance}


def order(asked: DrawFields, mix: Mix, outputs: Path) -> DrawOrder:
    """The order of what the fields hold, with the adapters of ``mix`` and of the prompt.

    Raises:
        SettingsError: a number is out of range, or an adapter is named twice.
        AdapterError: the library lacks an adapter that the prompt names.
        ModelError: no base model is named, or it cannot be read.
    """
    entries = library.entries(outputs)
    prompt, told = named.in_prompt((asked.prompt or "").strip(), entries)
    stems = {entry.path: named.cards.stem(entry) for entry in entries}
    rows = [
        Placed(path=row.path, weight=row.weight, name=stems.get(row.path, row.name), blocks=row.factors)
        for row in mix.rows
    ]
    placed = [*rows, *(one.placed for one in told)]
    placed += [one.placed for one in embeddings(asked, placed, entries)]
    return DrawOrder(spec(asked, prompt, placed), asked.prompt or "")


def embeddings(asked: DrawFields, placed: Sequence[Placed], entries: Sequence[Entry]) -> list[named.NamedAdapter]:
    """The library's embeddings for the base model whose words the prompts name, beside the adapters ``placed``.

    Raises:
        AdapterError: ``embedding:WORD`` names none.
    """
    read = read_from(asked.base_read)
    parts = read.get("vae", ""), tuple(read.get("text_encoders", ()))

    def fits(entry: Entry) -> bool:
        return entry.family == sizes.family_of(tidy(asked.base), *parts)

    texts = [asked.prompt or "", asked.negative or ""]
    return named.embeddings_in(texts, entries, fits, [one.path for one in placed])


def spec(asked: DrawFields, prompt: str, placed: Sequence[Placed]) -> ImageSpec:
    """The spec of what the fields hold, with these adapters.

    Raises:
        SettingsError: a number is out of range, or an adapter is named twice.
        ModelError: no base model is named, or it cannot be read.
    """
    _require_once(placed)
    base = tidy(asked.base)
    if not base:
        raise ModelError(
            tr("No base model is named."),
            where=tr("Base model"),
            do=tr("Choose the built-in starter, or paste the path of a diffusers folder or a .safetensors checkpoint."),
        )
    read = read_from(asked.base_read)
    size = size_of(asked, sizes.side_of(base, read.get("vae", ""), tuple(read.get("text_encoders", ()))))
    return ImageSpec(
        base=base,
        **read,
        adapters=tuple(placed),
        prompt=prompt,
        negative=(asked.negative or "").strip(),
        prompt_weights=asked.prompt_weights,
        seed=number("preview_seed", tr("Seed"), asked.seed),
        count=_whole(tr("Pictures"), asked.count, 1, MOST),
        steps=number("preview_steps", tr("Steps"), asked.steps),
        guidance=number("guidance", tr("Guidance"), asked.guidance),
        sampler=asked.sampler,
        width=size.width,
        height=size.height,
        hires=_hires(asked),
        start=_start(asked),
        forming=True,
    )


def size_of(asked: DrawFields, side: int) -> PixelSize:
    """The size in pixels, for a base model that was trained at ``side``.

    Raises:
        SettingsError: a side is missing or out of range, or there is no such shape.
    """
    if asked.shape in sizes.SHAPES:
        return sizes.sized(asked.shape, asked.upright, side)
    if asked.shape != sizes.OWN:
        raise SettingsError(
            tr("There is no shape {shape!r}.", shape=asked.shape),
            where="shape",
            do=tr("Choose one of {shapes}.", shapes=list(sizes.SHAPES)),
        )
    return PixelSize(
        _whole(tr("Width"), asked.width, sizes.LEAST, sizes.MOST),
        _whole(tr("Height"), asked.height, sizes.LEAST, sizes.MOST),
    )


def _hires(asked: DrawFields) -> Hires | None:
    if not asked.larger:
        return None
    return Hires(
        scale=_between(tr("Times larger"), asked.scale, 1, 4),
        strength=_between(tr("Redrawn"), asked.scale_strength, 0, 1),
        steps=_whole(tr("Steps of the second pass"), asked.scale_steps, 0, 200),
    )


def _start(asked: DrawFields) -> FromImage | None:
    if not asked.start:
        return None
    try:
        digest = files.sha256(Path(asked.start))
    except OSError as error:
        raise files.refusal(error, tr("The picture to start from cannot be read"), Path(asked.start)) from error
    strength = _between(tr("Change"), asked.start_strength, 0, 1)
    return FromImage(path=asked.start, sha256=digest, strength=strength)


def _require_once(placed: Sequence[Placed]) -> None:
    paths = [one.path for one in placed]
    for one in placed:
        if paths.count(one.path) > 1:
            raise SettingsError(
                tr("{name} is named twice.", name=one.name),
                where=tr("Adapters"),
                do=tr("Take it out of the prompt or out of the list."),
            )


def _between(label: str, value: float | None, low: float, high: float) -> float:
    if value is None or not low <= value <= high:
        raise SettingsError(
            tr("{label} must be a number from {low:g} to {high:g}.", label=label, low=low, high=high),
            where=label,
            do=tr("Change the number."),
        )
    return float(value)


def _whole(label: str, value: float | None, low: int, high: int) -> int:
    if value is None or not low <= value <= high or value != int(value):
        what = tr("{label} must be a whole number from {low:,} to {high:,}.", label=label, low=low, high=high)
        raise SettingsError(what, where=label, do=tr("Change the number."))
    return int(value)
