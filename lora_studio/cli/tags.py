"""``tags``: how frequent tags are in a folder's captions, and edits of all captions at once. Its options for edits are
made from ``curation.edits``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lora_studio.cli import datasets
from lora_studio.cli.datasets import Allowed
from lora_studio.cli.options import AsJson, Outputs, tell
from lora_studio.curation import edits
from lora_studio.curation import tags as counted
from lora_studio.curation.edits import EDITS, CaptionChange, Edit, EditField
from lora_studio.curation.workbench import Workbench
from lora_studio.errors import SettingsError
from lora_studio.runs import OUTPUTS

_SHOWN = 40
"""Tags that are listed without ``--all``."""


def tags(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of pictures.", show_default=False)],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show each caption that would change, before and after; write nothing.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Undo the last change to the folder.")] = False,
    redo: Annotated[bool, typer.Option("--redo", help="Do the last change again that was undone.")] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Put back all captions as they were before the studio changed them.")
    ] = False,
    trigger: Annotated[str, typer.Option(help="The trigger word: it may stand in all captions.")] = "",
    nested: Annotated[bool, typer.Option("--nested", help="Read all folders below the folder.")] = False,
    everything: Annotated[bool, typer.Option("--all", help=f"List all tags, not the first {_SHOWN} alone.")] = False,
    yes: Allowed = False,
    outputs: Outputs = OUTPUTS,
    as_json: AsJson = False,
    **values: Any,
) -> None:
    """List the tags of all captions, or edit all captions at once. Every change can be undone."""
    chosen = _edits(values)
    if sum((undo, redo, restore, bool(chosen))) > 1:
        raise SettingsError("--undo, --redo, --restore and edits are separate steps.", do="Give one of them at a time.")
    bench = datasets.workbench(folder, outputs)
    if undo or redo:
        datasets.agree(bench, yes)
        datasets.tell_done(bench.undo() if undo else bench.redo(), as_json)
        return
    captions, aside = _captions(bench.folder, outputs, nested)
    if restore:
        datasets.agree(bench, yes)
        datasets.tell_done(bench.restore_captions(captions), as_json)
    elif chosen:
        _edit(bench, captions, chosen, dry_run, yes, as_json)
    else:
        trained = {name: text for name, text in captions.items() if name not in aside}
        _list(trained, trigger, everything, as_json)


def _captions(root: Path, outputs: Path, nested: bool) -> tuple[dict[str, str], set[str]]:
    """The captions of all pictures, and which of those do not show the style: pictures left out, and class pictures."""
    dataset = datasets.scan(root, outputs, nested)
    found = {dataset.name(picture): picture.caption for picture in (*dataset.pictures, *dataset.left_out)}
    class_pictures = [picture for picture in dataset.pictures if picture.regularisation]
    return dict(sorted(found.items())), {dataset.name(picture) for picture in (*dataset.left_out, *class_pictures)}


def _list(captions: Mapping[str, str], trigger: str, everything: bool, as_json: bool) -> None:
    found, remarks = counted.frequencies(captions), counted.remarks(captions, trigger)
    written = sum(map(bool, captions.values()))
    result = {
        "pictures": len(captions),
        "captions": written,
        "tags": [one._asdict() for one in found],
        "remarks": [
            {"kind": one.kind, "what": one.what, "do": one.do, "tags": [tag.tag for tag in one.tags]} for one in remarks
        ],
    }
    shown = found if everything else found[:_SHOWN]
    width = len(f"{found[0].count:,}") if found else 0
    lines = [
        f"{len(found):,} tags in {written:,} captions of {len(captions):,} pictures to train on.",
        *(f"{one.count:>{width},}  {one.tag}" for one in shown),
        *([f"{len(found) - len(shown):,} more: --all lists them."] if len(shown) < len(found) else []),
        *(f"{one.what} {one.do}" for one in remarks),
    ]
    tell(result, lines, as_json)


def _edit(
    bench: Workbench, captions: Mapping[str, str], chosen: Sequence[Edit], dry_run: bool, yes: bool, as_json: bool
) -> None:
    changes = edits.preview(captions, chosen, _tokens)
    result: dict[str, Any] = {"changes": [one._asdict() for one in changes], "written": not dry_run}
    lines = [line for one in changes for line in _shown(one)] if dry_run else []
    if dry_run or not changes:
        lines.append(f"{_count(len(changes))} would change." if dry_run else "No caption has to be changed.")
        tell(result, lines, as_json)
        return
    datasets.agree(bench, yes)
    before = {name: before for name, before, _ in changes}
    done = bench.edit_captions({name: after for name, _, after in changes}, edits.describe(chosen), before)
    told = [f"{_count(len(done.names))} changed: {done.sentence} --undo takes it back."]
    tell(result | {"notes": list(done.notes)}, [*told, *done.notes], as_json)


def _shown(change: CaptionChange) -> list[str]:
    before, after = (" / ".join(text.split("\n")) or "(no caption)" for text in (change.before, change.after))
    return [f"{change.name}:", f"  {before}", f"→ {after}"]


def _count(number: int) -> str:
    return f"{number:,} caption{'s' * (number != 1)}"


def _tokens(text: str) -> int:
    """Tokens as CLIP counts them, whose tokenizer every base model of Stable Diffusion has."""
    from lora_studio.texts.tokenizer import Tokenizer

    return Tokenizer.shipped().counts([text])[0]


# Options of the edits: each kind has one, which takes its texts; flags and choices are shared by the kinds that have
# them.


def _flag(kind: str) -> str:
    return f"--{kind.replace(' ', '-')}"


def _texts(kind: str) -> list[EditField]:
    """The fields that an edit's own option takes."""
    required = [field for field in edits.fields(kind) if field.type in ("text", "number", "tags")]
    return [field for field in required if field.required or field.type != "tags"]


def _shared() -> dict[str, EditField]:
    """The fields with an option of their own, by name."""
    return {field.name: field for kind in EDITS for field in edits.fields(kind) if field not in _texts(kind)}


def _edits(values: Mapping[str, Any]) -> list[Edit]:
    """The edits that options ask for, in the order of ``EDITS``.

    Raises:
        SettingsError: an option belongs to no edit that was asked for, or a value is wrong.
    """
    shared = {name: value for name, value in values.items() if name in _shared() and value not in (None, [])}
    found, used = [], set[str]()
    for kind in EDITS:
        value = values.get(kind.replace(" ", "_"))
        if value is None or value is False or value == []:
            continue
        own = _texts(kind)
        parts = value if len(own) > 1 else [", ".join(value) if isinstance(value, list) else value]
        given = dict(zip([field.name for field in own], parts, strict=False))
        more = {field.name: shared[field.name] for field in edits.fields(kind) if field.name in shared}
        used |= more.keys()
        found.append(edits.make(kind, **given, **{name: _value(one) for name, one in more.items()}))
    if unused := sorted(shared.keys() - used):
        kinds = [_flag(kind) for kind in EDITS if unused[0] in {field.name for field in edits.fields(kind)}]
        raise SettingsError(
            f"{_option_name(unused[0])} belongs to {' or '.join(kinds)}, which {'is' if len(kinds) == 1 else 'are'} "
            "not given.",
            do="python3 app.py tags --help lists all options.",
        )
    return found


def _value(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value


def _option_name(name: str) -> str:
    return "--regex" if name == "regular_expression" else f"--{name.replace('_', '-')}"


def _option(kind: str) -> tuple[Any, Any]:
    """Type and default of the option of an edit."""
    own, text = _texts(kind), EDITS[kind].sentence
    if not own:
        return _annotated(bool, typer.Option(_flag(kind), help=text)), False
    names = " ".join(field.title.upper().replace(" ", "-") for field in own)
    if own[0].type == "tags":
        option = typer.Option(_flag(kind), metavar="TAG", help=f"{text} May be repeated.", show_default=False)
        return _annotated(list[str], option), []
    sort = tuple[str, str] | None if len(own) == 2 else int | None if own[0].type == "number" else str | None
    return _annotated(sort, typer.Option(_flag(kind), metavar=names, help=text, show_default=False)), None


def _shared_option(field: EditField) -> tuple[Any, Any]:
    name = _option_name(field.name)
    kinds = ", ".join(_flag(kind) for kind in EDITS if field.name in {one.name for one in edits.fields(kind)})
    text = f"{(field.help or field.title).rstrip('.')}. For {kinds}."
    if field.type == "flag":
        names = f"{name}/--match-case" if field.name == "ignore_case" else name
        return _annotated(bool | None, typer.Option(names, help=text, show_default=False)), None
    if field.type == "choice":
        choices: Any = getitem(Literal, field.choices)
        sort = choices | None
        return _annotated(sort, typer.Option(name, help=text, show_default=str(field.default))), None
    return _annotated(list[str], typer.Option(name, metavar="TAG", help=f"{text} May be repeated.")), []


def _annotated(kind: Any, option: Any) -> Any:
    return getitem(Annotated, (kind, option))


def _with_edits(command: Any) -> None:
    """Gives the command an option for every edit and for their shared fields: typer reads its signature."""
    own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "values"]
    made = {kind.replace(" ", "_"): _option(kind) for kind in EDITS}
    made |= {name: _shared_option(field) for name, field in _shared().items()}
    keyword = inspect.Parameter.KEYWORD_ONLY
    more = [
        inspect.Parameter(name, keyword, default=default, annotation=kind) for name, (kind, default) in made.items()
    ]
    first, *others = own
    parameters = [first.replace(kind=keyword), *more, *(one.replace(kind=keyword) for one in others)]
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {one.name: one.annotation for one in parameters}


_with_edits(tags)
