"""What a mix draws: orders for the renderer, and its pictures on the page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lora_studio.adapters import detect
from lora_studio.config.settings import SPECS
from lora_studio.errors import ModelError, SettingsError
from lora_studio.jobs.renderer import Answer, Blending, ImageSpec, Placed, Side
from lora_studio.runs import Run, library
from lora_studio.runs.library import Origin
from lora_studio.ui import images, words
from lora_studio.ui.pages.mix.rows import HIGH, LOW, Mix, Row
from lora_studio.ui.pages.train.pictures import tidy

PROMPT = "cat"
ROUGH = 6
"""Steps of the picture that comes first."""
_MOST_CELLS = 64
_NUMBERS = {"seed": "preview_seed", "steps": "preview_steps", "guidance": "guidance"}
"""The scene's numbers, and the settings that bound them."""
_RUNS = 50
"""The latest runs, whose base models are offered."""

EMPTY = (
    '<div class="blank"><div class="sketch" aria-hidden="true"><i></i><i></i><i></i></div><h2>Nothing to see yet</h2>'
    "<p>Choose an adapter from your library. What it draws appears here beside the base model's own picture, and follows each weight that you change.</p></div>"
)


class Scene(NamedTuple):
    """What is drawn, as the page's fields have it."""

    base: str
    prompt: str
    negative: str
    seed: float | None
    steps: float | None
    guidance: float | None


class Method(NamedTuple):
    """How the adapters become one, as the page's fields have it."""

    name: str
    rank: float | None
    density: float | None
    seed: float | None


def order(mix: Mix, scene: Scene, blending: Blending | None) -> ImageSpec:
    """The order for the mix's picture. The sum needs no blending; every other method is drawn as it would be saved.

    Raises:
        SettingsError: a number of the scene is out of its bounds.
        ModelError: no base model is named.
    """
    return ImageSpec(adapters=tuple(map(placed, mix.rows)), blending=blending, first=ROUGH, **_scene(mix, scene))


def plain(mix: Mix, scene: Scene) -> ImageSpec:
    """The order for the same picture without adapters. Raises as ``order`` does."""
    return ImageSpec(**_scene(mix, scene))


def placed(row: Row) -> Placed:
    """A row as an order has it."""
    return Placed(path=row.path, weight=row.weight, name=row.name, blocks=row.factors)


def _scene(mix: Mix, scene: Scene) -> dict[str, object]:
    base = tidy(scene.base)
    if not base:
        what = f"No base model is named, and the adapters were made for {detect.label(mix.family)}."
        raise ModelError(
            what, where="Base model", do="Paste the path of one: a diffusers folder or a .safetensors checkpoint."
        )
    numbers = {key: number(setting, key.capitalize(), getattr(scene, key)) for key, setting in _NUMBERS.items()}
    return {"base": base, "prompt": (scene.prompt or "").strip(), "negative": (scene.negative or "").strip(), **numbers}


def number(key: str, label: str, value: float | None) -> float | int:
    """The number of the field ``label``, checked as the setting ``key``.

    Raises:
        SettingsError: it is none, or out of its bounds.
    """
    spec = SPECS[key]
    whole = spec.kind == "integer"
    if value is None or not spec.low <= value <= spec.high or whole and value != int(value):
        raise SettingsError(
            f"{label} must be a {'whole ' if whole else ''}number from {spec.low:g} to {spec.high:,.0f}.",
            do="Mend the number to see the picture.",
        )
    return int(value) if whole else float(value)


def blending(method: Method) -> Blending | None:
    """The page's blend for an order; None for the plain sum.

    Raises:
        SettingsError: a number is out of its bounds.
    """
    rank, density, seed = method.rank or 0, method.density if method.density is not None else 0.5, method.seed or 0
    for label, value, low, high in (("Rank", rank, 0, 4096), ("Seed", seed, 0, 2**31 - 1)):
        if value != int(value) or not low <= value <= high:
            raise SettingsError(
                f"{label} must be a whole number from {low} to {high:,}.", do="Mend the number, then try again."
            )
    if not 0 < density <= 1:
        raise SettingsError(
            "The share of entries that are kept must be above 0 and at most 1.", do="Mend the number, then try again."
        )
    return (
        None
        if method.name == "exact" and not rank
        else Blending(method=method.name, rank=int(rank), density=density, seed=int(seed))
    )


def bases(outputs: Path, family: str) -> list[tuple[str, str]]:
    """The base models that fit adapters of ``family``, as far as the studio knows: the starter, and what its runs were
    trained on.
    """
    found = {"starter": "Built-in starter"} if family in ("", "starter") else {}
    for entry in [entry for entry in library.entries(outputs) if entry.origin is Origin.RUN and entry.family == family][
        :_RUNS
    ]:
        try:
            base = Run(outputs / entry.run).settings().run.base
        except (SettingsError, OSError):
            continue
        found.setdefault(base, Path(base).name)
    return [(label, base) for base, label in found.items()]


def html(mix: Mix) -> str:
    """The two pictures side by side; places for them as long as they are not drawn."""
    if not mix.rows:
        return EMPTY
    return f'<div class="previews">{_figure("Without adapters", mix.plain)}{_figure("Mix", mix.mixed, "mixed")}</div>'


def _figure(title: str, path: str, kind: str = "") -> str:
    picture = f'<img src="{words.text(images.address(Path(path)))}" alt="{title}" decoding="sync">' if path else ""
    return f'<figure class="{kind}"><div>{picture}</div><figcaption>{title}</figcaption></figure>'


def told(answer: Answer, scene: Scene) -> str:
    """What is seen, in a line."""
    how = (
        f"first look, {words.counted(answer.steps, 'step')}" if not answer.last else words.counted(answer.steps, "step")
    )
    return words.facts((f"seed {int(scene.seed or 0)}", how, *([f"{answer.seconds:.1f} s"] if answer.seconds else [])))


def cost(mix: Mix, method: Method, answer: Answer | None) -> str:
    """What blending costs, before anything is saved."""
    if not mix.rows:
        return ""
    if answer is None:
        total = sum(row.rank for row in mix.rows if row.weight)
        return words.facts((*([f"rank {total}"] if total else []), "the sum itself, nothing is lost"))
    lost = (
        f"keeps {100 * (1 - answer.residual**2):.1f} % of the change (residual {words.figure(answer.residual)})"
        if answer.residual
        else "nothing is trimmed away"
    )
    return words.facts((f"rank {answer.rank}", words.size(answer.size), lost))


def sheet_order(
    mix: Mix, scene: Scene, names: Iterable[str | None], weights: tuple[float | None, float | None, float | None]
) -> ImageSpec:
    """The order for a sheet: weights from … to …, so many, of the first named adapter across and of the second, if
    there is one, down.

    Raises:
        SettingsError: an adapter is not chosen, or a number makes no sense.
        ModelError: no base model is named.
    """
    indices = [next((index for index, row in enumerate(mix.rows) if row.key == name), None) for name in names]
    if None in indices or len(set(indices)) < len(indices):
        raise SettingsError("A sheet needs an adapter, and a grid two different ones.", do="Choose them from the mix.")
    sides = [Side(adapter=index, weights=_spread(*weights)) for index in indices]
    if len(sides[0].weights) ** len(sides) > _MOST_CELLS:
        raise SettingsError(f"That would be more than {_MOST_CELLS} pictures.", do="Take fewer weights.")
    shown = tuple(
        one.model_copy(update={"name": f"{one.name}, own blocks"}) if one.blocks else one
        for one in map(placed, mix.rows)
    )
    return ImageSpec(adapters=shown, across=sides[0], down=sides[1] if len(sides) > 1 else None, **_scene(mix, scene))


def _spread(start: float | None, stop: float | None, count: float | None) -> tuple[float, ...]:
    if start is None or stop is None or not (LOW <= start <= HIGH and LOW <= stop <= HIGH) or start == stop:
        raise SettingsError(
            "A sheet's weights go from one number to another, both from −2 to 2.", do="0 to 1.5 is usual."
        )
    if count is None or count != int(count) or not 2 <= count <= 12:
        raise SettingsError("A sheet has from 2 to 12 weights along a side.", do="Take 7 for a strip, 4 for a grid.")
    return tuple(round(start + (stop - start) * index / (count - 1), 4) for index in range(int(count)))


def sheet(answer: Answer, title: str) -> str:
    """A drawn sheet, with the link that keeps it."""
    path = Path(answer.path)
    link = (
        f'<a class="download" download="{words.text(title)}.png" href="{words.text(images.address(path))}">Download</a>'
    )
    seconds = words.facts(("its recipe is in its header", f"{answer.seconds:.1f} s")) if answer.seconds else ""
    return (
        f'<div class="outcome"><a class="sheet" href="{words.text(images.address(path))}" target="_blank" rel="noopener"><img src="{words.text(images.address(path))}" alt="{words.text(title)}"></a>'
        f'<div class="file">{seconds}{link}</div></div>'
    )
