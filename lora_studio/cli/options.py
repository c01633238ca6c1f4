"""Options that commands share, commands whose options are the fields of a class, and how results are printed."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_type_hints

import typer

from lora_studio import files
from lora_studio.config.specs import SPECS
from lora_studio.errors import SettingsError
from lora_studio.language.handover import handed

T = TypeVar("T")

Outputs = Annotated[Path, typer.Option("--outputs", help="Folder of the runs.", show_default="outputs/")]
Queue = Annotated[
    bool,
    typer.Option(
        "--queue", help="Put the run into the queue and return. It starts when the runs before it have ended."
    ),
]
Further = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        metavar="FOLDER",
        help="A CLIP, a DINO or an aesthetic predictor in a local folder, as a further measure; may be repeated.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def of_class(kind: type[T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Turns a function of one ``kind``, a dataclass of annotated options, into a command that typer can read, with its
    own options first and inherited ones after them.
    """

    def wrap(function: Callable[[T], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(**values: Any) -> None:
            function(kind(**values))

        command: Any = run  # typer reads a command's options from attributes that functions do not declare

        hints = get_type_hints(kind, include_extras=True)
        keyword = inspect.Parameter.KEYWORD_ONLY
        order = [name for ancestor in kind.__mro__ for name in vars(ancestor).get("__annotations__", {})]
        fields = sorted(dataclasses.fields(cast(Any, kind)), key=lambda field: order.index(field.name))
        options = [
            inspect.Parameter(field.name, keyword, default=_default(field), annotation=hints[field.name])
            for field in fields
        ]
        command.__signature__, command.__annotations__ = inspect.Signature(options), hints
        return command

    return wrap


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def required() -> Any:
    """The default of a field whose option or argument must be given."""
    return ...


def like(key: str, help: str = "", **more: Any) -> Any:
    """An option with the help and bounds of the setting ``key``; ``more`` goes to typer."""
    spec = SPECS[key]
    limits: dict[str, Any] = {"min": spec.low, "max": spec.high} if spec.kind in ("integer", "number") else {}
    return typer.Option(help=help or spec.help, **limits | more)


Vae = Annotated[str, like("vae", metavar="FILE", show_default="the base model's own")]
TextEncoders = Annotated[
    list[str],
    like("text_encoders", f"{SPECS['text_encoders'].help} May be repeated.", metavar="FILE", show_default="its own"),
]


def judging_prompts(given: Sequence[str] | None) -> tuple[str, ...]:
    """What ``--prompt`` named, before anything is drawn.

    Raises:
        SettingsError: it is one prompt alone, or one is no text.
    """
    prompts = tuple(given or ())
    if len(set(map(str.strip, prompts))) == 1:
        what = "Subjects cannot be measured with one prompt: what each shows is seen against the others."
        raise SettingsError(what, where="--prompt", do="Name two different ones or more, or none.")
    for prompt in prompts:
        if not files.is_text(prompt):
            what = f"{files.printable(prompt)} is not valid Unicode."
            raise SettingsError(what, where="--prompt", do="Write it in UTF-8.")
    return prompts


def tell(result: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """Prints the result as lines for a person, or as JSON for a program, where paths are text and NaN and infinity are
    null.
    """
    print(json.dumps(handed(_plain(result))) if as_json else "\n".join(lines), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def duration(seconds: float) -> str:
    """``58 s``, ``3 min 05 s``, ``2 h 10 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
