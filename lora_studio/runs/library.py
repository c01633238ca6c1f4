"""The catalogue of adapters, from their headers alone. torch is needed only to check a file that is imported.

    outputs/<run>/*.safetensors                             what a run trained, and what was made of it
    outputs/<run>/checkpoints/step-N/adapter.safetensors    the run at an earlier step
    outputs/<run>/evaluation/step-N/adapter.safetensors     the same, if it was judged and its checkpoint was deleted
    outputs/library/                                        what was imported

An index caches what each header says, by path, size and time of change. It may be lost or damaged at any time, and is
then rebuilt.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from lora_studio import adapters, files, runs
from lora_studio.adapters.container import refuse_pickle_name
from lora_studio.adapters.detect import heading, label
from lora_studio.adapters.listing import Summary
from lora_studio.errors import AdapterError
from lora_studio.language import english, tr
from lora_studio.runs import Run, Unreadable, checkpoints, undo
from lora_studio.runs import trash as trash_can
from lora_studio.runs.model_card import card_file, pictures_folder

_SUFFIX = ".safetensors"
_MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_importing = threading.Lock()
"""Two imports at once must not choose the same free name."""


class Origin(StrEnum):
    """Where an adapter comes from."""

    RUN = "run"
    CHECKPOINT = "checkpoint"
    """A saved or judged state of a run."""
    IMPORTED = "imported"


class Entry(Summary):
    """One adapter's card."""

    origin: Origin
    run: str = ""
    """Name of its run."""
    step: int | None = None
    """Of a saved or judged state."""
    state: int | None = None
    """The step of the saved or judged state of its run that has the same tensors."""


class Catalogue(NamedTuple):
    """All adapters, the latest first, and what is damaged or cannot be read."""

    entries: list[Entry]
    unreadable: list[Unreadable]


class _Place(NamedTuple):
    path: Path
    origin: Origin
    run: str = ""
    step: int | None = None


class _Known(NamedTuple):
    """What the index knows of one file. Either ``summary`` or ``what`` is set."""

    size: int
    modified: int
    summary: Summary | None
    what: str
    do: str


_INDEX = TypeAdapter(dict[str, _Known])


def entries(outputs: Path = runs.OUTPUTS) -> list[Entry]:
    """Every adapter of ``outputs``, the latest first."""
    return catalogue(outputs).entries


def catalogue(outputs: Path = runs.OUTPUTS) -> Catalogue:
    """Every adapter of ``outputs`` and every file that should be one. Only the headers of changed files are read."""
    memory = runs.cache_folder(outputs) / "library-3.json"
    before, now = _recall(memory), {}
    found: list[Entry] = []
    bad: list[Unreadable] = []
    for place in _places(outputs, bad):
        if not files.is_text(place.path.name):
            bad.append(Unreadable.misnamed(place.path))
            continue
        key = place.path.relative_to(outputs).as_posix()
        try:
            stat = os.stat(place.path)
            known = before.get(key)
            now[key] = known if known and known[:2] == (stat.st_size, stat.st_mtime_ns) else _look(place.path, stat)
        except (FileNotFoundError, NotADirectoryError):
            continue  # no adapter there, or deleted since the folder was listed
        except OSError as error:
            bad.append(Unreadable.of(place.path, error))
            continue
        _, _, summary, what, do = now[key]
        if summary is None:
            bad.append(Unreadable(str(place.path), what, do))
        else:
            found.append(
                Entry(
                    **{**summary.__dict__, "path": str(place.path)}, origin=place.origin, run=place.run, step=place.step
                )
            )
    if now != before:
        _remember(memory, now)
    return Catalogue(sorted(_with_states(found), key=lambda entry: entry.modified, reverse=True), bad)


def _with_states(entries: list[Entry]) -> Iterator[Entry]:
    """The entries, each with the state of its run that it is."""
    steps = {(one.run, one.tensors_sha256): one.step for one in entries if one.step is not None}
    for entry in entries:
        state = steps.get((entry.run, entry.tensors_sha256)) if entry.tensors_sha256 else None
        state = state if entry.step is None else entry.step
        yield entry if state is None else entry.model_copy(update={"state": state})


def _places(outputs: Path, unreadable: list[Unreadable]) -> Iterator[_Place]:
    """Every file that should be an adapter. Folders that cannot be read are added to ``unreadable``."""
    listing = runs.listing(outputs)
    unreadable += listing.unreadable
    for run in listing.runs:
        for path in _adapters_in(run.folder, unreadable):
            yield _Place(path, Origin.RUN, run.name)
        yield from _states_of(run, unreadable)
    for path in _adapters_in(runs.library_folder(outputs), unreadable):
        yield _Place(path, Origin.IMPORTED)


def _states_of(run: Run, unreadable: list[Unreadable]) -> Iterator[_Place]:
    """The saved states of a run, and those that were judged and are no longer saved."""
    saved = set()
    for entry in runs.entries(run.checkpoints, unreadable):
        if (step := checkpoints.step_of(entry.name)) is not None:
            if why := checkpoints.damage(Path(entry.path), quick=True):
                what = tr(
                    "The saved state of step {step:,} of {name} is damaged: {why}.", step=step, name=run.name, why=why
                )
                unreadable.append(Unreadable(entry.path, what, tr("The run resumes from another one.")))
            saved.add(step)
            yield _Place(Path(entry.path, "adapter.safetensors"), Origin.CHECKPOINT, run.name, step)
        elif not entry.name.endswith(files.PARTIAL):
            what = tr(
                "{folder} in {name} is not named like a saved state.", folder=files.printable(entry.name), name=run.name
            )
            unreadable.append(Unreadable(files.printable(entry.path), what, tr("Rename it to step- and its step.")))
    for entry in runs.entries(run.evaluation, unreadable):
        if (step := checkpoints.step_of(entry.name)) is not None and step not in saved:
            yield _Place(run.judged_adapter(step), Origin.CHECKPOINT, run.name, step)


def _adapters_in(folder: Path, unreadable: list[Unreadable]) -> list[Path]:
    return [
        Path(one.path)
        for one in runs.entries(folder, unreadable)
        if one.name.lower().endswith(_SUFFIX) and not one.name.startswith(".") and _may_be_file(one)
    ]


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return True  # reading it says what is wrong


def _look(path: Path, stat: os.stat_result) -> _Known:
    """What the header says, or why it says nothing.

    Raises:
        OSError: the file cannot be read; that is not remembered, since it may be put right without a change to it.
    """
    with open(path, "rb") as file:
        file.read(1)
    try:
        return _Known(stat.st_size, stat.st_mtime_ns, adapters.summary(path), "", "")
    except AdapterError as error:
        return _Known(stat.st_size, stat.st_mtime_ns, None, error.what, error.do)
    except (
        _MALFORMED
    ) as error:  # the quick look hardly checks, and one hostile header must not take the catalogue along
        return _Known(
            stat.st_size,
            stat.st_mtime_ns,
            None,
            tr("{name} has a malformed header ({error}).", name=path.name, error=type(error).__name__),
            tr("Do not trust this file."),
        )


def _recall(memory: Path) -> dict[str, _Known]:
    try:
        return _INDEX.validate_json(memory.read_bytes())
    except (OSError, ValidationError):  # none yet, or damaged: it is rebuilt from the files
        return {}


def _remember(memory: Path, known: dict[str, _Known]) -> None:
    try:
        files.write(memory, _INDEX.dump_json(known))
    except OSError:
        return  # on a full or read-only disk the next listing only takes longer


def search(entries: Iterable[Entry], words: str) -> list[Entry]:
    """The entries that contain all of ``words`` in their title, file, run, trigger, family, method, dialect or rank
    (``rank16``), ignoring case.
    """
    wanted = words.casefold().split()
    return [entry for entry in entries if all(word in _text(entry) for word in wanted)]


def _text(entry: Entry) -> str:
    step = "" if entry.step is None else f"step-{entry.step}"
    parts = (
        entry.title,
        Path(entry.path).name,
        entry.run,
        step,
        entry.trigger,
        *entry.words,
        entry.family,
        english(label(entry.family)),
        str(heading(entry.family)),  # as its card says it
        entry.method,
        entry.dialect,
        f"rank{entry.rank}",
        entry.origin,
    )
    return "\n".join(parts).casefold()


def add(file: Path, outputs: Path = runs.OUTPUTS) -> Path:
    """Copies an adapter into the library after checking every tensor; a folder that peft wrote becomes one file.

    A file that the library already has is not copied again. A different one of the same name gets a number.

    Returns:
        The library's own file.

    Raises:
        AdapterError: it is no adapter, unsafe, damaged, or contains NaN.
        MachineError: the library cannot be written.
    """
    refuse_pickle_name(file)
    adapter = adapters.read(file)
    folder = runs.library_folder(outputs)
    wanted = folder / f"{files.safe_name(file.name if file.is_dir() else file.stem)}{_SUFFIX}"
    try:
        with _importing:
            files.make_folder(folder)
            if file.is_dir():
                return adapters.write(adapter.with_one_alpha(), files.free(wanted), raw_dora=True)
            return _same(file, folder) or _copied(file, files.free(wanted))
    except OSError as error:
        raise files.refusal(error, tr("The adapter cannot be added to the library"), folder) from error


def _same(file: Path, folder: Path) -> Path | None:
    """The library's file with the same bytes."""
    size, digest = file.stat().st_size, files.sha256(file)
    for path in _adapters_in(folder, []):
        with suppress(OSError):  # what cannot be read is no reason to refuse another file
            if path.stat().st_size == size and files.sha256(path) == digest:
                return path
    return None


def _copied(file: Path, path: Path) -> Path:
    files.copy(file, path)
    return path


def trash(path: Path, outputs: Path | None = None) -> None:
    """Moves an adapter's file and its model card to the system's trash, from which they can be restored.

    Args:
        outputs: the folder that it is in, whose ``undo.restore`` then brings it back; None leaves that to the system.

    Raises:
        AdapterError: there is no such adapter, or a run needs it to resume.
        MachineError: the system has no trash for this disk; the file is still there.
    """
    path = path.absolute()
    if path.suffix.lower() != _SUFFIX or not path.is_file():
        raise AdapterError(
            tr("There is no adapter {name}.", name=path.name),
            where=path,
            do=tr("It may have been moved or deleted. Reload the library."),
        )
    state = path.parent
    if state.parent == runs.Run(state.parent.parent).checkpoints:
        raise AdapterError(
            tr("{name} is a saved state that its run resumes from.", name=state.name),
            where=path,
            do=tr("Delete the folder of the whole run if you no longer need it."),
        )
    belonging = [one for one in (path, card_file(path), pictures_folder(path)) if one.exists()]
    if outputs is not None:
        undo.delete(belonging, outputs.absolute())
        return
    for one in belonging:
        trash_can.put(one)
