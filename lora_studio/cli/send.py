"""``send``: an adapter into the folder of another program, proved for it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_studio import files, runs
from lora_studio.adapters import container
from lora_studio.adapters.kinds import EMBEDDING, KINDS
from lora_studio.adapters.metadata import Privacy
from lora_studio.cli import adapters as shared
from lora_studio.cli.options import AsJson, Outputs, of_class, required, tell
from lora_studio.config.specs import did_you_mean
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.language import tr
from lora_studio.runs import OUTPUTS, library, programs, sending
from lora_studio.runs.library import Entry, Origin
from lora_studio.runs.programs import Program


@dataclass
class SendOptions:
    """The options of ``send``."""

    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="An adapter: the name of its run or file, or its path.", show_default=False
        ),
    ] = required()
    to: Annotated[
        str,
        typer.Option("--to", metavar="PROGRAM", help=f"One of: {', '.join(programs.PROGRAMS)}.", show_default=False),
    ] = required()
    folder: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="The program's folder, or its folder of LoRAs. It is remembered, so it is needed once.",
        ),
    ] = ""
    file_name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="Its name there.", show_default="the adapter's own")
    ] = ""
    replace: Annotated[bool, typer.Option("--replace", help="Replace a different file of that name.")] = False
    as_it_is: Annotated[
        bool,
        typer.Option("--as-it-is", help="Copy the file itself, such as an export, once it is proved for the program."),
    ] = False
    privacy: Annotated[Privacy, typer.Option(help="What the file says about its training.")] = Privacy.MINIMAL
    base: Annotated[
        str,
        typer.Option(
            help="The base model, on which the change of a DoRA, an OFT and an (IA)³ depends.",
            show_default="its run's",
        ),
    ] = ""
    outputs: Outputs = OUTPUTS
    as_json: AsJson = False


@of_class(SendOptions)
def send(options: SendOptions) -> None:
    """Export an adapter for another program, prove it, and copy it into that program's folder."""
    outputs, program = options.outputs.resolve(), programs.named(options.to)
    entry = _adapter(options.name, outputs)
    folder, note = _folder(program, options.folder, outputs)
    if entry.method == EMBEDDING.name:
        folder = programs.of_embeddings(program, folder)
    name = files.safe_name(options.file_name or _own_name(entry))
    proof, sent = _sent(entry, program, folder, name, options, outputs)
    told = f"{sent.path.name} is there already, the same file." if sent.already else f"Sent: {sent.path}"
    result: dict[str, Any] = {
        "file": sent.path, "program": program.name, "already": sent.already, "refresh": program.refresh,
        "note": note, "starter": entry.family == "starter", "proof": proof,
    }  # fmt: skip
    lines = [*([f"Note: {note}"] if note else []), *_of_the_starter(entry, program), told]
    tell(result, lines if sent.already else [*lines, program.refresh], options.as_json)


def _of_the_starter(entry: Entry, program: Program) -> list[str]:
    if entry.family != "starter":
        return []
    return [f"Note: it fits the built-in starter alone, a model that {program.title} does not have."]


def _adapter(name: str, outputs: Path) -> Entry:
    """The adapter that is meant: a path, or the name of a file in a run's folder or the library.

    Raises:
        AdapterError: there is none of that name, or several.
    """
    entries = library.entries(outputs)
    path = Path(name).expanduser()
    if path.is_file():
        container.refuse_pickle_name(path)
        known = [one for one in entries if Path(one.path).samefile(path)]
        return known[0] if known else _from_elsewhere(path.resolve())
    finished = [one for one in entries if one.origin is not Origin.CHECKPOINT]
    found = [one for one in finished if Path(one.path).stem == name.removesuffix(".safetensors")]
    if len(found) == 1:
        return found[0]
    if found:
        paths = ", ".join(one.path for one in found)
        raise AdapterError(f"Several adapters are named {name}.", where="NAME", do=f"Give a path: {paths}.")
    known_names = sorted({Path(one.path).stem for one in finished})
    do = did_you_mean(name, known_names, listed=5) if known_names else "Train a style first."
    raise AdapterError(f"There is no adapter named {name!r}.", where=outputs, do=do)


def _from_elsewhere(path: Path) -> Entry:
    from lora_studio import adapters

    return Entry(**{**adapters.summary(path).__dict__, "path": str(path)}, origin=Origin.IMPORTED)


def _own_name(entry: Entry) -> str:
    """An embedding's name is its word, by which programs call it."""
    if entry.method == EMBEDDING.name and entry.words:
        return entry.words[0]
    return Path(entry.path).stem if entry.step is None else f"{entry.run}-step-{entry.step}"


def _folder(program: Program, typed: str, outputs: Path) -> programs.LoraFolder:
    """The folder that was typed, which is remembered from now on, or the one that was."""
    if not typed:
        return programs.LoraFolder(programs.folder_of(program, outputs))
    place = programs.recognized(program, typed)
    programs.remember(program, place.folder, outputs)
    return place


def _sent(
    entry: Entry, program: Program, folder: Path, name: str, options: SendOptions, outputs: Path
) -> tuple[list[dict[str, Any]], sending.Sent]:
    """Proves the adapter's file, or one that is written for the program aside, and copies it; the table of the proof
    and where the file is.
    """
    from lora_studio import adapters
    from lora_studio.adapters import merge, proof

    source, readers, weights = Path(entry.path), (program.reader,), None
    adapter = adapters.read(source)
    if adapter.kind.needs_base:
        weights = merge.weight_reader(shared.base_path(_base(entry, options.base, outputs)), adapter.family)
    if options.as_it_is:
        proved = proof.prove(source, adapter, readers, weights)
        proved.require()
        return proved.data(), sending.put(source, folder, name, replace=options.replace)
    files.make_folder(runs.cache_folder(outputs))
    with tempfile.TemporaryDirectory(
        prefix=".send-", dir=runs.cache_folder(outputs), ignore_cleanup_errors=True
    ) as aside:
        path = Path(aside, f"{name}.safetensors")
        made = proof.export(adapter, path, targets=readers, privacy=options.privacy, weights=weights)
        return made.proof.data(), sending.put(made.path, folder, name, replace=options.replace)


def _base(entry: Entry, given: str, outputs: Path) -> str:
    """The base model to convert with: the one that is ``given``, or that of the adapter's run.

    Raises:
        SettingsError: neither is known.
    """
    if given or entry.family == "starter":
        return given or "starter"
    if entry.run and (base := runs.Run(outputs / entry.run).settings().run.base):
        return base
    what = tr("This is {kind}. Sending it needs its base model.", kind=KINDS[entry.method].a_title)
    raise SettingsError(what, where="--base", do=tr("Name the base model that it was trained on."))
