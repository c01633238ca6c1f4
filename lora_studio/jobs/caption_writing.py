"""What a captioning job reads of a dataset's captions, and how it writes into them: through the workbench, so that it
can be undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lora_studio import runs
from lora_studio.curation.edits import Append, EditTools
from lora_studio.curation.workbench import Workbench
from lora_studio.dataset import listing, masks, pictures, sidecars
from lora_studio.errors import DatasetError
from lora_studio.language import tr


def own_captions(data: Path, nested: bool = False) -> dict[str, str]:
    """The captions that were written for pictures, by their names relative to ``data``. One that a picture takes from
    the name of its folder is none of them.
    """
    folders, _ = listing.folders(data.resolve(), nested)
    shown = {place.prefix + name for place in folders for name in place.files if pictures.promises(name)}
    shown -= masks.among(shown)
    return {name: text for name, text in sidecars.pair(folders, shown)[0].items() if text}


def with_sentence(caption: str, sentence: str) -> str:
    """``caption`` with ``sentence`` as a whole behind each of its lines that does not end with it.

    >>> with_sentence("ink, boat", "A boat, at sea."), with_sentence("A boat.", "It is red.")
    ('ink, boat, A boat, at sea.', 'A boat. It is red.')
    """
    return Append(text=sentence).caption(caption, EditTools())


def with_tags(caption: str, tags: str) -> str:
    """``caption`` with the ``tags`` behind each of its lines, without those that the line has.

    >>> with_tags("ink, boat", "boat, sea"), with_tags("", "boat, sea")
    ('ink, boat, sea', 'boat, sea')
    """
    parts = [part.strip() for part in tags.split(",")]
    lines = caption.splitlines() or [""]
    return "\n".join(_extended(line, parts) for line in lines)


def _extended(line: str, parts: list[str]) -> str:
    there = {part.strip().casefold() for part in line.split(",")}
    new = [part for part in parts if part and part.casefold() not in there]
    return ", ".join(filter(None, [line.rstrip(" ,"), *new])) if new else line


def require_consent(data: Path, outputs: Path) -> None:
    """Raises DatasetError where she has not allowed the studio to write in the folder ``data``."""
    if not _workbench(data, outputs).allowed:
        raise DatasetError(
            tr("The studio has not been allowed to write in this folder."),
            where=data,
            do=tr("Allow it, or have the captions proposed: then nothing is written."),
            details={"consent": str(data)},
        )


def write(
    data: Path, captions: Mapping[str, str], outputs: Path, title: str = "", shown: Mapping[str, str] | None = None
) -> list[str]:
    """Writes captions as one step that can be undone, and returns the names of the pictures. Those that are gone are
    passed over, and of pictures that share a caption file, as ``a.png`` and ``a.jpg``, all but the first. ``title`` and
    ``shown`` as in ``Workbench.edit_captions``.

    Raises:
        DatasetError: she has not allowed the studio to write in the folder, or a caption cannot be written.
        MachineError: the disk refuses.
    """
    first = {masks.key(name): name for name in reversed(list(captions)) if (data / name).is_file()}
    there = {name: text for name, text in captions.items() if name in first.values()}
    if there:
        require_consent(data, outputs)
        _workbench(data, outputs).edit_captions(there, title, shown)
    return list(there)


def _workbench(data: Path, outputs: Path) -> Workbench:
    own = data.resolve().is_relative_to(runs.pictures_folder(outputs).resolve())
    return Workbench(data, own=own)
