"""What the page asks the renderer for: the mix, the same picture without adapters, and sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lora_studio.adapters import blend_methods, detect, metadata
from lora_studio.errors import ModelError, SettingsError
from lora_studio.families import registry
from lora_studio.jobs.image_spec import Blending, ImageSpec, Placed
from lora_studio.language import english, tr
from lora_studio.sampling.axes import Axis
from lora_studio.ui.paths import tidy
from lora_studio.ui.scene.base_reading import number, read_from
from lora_studio.ui.scene.mixture import HIGH, LOW, Mix, MixRow

FIRST_LOOK = 5
"""The denoising step after which a rough picture is shown."""
_MOST_CELLS = 64


class Scene(NamedTuple):
    """What is drawn, as the page's fields have it. An empty number field is None."""

    base: str
    prompt: str
    negative: str
    seed: float | None
    steps: float | None
    guidance: float | None
    prompt_weights: bool = True
    base_read: Mapping[str, Any] = {}
    """How the base model is read: the settings ``READING``; the default where one is missing."""


class ChosenBlend(NamedTuple):
    """How the adapters are blended, as the page's fields have it."""

    method: str
    parameters: dict[str, float | None]
    """The rank and the method's parameters by key; None where a field is empty."""


class Spread(NamedTuple):
    """A sheet's weights, as the page's fields have them: ``count`` of them from ``start`` to ``stop``."""

    start: float | None
    stop: float | None
    count: float | None

    def weights(self) -> tuple[float, ...]:
        """The weights, evenly spaced.

        Raises:
            SettingsError: a number is missing or out of range.
        """
        start, stop, count = self
        if start is None or stop is None or not (LOW <= start <= HIGH and LOW <= stop <= HIGH) or start == stop:
            raise SettingsError(
                tr("A sheet needs two different weights from −2 to 2 to go between."),
                do=tr("0 to 1.5 is a usual range."),
            )
        if count is None or count != int(count) or not 2 <= count <= 12:
            raise SettingsError(
                tr("A sheet has from 2 to 12 weights along each side."), do=tr("Use 7 for a strip, 4 for a grid.")
            )
        return tuple(round(start + (stop - start) * index / (count - 1), 4) for index in range(int(count)))


def mixed(mix: Mix, scene: Scene, blending: Blending | None) -> ImageSpec:
    """The image of the mix. The sum needs no blending; every other method is drawn as it would be saved.

    Raises:
        SettingsError: a number of the scene is out of range.
        ModelError: no base model is named.
    """
    return ImageSpec(adapters=tuple(map(_placed, mix.rows)), blending=blending, first=FIRST_LOOK, **_scene(mix, scene))


def plain(mix: Mix, scene: Scene) -> ImageSpec:
    """The same image without adapters, its prompt read as with them. Raises as ``mixed`` does."""
    spec, family = ImageSpec(**_scene(mix, scene)), registry.named(mix.family)
    stated = metadata.common_clip_skip((row.clip_skip for row in mix.rows), family.clip_skips if family else ())
    return spec if spec.clip_skip else spec.model_copy(update={"clip_skip": stated})


def sheet(mix: Mix, scene: Scene, keys: Sequence[str | None], spread: Spread) -> ImageSpec:
    """A sheet: the weights of the first adapter across, and of the second, if there is one, down.

    Raises:
        SettingsError: an adapter is not chosen, or a number is out of range.
        ModelError: no base model is named.
    """
    rows = [row.key for row in mix.rows]
    indices = [rows.index(key) for key in keys if key in rows]
    if len(set(indices)) < len(keys):
        raise SettingsError(
            tr("A sheet needs an adapter, and a grid needs two different ones."), do=tr("Choose them from the mix.")
        )
    weights = spread.weights()
    if len(weights) ** len(indices) > _MOST_CELLS:
        raise SettingsError(
            tr("That would be more than {most_cells} images.", most_cells=_MOST_CELLS), do=tr("Use fewer weights.")
        )
    shown = tuple(
        one.model_copy(update={"name": f"{one.name}, own blocks"}) if one.blocks else one
        for one in map(_placed, mix.rows)
    )
    across, *down = [Axis("weight", weights, shown[index].name) for index in indices]
    return ImageSpec(adapters=shown, across=across, down=down[0] if down else None, **_scene(mix, scene))


def blending(chosen: ChosenBlend) -> Blending | None:
    """The blend for an image; None for the plain sum.

    Raises:
        SettingsError: a parameter is out of range.
    """
    given = {key: value for key, value in chosen.parameters.items() if value is not None}
    checked = blend_methods.checked(chosen.method, given)
    rank = int(checked.pop(blend_methods.RANK.key))
    if blend_methods.named(chosen.method).is_plain_sum and not rank:
        return None
    return Blending(method=chosen.method, rank=rank, parameters=checked)


def _placed(row: MixRow) -> Placed:
    """An adapter under the name that a sheet's picture and recipe have, in English."""
    return Placed(path=row.path, weight=row.weight, name=english(row.name), blocks=row.factors)


def _scene(mix: Mix, scene: Scene) -> dict[str, Any]:
    """The scene as fields of a spec."""
    base = tidy(scene.base)
    if not base:
        raise ModelError(
            tr("No base model is named. The adapters were made for {label}.", label=detect.label(mix.family)),
            where=tr("Base model"),
            do=tr("Paste the path of one: a diffusers folder or a .safetensors checkpoint."),
        )
    return {
        "base": base,
        "prompt": (scene.prompt or "").strip(),
        "negative": (scene.negative or "").strip(),
        "prompt_weights": scene.prompt_weights,
        "seed": number("preview_seed", tr("Seed"), scene.seed),
        "steps": number("preview_steps", tr("Steps"), scene.steps),
        "guidance": number("guidance", tr("Guidance"), scene.guidance),
        **read_from(scene.base_read),
    }
