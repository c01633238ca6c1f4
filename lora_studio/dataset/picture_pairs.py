"""The pictures of pairs that a file of ``slider_pairs`` names: the same subject at both ends of a slider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lora_studio.dataset import folder
from lora_studio.dataset.items import Dataset, Picture, PromptPair
from lora_studio.errors import DatasetError
from lora_studio.language import tr


def scan(file: Path, pairs: Sequence[PromptPair], cache: Path | None = None, *, by_content: bool = False) -> Dataset:
    """Both pictures of each of ``pairs``, with its prompt as their caption. Crops of the Pictures page count; captions,
    masks and weights there do not. Only the folders of pictures that are named are read.

    Args:
        file: names the pictures relative to its folder, in which they are.
        cache, by_content: as of ``folder.scan``.

    Raises:
        DatasetError: a picture is missing or damaged, or the two of a pair do not have one size; names file and pair.
    """
    root = file.absolute().parent.resolve()
    scans: dict[Path, Dataset] = {}
    pictures: list[Picture] = []
    for number, pair in enumerate(pairs, 1):
        where, two = tr("{file}: pair {number}", file=file.name, number=number), []
        for name in pair.pictures or ():
            place = (root / name).parent.resolve()
            if place.is_relative_to(root) and place not in scans:  # not all below the root: that may be a home folder
                scans[place] = folder.scan(place, cache, by_content=by_content)
            two.append(_named(name, root, scans.get(place), where))
        _require_alike(*two, where)
        pictures += [_of_pair(picture, pair) for picture in two]
    return Dataset(root, pictures, [], pairs=list(pairs))


def _named(name: str, root: Path, found: Dataset | None, where: str) -> Picture:
    own = Path(name).name
    if found:
        for picture in (*found.pictures, *found.left_out):
            if found.name(picture) == own:
                return picture
        if told := next((one for one in found.problems if own in (one.file, *one.files)), None):
            raise DatasetError(told.what, where=f"{where}, {name}", do=told.do)
    do = tr("Put it into {root} or a folder below it, and name it from there: night/anna.png", root=root)
    raise DatasetError(tr("There is no picture {name} beside the file.", name=name), where=where, do=do)


def _require_alike(one: Picture, other: Picture, where: str) -> None:
    if (one.width, one.height, one.crop) == (other.width, other.height, other.crop):
        return
    first, second = f"{one.width} × {one.height}", f"{other.width} × {other.height}"
    what = tr("The two pictures do not show the same part: {first} and {second} pixels.", first=first, second=second)
    if (one.width, one.height) == (other.width, other.height):
        what = tr("The two pictures are cropped differently.")
    do = tr("Give both one size and one crop, so that they differ in what the slider moves and in nothing else.")
    raise DatasetError(what, where=where, do=do)


def _of_pair(picture: Picture, pair: PromptPair) -> Picture:
    return replace(
        picture,
        caption=pair.trained,
        prefix="",
        repeats=1,
        mask=None,
        weight=1.0,
        timesteps=None,
        regularisation=False,
    )
