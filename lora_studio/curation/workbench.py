"""The one writer of a dataset: every change that an artist makes to it goes through here, as a step that can be undone.

Pictures are never changed. Captions are written where they came from, masks beside their pictures, crops, left-out
pictures and options of folders into ``.lora_studio/``. The first version of each caption file and mask that is changed
is kept in ``.lora_studio/originals/``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lora_studio import files, locks
from lora_studio.curation import caption_files, originals
from lora_studio.curation.caption_files import CaptionFolder
from lora_studio.curation.history import Contents, EditStep, History, StepHead
from lora_studio.dataset import caption_tables, captions, choices, listing, masks, pictures, preparation
from lora_studio.dataset.folder_tables import is_table
from lora_studio.dataset.preparation import FOLDER, Crop, FolderOptions, Preparation
from lora_studio.errors import DatasetError
from lora_studio.language import Message, few, ntr, tr

NAMED = 3
"""Names that a sentence shows; the others are counted."""


class Done(NamedTuple):
    """What a change did.

    Attributes:
        sentence: what happened, for the artist: ``3 captions changed.``
        names: the pictures concerned; empty if nothing had to be changed.
        notes: what else she should know, one sentence each.
        kinds: what was changed: "captions", "masks", "preparation" (crops, pictures left out, options of folders).
    """

    sentence: str
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()


class Workbench:
    """Changes the dataset in ``folder``.

    Every method that writes is one step. Names of pictures are relative to the folder, with forward slashes. Two
    processes or threads that write one folder wait for each other.

    Args:
        own: the studio made this dataset from uploads, so that it need not ask before it writes there.

    Raises:
        DatasetError: by every method that writes: she was not asked yet (``allowed``), a name is of no picture, or a
            file was changed by another program; nothing was changed then.
        MachineError: by every method: the disk refuses; the files are as they were before.
    """

    def __init__(self, folder: Path, own: bool = False):
        self.folder = Path(os.path.realpath(folder))
        self._own, self._history = own, History(self.folder)

    @property
    def allowed(self) -> bool:
        """Whether she agreed that the studio writes beside these pictures."""
        return self._own or (self.folder / FOLDER).is_dir()

    def allow(self) -> None:
        """She agreed."""
        if not self.folder.is_dir():
            raise DatasetError(
                tr("There is no folder {folder}.", folder=self.folder), do=tr("Choose the folder of your pictures.")
            )
        with _disk(tr("The folder cannot be written"), self.folder):
            files.make_folder(self.folder / FOLDER)

    @property
    def undoable(self) -> str:
        """What ``undo`` would undo, such as ``3 captions changed``; "" if nothing."""
        return _title(self._history.last)

    @property
    def redoable(self) -> str:
        """What ``redo`` would do again; "" if nothing."""
        return _title(self._history.following)

    def settle(self) -> Done | None:
        """Puts back what a step had changed when it was interrupted by a crash. Every change does so first; call it
        before a folder is shown. None if nothing was interrupted.
        """
        if not self._history.interrupted():
            return None
        with self._locked():
            settled = self._history.settle()
        if settled is None:
            return None
        notes = [
            tr("{name} was changed by another program since and stayed as it is.", name=name)
            for name in settled.foreign[:NAMED]
        ]
        sentence = tr("A step was interrupted and was put back: {title}.", title=_within(settled.step.head.title))
        return Done(sentence, settled.step.head.names, tuple(notes), _kinds(edit.file for edit in settled.step.edits))

    def captions(self, names: Collection[str]) -> dict[str, str]:
        """The captions of pictures as a scan reads them now: their folder's for those without, or ""."""
        for name in names:
            _inside(self.folder, name)
        sources = CaptionFolder(self.folder, names).sources
        options = {captions.composed(name): one for name, one in preparation.read(self.folder)[0].folders.items()}
        texts = {name: source.text for name, source in sources.items()}
        return {name: texts.get(name) or listing.default_caption(os.path.dirname(name), options) for name in names}

    def edit_captions(
        self, changes: Mapping[str, str], title: str = "", shown: Mapping[str, str] | None = None
    ) -> Done:
        """Gives pictures other captions, each where its caption came from; an empty one empties it.

        Args:
            title: what is done, for undo; else ``3 captions changed``.
            shown: captions as she saw them. Where one is another by now, nothing is changed and DatasetError names it.
        """
        wanted = {name: _tidied(name, text) for name, text in changes.items()}
        with self._changing(wanted):
            place = CaptionFolder(self.folder, wanted)
            _compare(place, shown or {})
            plan = caption_files.planned(place, wanted)
            said = title or ntr(len(plan.pictures), "{count:,} caption changed", "{count:,} captions changed")
            return self._step(said, plan.pictures, plan.contents, plan.notes)

    def restore_captions(self, names: Collection[str]) -> Done:
        """Puts back the captions that pictures had before the studio changed them for the first time, byte for byte."""
        with self._changing(names):
            plan = originals.restored(CaptionFolder(self.folder, names), names)
            title = ntr(
                len(plan.pictures), "{count:,} original caption put back", "{count:,} original captions put back"
            )
            return self._step(title, plan.pictures, plan.contents, plan.notes)

    def restorable(self, names: Collection[str]) -> list[str]:
        """Those of the pictures for which ``restore_captions`` would change something."""
        kept = [name for name in names if originals.changed(self.folder, name)]
        return originals.restored(CaptionFolder(self.folder, kept), kept).pictures if kept else []

    def leave_out(self, names: Collection[str]) -> Done:
        """Leaves pictures out of training; they stay where they are."""
        with self._changing(names):
            known = self._prepared()
            new = [name for name in dict.fromkeys(names) if name not in known.left_out]
            changed = replace(known, left_out=known.left_out | set(new))
            return self._prepare(
                ntr(len(new), "{count:,} picture left out", "{count:,} pictures left out"), new, changed
            )

    def take_in(self, names: Collection[str]) -> Done:
        """Trains on pictures again that were left out."""
        with self._changing(names, gone=True):
            known = self._prepared()
            back = [name for name in dict.fromkeys(names) if name in known.left_out]
            changed = replace(known, left_out=known.left_out - set(back))
            title = ntr(len(back), "{count:,} picture taken in again", "{count:,} pictures taken in again")
            return self._prepare(title, back, changed)

    def set_crop(self, name: str, crop: Crop | None) -> Done:
        """Trains on a part of a picture; None for all of it. Raises DatasetError also for a part that is too small."""
        return self.set_crops({name: crop})

    def set_crops(self, crops: Mapping[str, Crop | None]) -> Done:
        """``set_crop`` of several pictures as one step."""
        with self._changing(crops):
            for name, crop in crops.items():
                if crop is not None:
                    preparation.check_crop(name, crop, *pictures.size(self.folder / name))
            known = self._prepared()
            new = {name: crop for name, crop in crops.items() if known.crops.get(name) != crop}
            kept = {name: crop for name, crop in {**known.crops, **new}.items() if crop is not None}
            listed = few(new, NAMED)
            title = tr("crop of {names} set", names=listed)
            if None in new.values():
                title = tr("crop of {names} removed", names=listed)
            return self._prepare(title, list(new), replace(known, crops=kept))

    def set_folder(self, name: str, options: FolderOptions) -> Done:
        """Sets what holds for the pictures of a folder, "" for the dataset's own."""
        with self._changing():
            _inside(self.folder, name or ".")
            known = self._prepared()
            if known.folders.get(name, FolderOptions()) == options:
                return Done(tr("Nothing to change."))
            changed = replace(known, folders={**known.folders, name: options})
            title = tr("options of {name} set", name=name) if name else tr("options of the folder set")
            return self._prepare(title, [name], changed)

    def add_choices(self, chosen: Preparation) -> Done:
        """Takes over crops, pictures left out and options of folders that came with pictures which were added. What is
        set here for a folder stays, and a note says so.
        """
        pictures = sorted(chosen.crops.keys() | chosen.left_out)
        with self._changing(pictures):
            known = self._prepared()
            folders = {**chosen.folders, **known.folders}
            changed = Preparation({**known.crops, **chosen.crops}, known.left_out | chosen.left_out, folders)
            names = [*pictures, *sorted(folders.keys() - known.folders.keys())]
            done = self._prepare(tr("crops and choices of added pictures taken over"), names, changed)
            others = [name for name, options in chosen.folders.items() if folders[name] != options]
            listed = few([name or self.folder.name for name in others], NAMED)
            kept = tr(
                "The upload's options of {folders} were not taken over: this dataset has its own.", folders=listed
            )
            return done._replace(notes=(kept,)) if others else done

    def add_captions(self, lines: Sequence[str]) -> Done:
        """Adds lines to ``metadata.jsonl`` that came with pictures which were added. They are those pictures' original
        captions.
        """
        own, first = caption_tables.JSONL, self.folder / originals.ORIGINALS / caption_tables.JSONL
        named = caption_tables.read(own, "\n".join(lines).encode()).captions
        with self._changing():
            before = _bytes(self.folder / own)
            if (kept := _bytes(first)) is not None:
                files.write(first, _appended(kept, lines))
            contents = {own: (before, _appended(before or b"", lines))}
            step = self._history.do(tr("captions of added pictures taken over"), tuple(named), contents)
        return _told(tr("{title}.", title=_begun(step.head.title)), step)

    def forget_gone(self) -> Done:
        """Removes crops, leaving out and options that were chosen for pictures and folders that are gone."""
        with self._changing():
            known = self._prepared()
            gone = choices.gone(self.folder, known)
            changed = replace(
                known,
                crops={name: crop for name, crop in known.crops.items() if name not in gone},
                left_out=known.left_out - set(gone),
                folders={name: options for name, options in known.folders.items() if name not in gone},
            )
            return self._prepare(tr("choices about {names} removed", names=few(gone, NAMED)), gone, changed)

    def set_mask(self, name: str, image: bytes | None) -> Done:
        """Sets a picture's mask, a PNG of the picture's shape, white where it is learned; None removes it."""
        return self.set_masks({name: image})

    def set_masks(self, images: Mapping[str, bytes | None]) -> Done:
        """``set_mask`` of several pictures as one step."""
        with self._changing(images):
            contents: dict[str, tuple[bytes | None, bytes | None]] = {}
            for name, image in images.items():
                contents |= self._mask_files(name, image)
            listed = few(images, NAMED)
            title = tr("mask of {names} set", names=listed)
            if None in images.values():
                title = tr("mask of {names} removed", names=listed)
            return self._step(title, list(images) if contents else [], contents)

    def undo(self) -> Done:
        """Undoes the last step, also one of an earlier session."""
        with self._changing():
            step = self._history.undo()
        if step is None:
            return Done(tr("There is nothing to undo."))
        return _told(tr("Undone: {title}.", title=_within(step.head.title)), step)

    def redo(self) -> Done:
        """Does the last step again that was undone."""
        with self._changing():
            step = self._history.redo()
        if step is None:
            return Done(tr("There is nothing to redo."))
        return _told(tr("Done again: {title}.", title=_within(step.head.title)), step)

    def _prepared(self) -> Preparation:
        found, problems = preparation.read(self.folder)
        if problems:
            raise DatasetError(problems[0].what, where=problems[0].file, do=problems[0].do)
        return found

    def _prepare(self, title: str, names: Collection[str], changed: Preparation) -> Done:
        before = _bytes(self.folder / preparation.NAME)
        after = preparation.encode(changed, self.folder).encode()
        return self._step(title, names, {preparation.NAME: (before, after)} if names else {})

    def _mask_files(self, name: str, image: bytes | None) -> dict[str, tuple[bytes | None, bytes | None]]:
        """The changes that give a picture this mask: the file that the studio writes, and none that counts before it;
        for no mask, none at all.
        """
        own, folder = masks.beside(name), self.folder / PurePosixPath(name).parent
        places = [folder, *(folder / inner for inner in masks.FOLDERS if (folder / inner).is_dir())]
        found = {path.relative_to(self.folder).as_posix() for place in places for path in place.iterdir()}
        present = masks.find(found | {own, name}).get(masks.key(name), [])
        others = present if image is None else present[: present.index(own)]
        wanted: dict[str, bytes | None] = {**dict.fromkeys(others), own: image}
        pairs = {file: (_bytes(self.folder / file), content) for file, content in wanted.items()}
        return {file: pair for file, pair in pairs.items() if pair[0] != pair[1]}

    def _step(self, title: str, names: Collection[str], contents: Contents, notes: Collection[str] = ()) -> Done:
        """Changes files as one step, and keeps the originals of those that are hers."""
        if not contents:
            return Done(tr("Nothing to change."), (), tuple(notes))
        originals.keep(self.folder, {file: pair for file, pair in contents.items() if file != preparation.NAME})
        self._history.do(title, names, contents)
        return Done(tr("{title}.", title=_begun(title)), tuple(names), tuple(notes), _kinds(contents))

    @contextmanager
    def _changing(self, names: Collection[str] = (), gone: bool = False) -> Generator[None]:
        """Holds the folder's lock while it is changed, once it is known that it may be.

        Args:
            names: pictures that are named.
            gone: they need not be there.
        """
        if not self.allowed:
            raise DatasetError(
                tr("The studio was not allowed yet to write beside these pictures."),
                where=self.folder,
                do=tr("Agree on the page, or with --yes in the terminal. Pictures themselves are never changed."),
            )
        if not self.folder.is_dir():
            raise DatasetError(
                tr("There is no folder {folder} any more.", folder=self.folder),
                do=tr("Choose the folder of your pictures."),
            )
        for name in names:
            path = _inside(self.folder, name)
            if not gone and not path.is_file():
                raise DatasetError(
                    tr("There is no picture {name}.", name=name), where=self.folder, do=tr("Read the folder again.")
                )
        with _disk(tr("The folder cannot be written"), self.folder):
            files.make_folder(self.folder / FOLDER)
        with self._locked(), _disk(tr("The change cannot be written, and nothing was changed"), self.folder):
            self._history.settle()
            yield

    @contextmanager
    def _locked(self) -> Generator[None]:
        with _disk(tr("The folder cannot be written"), self.folder), locks.held(self.folder / FOLDER / "lock"):
            yield


@contextmanager
def _disk(what: str, folder: Path) -> Generator[None]:
    """Says what the disk refused."""
    try:
        yield
    except OSError as error:
        raise files.refusal(error, what, folder) from None


def _inside(folder: Path, name: str) -> Path:
    """The path of a name in the dataset.

    Raises:
        DatasetError: it leads out of the folder.
    """
    path = folder / name
    if PurePosixPath(name).is_absolute() or not Path(os.path.realpath(path)).is_relative_to(folder):
        raise DatasetError(
            tr("{name} is not in the folder.", name=name), where=folder, do=tr("Name a picture of this folder.")
        )
    return path


def _tidied(name: str, text: str) -> str:
    tidy = _tidy(text)
    if len(tidy.encode()) > captions.MAX_BYTES:
        raise DatasetError(
            tr("The caption is longer than {most} KiB.", most=captions.MAX_BYTES // 1024),
            where=name,
            do=tr("Shorten it."),
        )
    return tidy


def _tidy(text: str) -> str:
    """A caption as it is written: at its beginning a mark of byte order would be read as one."""
    return captions.tidy_lines(text.replace("\ufeff", ""))


def _compare(place: CaptionFolder, shown: Mapping[str, str]) -> None:
    now = {name: source.text for name, source in place.sources.items()}
    changed = [name for name, text in shown.items() if name in now and now[name] not in (text, _tidy(text))]
    if changed:
        raise DatasetError(
            ntr(
                len(changed),
                "{names} has another caption than was shown. Nothing was changed.",
                "{names} have other captions than was shown. Nothing was changed.",
                names=few(changed, NAMED),
            ),
            where=changed[0],
            do=tr("Look at it again, then repeat the change."),
            details={"files": changed},
        )


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _appended(table: bytes, lines: Sequence[str]) -> bytes:
    """A table with more lines, in its own encoding."""
    known = captions.decode(table)[0].rstrip("\n")
    return captions.encode("\n".join([*([known] if known else []), *lines, ""]), table)


def _title(find: Callable[[], StepHead | None]) -> str:
    """The title of a step; where the list of steps cannot be read, words, so that undoing it is offered and says why
    not.
    """
    try:
        step = find()
    except (DatasetError, OSError):
        return tr("the last step")
    return _begun(step.title) if step else ""


def _told(sentence: str, step: EditStep) -> Done:
    return Done(sentence, step.head.names, (), _kinds(edit.file for edit in step.edits))


def _kinds(names: Iterable[str]) -> frozenset[str]:
    """What files are, by their names."""
    return frozenset(map(_kind, names))


def _kind(name: str) -> str:
    if name == preparation.NAME:
        return "preparation"
    return "captions" if name.lower().endswith(captions.SUFFIXES) or is_table(name) else "masks"


def _within(title: str) -> str:
    """A step's title within a sentence. Earlier versions kept it as it begins one, and without its parts."""
    return title if isinstance(title, Message) else title[:1].lower() + title[1:]


def _begun(title: str) -> str:
    """A step's title as it begins a sentence, in the current language."""
    said = str(title)
    return said[:1].upper() + said[1:]
