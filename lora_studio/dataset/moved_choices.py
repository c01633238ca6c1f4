"""Takes the choices that a ZIP holds (``preparation``) along to the dataset that it becomes, under the new names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from lora_studio.dataset import preparation
from lora_studio.dataset.preparation import Crop, FolderOptions, Preparation
from lora_studio.dataset.problems import Problem, grouped
from lora_studio.language import tr


def is_choices(name: PurePosixPath) -> bool:
    """Whether a file holds an artist's choices, by its name within an upload."""
    return name.parts[-2:] == PurePosixPath(preparation.NAME).parts


def take_along(
    folder: Path,
    found: Iterable[tuple[Path, PurePosixPath]],
    picture: Callable[[PurePosixPath, str], PurePosixPath | None],
    place: Callable[[PurePosixPath], str],
) -> list[Problem]:
    """Writes the choices of an upload into its dataset ``folder``, and returns what was not taken.

    Args:
        found: the files of choices: where the bytes are, and the name within the upload.
        picture: the new name of a picture that a folder of the upload knows under a name; None if there is none.
        place: the new folder of one of the upload, "" for the dataset's own.
    """
    crops, left_out, folders = dict[str, Crop](), set[str](), dict[str, FolderOptions]()
    problems, lost = list[Problem](), list[str]()
    for path, name in found:
        chosen, faults = preparation.read(path.parent.parent)
        problems += faults
        root = name.parent.parent
        for called in sorted(chosen.crops.keys() | chosen.left_out):
            target = picture(root, called)
            if target is None:
                lost.append(called)
                continue
            if called in chosen.crops:
                crops.setdefault(str(target), chosen.crops[called])
            if called in chosen.left_out:
                left_out.add(str(target))
        for called, options in chosen.folders.items():
            target = place(root / called)
            if target in folders or (called and not target):  # of a folder whose pictures are now among others
                lost.append(called)
            else:
                folders[target] = options
    if crops or left_out or folders:
        preparation.write(folder, Preparation(crops, frozenset(left_out), folders))
    return problems + grouped(
        "warning",
        "not taken",
        lost,
        "entry of {name} in the upload was not taken, since what it names was renamed or is missing",
        "entries of {name} in the upload were not taken, since what they name was renamed or is missing",
        tr("Set crops, options of folders and what is left out again on the page, in Pictures."),
        name=preparation.NAME,
    )
