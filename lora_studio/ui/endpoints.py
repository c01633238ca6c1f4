"""What scripts can call by name while the studio runs, with ``gradio_client``; see docs/scripting.md."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import gradio as gr
from pydantic import TypeAdapter, ValidationError, validate_call

from lora_studio.adapters import blend_methods
from lora_studio.config.specs import did_you_mean
from lora_studio.errors import RunError, SettingsError, StudioError
from lora_studio.language import ENGLISH, using
from lora_studio.runs import gallery, library
from lora_studio.runs.library import Entry
from lora_studio.ui import run_endpoints
from lora_studio.ui.pages.draw import named, order, sheets, sizes
from lora_studio.ui.pages.draw.easel import Easel
from lora_studio.ui.pages.draw.named import NamedAdapter
from lora_studio.ui.pages.draw.order import DrawFields, DrawOrder
from lora_studio.ui.pages.draw.sheets import AxisFields
from lora_studio.ui.pages.library import cards
from lora_studio.ui.pages.mix import saving
from lora_studio.ui.pages.mix.image_specs import ChosenBlend
from lora_studio.ui.pages.train.live import RunWatcher
from lora_studio.ui.scene.base_reading import READING
from lora_studio.ui.scene.mixture import Mix
from lora_studio.ui.translated import translated

P = ParamSpec("P")
R = TypeVar("R")
_GIVEN = {"prompt", "seed", "count", "base", "base_read", "start", "start_strength"}
SETTINGS = (*(name for name in DrawFields._fields if name not in _GIVEN), *READING)
"""What ``settings`` of ``/draw`` may name."""
_FIELDS = TypeAdapter(DrawFields)


def expose(outputs: Path, easel: Easel) -> None:
    """Makes the endpoints, within the page's blocks."""

    def draw(
        prompt: str,
        adapters: list[Any] = [],  # noqa: B006 - gradio reads defaults from the signature, and nobody changes it
        seed: int = 1,
        count: int = 1,
        base: str = "starter",
        settings: dict[str, Any] = {},  # noqa: B006
    ) -> list[str]:
        """Draws pictures and keeps them; returns the paths of the files. ``adapters`` are [name, weight] of the
        library; ``settings`` are those of the page, such as {"steps": 20, "guidance": 5, "width": 640, "height": 448}.
        """
        asked = fields({"prompt": prompt, "seed": seed, "count": count, "base": base}, settings)
        return drawn(easel, ordered(asked, adapters, outputs))

    def mix(
        adapters: list[Any],
        name: str = "",
        method: str = "exact",
        settings: dict[str, Any] = {},  # noqa: B006
    ) -> str:
        """Blends adapters, [name, weight] of the library, into one file of the library; returns its path.
        ``settings`` are the method's parameters and ``rank``.
        """
        return mixed(pairs(adapters), name, ChosenBlend(method, dict(settings)), outputs)

    def sheet(
        prompt: str,
        columns: list[Any],
        rows: list[Any] = [],  # noqa: B006
        adapters: list[Any] = [],  # noqa: B006
        seed: int = 1,
        base: str = "starter",
        settings: dict[str, Any] = {},  # noqa: B006
    ) -> str:
        """Draws a sheet whose ``columns`` and ``rows`` vary two things, such as ["seed", [1, 2]] and ["weight", [0, 1],
        "ana"]; keeps it, and returns its path. The rest as of ``/draw``.
        """
        asked = fields({"prompt": prompt, "seed": seed, "base": base}, settings)
        return drawn(easel, crossed(asked, [columns, rows], adapters, outputs))[0]

    def export(
        adapter: str,
        format: str = "kohya",
        name: str = "",
        settings: dict[str, Any] = {},  # noqa: B006
    ) -> dict[str, Any]:
        """Writes an adapter of the library for other programs, proves that they read it, and returns the path of the
        ``file`` with the ``proof``. ``settings`` are privacy, programs, dtype, form, base and rank.
        """
        return run_endpoints.export(adapter, format, name, settings, outputs)

    gr.api(_told(draw), api_name="draw", concurrency_limit=None)
    gr.api(_told(mix), api_name="mix", concurrency_limit=1)
    gr.api(_told(sheet), api_name="sheet", concurrency_limit=None)
    gr.api(_told(export), api_name="export", concurrency_limit=1)
    _expose_runs(outputs)


def _expose_runs(outputs: Path) -> None:
    watcher = RunWatcher(outputs)

    def train(settings: dict[str, Any], preset: str = "", start_from: str = "") -> dict[str, Any]:
        """Starts a run, or puts it into the queue; returns its name. ``settings`` are those of docs/settings.md by
        their keys; ``start_from`` is a state to branch from, such as "ink@500".
        """
        return run_endpoints.train(settings, preset, start_from, outputs)

    def status(run: str = "") -> dict[str, Any]:
        """What is known of a run; without a name of the one at work, else of the newest."""
        return run_endpoints.status(run, watcher)

    def stop(run: str) -> dict[str, Any]:
        """Stops a run or a job, which keeps what it has done, or takes it out of the queue."""
        return run_endpoints.stop(run, outputs)

    gr.api(_told(train), api_name="train", concurrency_limit=1)
    gr.api(_told(status), api_name="status", concurrency_limit=None)
    gr.api(_told(stop), api_name="stop", concurrency_limit=None)


def _told(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, which takes arguments of its types alone, and whose errors reach the script in the studio's
    words. Scripts are answered in English.
    """
    typed = validate_call(function)

    @wraps(function)
    def told(*arguments: P.args, **named: P.kwargs) -> R:
        with using(ENGLISH):
            try:
                return translated(typed(*arguments, **named))
            except ValidationError as error:
                _refuse(_of_another_type(error))
            except StudioError as error:
                _refuse(error)

    return told


def _refuse(error: StudioError) -> NoReturn:
    raise gr.Error(str(error), print_exception=False) from error


def fields(given: Mapping[str, Any], settings: Mapping[str, Any]) -> DrawFields:
    """What a script asks for, each of its type.

    Raises:
        SettingsError: a setting is unknown, or of another type.
    """
    for name in settings:
        if name not in SETTINGS:
            raise SettingsError(f"There is no setting {name!r}.", where="settings", do=did_you_mean(name, SETTINGS))
    own = {name: value for name, value in settings.items() if name not in READING}
    shape = {"shape": sizes.OWN} if "width" in own or "height" in own else {}
    read = {name: value for name, value in settings.items() if name in READING}
    try:
        return _FIELDS.validate_python({**shape, **own, **given, "base_read": read})
    except ValidationError as error:
        raise _of_another_type(error) from None


def _of_another_type(error: ValidationError) -> SettingsError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    return SettingsError(
        f"{name} cannot be {first['input']!r}.",
        where=name,
        do=f"{first['msg'].removesuffix('.')}.",
    )


def ordered(asked: DrawFields, adapters: Sequence[Any], outputs: Path) -> DrawOrder:
    """The order of pictures.

    Raises:
        SettingsError: a setting is out of range, or ``adapters`` are no pairs.
        AdapterError: the library lacks an adapter.
        ModelError: the base model cannot be found or read.
    """
    entries = library.entries(outputs)
    plain, told = named.in_prompt(asked.prompt.strip(), entries)
    used = [one.placed for one in (*named.named(pairs(adapters), entries), *told)]
    used += [one.placed for one in order.embeddings(asked, used, entries)]
    return DrawOrder(order.spec(asked, plain, used), asked.prompt)


def crossed(asked: DrawFields, sides: Sequence[Any], adapters: Sequence[Any], outputs: Path) -> DrawOrder:
    """The order of a sheet. Raises as ``ordered`` does."""
    entries = {cards.key(entry, outputs): entry for entry in library.entries(outputs)}
    mix = Mix()
    for one in named.named(pairs(adapters), list(entries.values())):
        mix.add(one.entry, outputs, one.weight)
    return sheets.sheet(asked, mix, [_side(one, entries) for one in sides if one], entries)


def _side(told: Any, entries: Mapping[str, Entry]) -> AxisFields:
    """An axis as a script gives it: ``[kind, values]``, of a weight also ``[kind, values, adapter]``."""
    keys = {entry.path: key for key, entry in entries.items()}

    def of(name: str) -> str:
        (one,) = named.named([(name, 1.0)], list(entries.values()))
        return keys[one.entry.path]

    match told:
        case [str() as kind, list() as values, *subject] if kind in sheets.TITLES and len(subject) < 2:
            texts = [str(value) for value in values]
            typed = ("\n" if kind == "prompt" else ",").join(texts)
            chosen = [of(text) for text in texts] if kind in sheets.CHOSEN else []
            return AxisFields(kind, typed, chosen, of(str(subject[0])) if subject else "")
    kinds = ", ".join(sheets.TITLES)
    raise SettingsError(
        f"{told!r} is no axis.", where="columns, rows", do=f'Write ["seed", [1, 2]]; there are {kinds}.'
    )


def pairs(adapters: Sequence[Any]) -> list[tuple[str, float]]:
    """Names and weights as a script gives them: ``[name, weight]``, or the name alone for weight 1.

    >>> pairs([["ink", 0.8], "wash"])
    [('ink', 0.8), ('wash', 1.0)]

    Raises:
        SettingsError: something else is given.
    """
    found = []
    for one in adapters:
        match one:
            case str():
                found.append((one, 1.0))
            case [str() as name, int() | float() as weight] if abs(weight) < 2**63:  # no float holds every int
                found.append((name, float(weight)))
            case _:
                raise SettingsError(
                    f"{one!r} is no adapter.",
                    where="adapters",
                    do='Give names and weights: [["ana", 0.8]].',
                )
    return found


def drawn(easel: Easel, asked: DrawOrder) -> list[str]:
    """Draws, and returns the paths of the pictures.

    Raises:
        StudioError: why it cannot be drawn.
    """
    lane = f"script {secrets.token_hex(8)}"
    easel.begin(lane, asked)
    *_, last = (progress for progress in easel.follow(lane) if progress)
    if last.error:
        raise last.error
    if last.cancelled:
        raise RunError("The pictures were not drawn: the drawing was ended.", do="Ask again.")
    return [str(gallery.found(name, easel.outputs)) for name in last.kept]


def mixed(adapters: Sequence[tuple[str, float]], name: str, chosen: ChosenBlend, outputs: Path) -> str:
    """Blends into one file of the library, and returns its path.

    Raises:
        StudioError: the adapters cannot be blended so.
    """
    blend_methods.named(chosen.method)
    mix = Mix()
    found: list[NamedAdapter] = named.named(adapters, library.entries(outputs))
    for one in found:
        mix.add(one.entry, outputs, one.weight)
    return saving.blended(saving.arguments(mix, chosen), name.strip() or saving.default_name(mix), outputs)["file"]
