"""Other programs on this machine that load adapters, and where each keeps them. No torch.

A program's folder is named once, and remembered for all runs of these outputs.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lora_studio import files, runs
from lora_studio.adapters.kinds import EMBEDDING
from lora_studio.errors import SettingsError
from lora_studio.language import in_sequence, tr


class Program(NamedTuple):
    """One program."""

    name: str
    """As the command line and the memory have it."""
    title: str
    """For people."""
    reader: str
    """Which reader of ``proof.TARGETS`` stands for it."""
    loras: str
    """Its folder of LoRAs within its own."""
    embeddings: str
    """Its folder of embeddings within its own."""
    refresh: str
    """How it learns of a new file."""
    inside: tuple[str, ...] = ()
    """Where its own folder is within what its installer unpacked."""


_RESTART = tr("It lists new files when it is started again.")
PROGRAMS = {
    one.name: one
    for one in (
        Program(
            "comfyui",
            "ComfyUI",
            "comfyui",
            "models/loras",
            "models/embeddings",
            tr("In ComfyUI press R, then choose it in a Load LoRA node."),
            ("ComfyUI",),
        ),
        Program(
            "forge",
            "Forge",
            "forge",
            "models/Lora",
            "embeddings",
            tr("In Forge open the Lora tab and press its refresh button."),
            ("webui", "stable-diffusion-webui-forge"),
        ),
        Program(
            "a1111",
            "A1111",
            "a1111",
            "models/Lora",
            "embeddings",
            tr("In A1111 open the Lora tab and press its refresh button."),
            ("webui", "stable-diffusion-webui"),
        ),
        Program(
            "swarmui",
            "SwarmUI",
            "comfyui",
            "Models/Lora",
            "Models/Embeddings",
            tr("In SwarmUI open the LoRAs tab and press its refresh button."),
            ("SwarmUI",),
        ),
        Program("fooocus", "Fooocus", "comfyui", "models/loras", "models/embeddings", _RESTART, ("Fooocus",)),
        Program("other", tr("Another folder"), "comfyui", "", "", tr("It is there for whatever reads that folder.")),
    )
}
"""By name, in the order in which they are offered."""


class LoraFolder(NamedTuple):
    """A program's folder of LoRAs, as it was found from what was typed."""

    folder: Path
    note: str = ""
    """What may be wrong with it; empty if it looks right."""


def named(name: str) -> Program:
    """The program called ``name``.

    Raises:
        SettingsError: there is none.
    """
    if name in PROGRAMS:
        return PROGRAMS[name]
    raise SettingsError(
        tr("{name!r} is no program that the studio knows.", name=name),
        do=tr("There are: {names}.", names=list(PROGRAMS)),
    )


def recognized(program: Program, typed: str) -> LoraFolder:
    """The folder of LoRAs that ``typed`` means: that folder itself, ``models`` above it, or the program's own.

    Raises:
        SettingsError: there is no such folder, it is a file, or nothing can be written into it.
    """
    where = tr("Folder of {title}", title=program.title) if program.loras else tr("Folder")
    if not typed.strip():
        raise SettingsError(
            tr("No folder is named."), where=where, do=tr("Give the folder of {title} once.", title=program.title)
        )
    given = Path(os.path.abspath(os.path.expanduser(typed.strip())))
    if not given.is_dir():
        raise _missing(given, where)
    folder = next(filter(Path.is_dir, _candidates(program, given)), given)
    _require_writable(folder)
    return LoraFolder(folder, _doubt(program, folder))


def _candidates(program: Program, given: Path) -> Iterator[Path]:
    """Where the program's LoRAs may be, if ``given`` is the program's folder, one above it or ``models`` within it."""
    if not program.loras or given.name == Path(program.loras).name:
        return
    for root in (given, *(given / part for part in program.inside)):
        yield root / program.loras
    if given.name == Path(program.loras).parent.name:
        yield given / Path(program.loras).name


def _missing(given: Path, where: str) -> SettingsError:
    if given.exists():
        return SettingsError(
            tr("{given} is a file, not a folder.", given=given), where=where, do=tr("Give the folder that it is in.")
        )
    there = next((one for one in given.parents if one.is_dir()), None)
    do = tr("Check its spelling, and that its disk or network drive is connected.")
    if there:
        missing = given.relative_to(there).parts[0]
        do = in_sequence([tr("{folder} exists, {name} in it does not.", folder=there, name=missing), do])
    return SettingsError(tr("There is no folder {given}.", given=given), where=where, do=do)


def _require_writable(folder: Path) -> None:
    """Raises SettingsError where no file can be made in ``folder``. Rights alone do not tell: a disk may be read-only,
    a network drive gone.
    """
    trial = folder / f".{secrets.token_hex(8)}{files.PARTIAL}"
    try:
        trial.touch()
        files.unlink(trial)
    except OSError as error:
        what = tr("Nothing can be written into {folder}: {reason}.", folder=folder, reason=files.reason(error))
        raise SettingsError(what, where=folder, do=files.advice(error)) from error


def _doubt(program: Program, folder: Path) -> str:
    """What speaks against ``folder`` as that program's."""
    if not program.loras:
        return ""
    if folder.name.casefold() in ("lora", "loras") or any(folder.glob("*.safetensors")):
        return ""
    return tr(
        "{folder} does not look like {program}'s folder of LoRAs, which ends with {ending}.",
        folder=folder,
        program=program.title,
        ending=program.loras,
    )


def of_embeddings(program: Program, loras: Path) -> Path:
    """The program's folder of embeddings, found from its folder of LoRAs.

    Raises:
        SettingsError: there is none where the program has it.
    """
    if not program.embeddings:
        return loras
    root = loras.parents[len(Path(program.loras).parts) - 1]
    folder = root / program.embeddings
    if folder.is_dir():
        return folder
    what = tr(
        "This is an {kind}, and {title} has no folder {folder} for it.",
        kind=EMBEDDING.title.lower(),
        title=program.title,
        folder=folder,
    )
    raise SettingsError(what, where=folder, do=tr("Make that folder, or export the file and put it there yourself."))


def remembered(outputs: Path) -> dict[str, Path]:
    """The folders of LoRAs that were named, by program; whether they are still there is not looked at."""
    try:
        known = json.loads(runs.programs_file(outputs).read_bytes())
    except (OSError, ValueError, RecursionError):  # none was named yet, or the file is damaged
        return {}
    if not isinstance(known, dict):
        return {}
    return {name: Path(known[name]) for name in PROGRAMS if isinstance(known.get(name), str)}


def remember(program: Program, folder: Path, outputs: Path) -> None:
    """Names the folder of a program. The disk may refuse it: then it is asked for again."""
    known = {name: str(path) for name, path in remembered(outputs).items()} | {program.name: str(folder)}
    with suppress(OSError):
        files.write(runs.programs_file(outputs), json.dumps(known, indent=1))


def folder_of(program: Program, outputs: Path) -> Path:
    """The remembered folder of a program.

    Raises:
        SettingsError: none was named, or it is gone.
    """
    if (folder := remembered(outputs).get(program.name)) is None:
        what = tr("The studio does not know the folder of {title} yet.", title=program.title)
        raise SettingsError(what, do=tr("Name it once: the program's own folder, or its folder of LoRAs."))
    if not folder.is_dir():
        what = tr("The folder of {title} is not there: {folder}.", title=program.title, folder=folder)
        do = tr("Connect its disk or network drive, or name the folder anew.")
        raise SettingsError(what, where=tr("Folder of {title}", title=program.title), do=do)
    return folder
