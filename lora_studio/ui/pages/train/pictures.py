"""The dataset on the page: thumbnails, counts, and the problems of each file."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

from lora_studio import runs, starter
from lora_studio.dataset import folder
from lora_studio.dataset.examination import Progress
from lora_studio.dataset.items import Dataset, Picture
from lora_studio.dataset.pictures import thumbnail
from lora_studio.dataset.problems import Problem
from lora_studio.errors import DatasetError
from lora_studio.ui import images, words

MOST_SHOWN = 24
_MOST_PROBLEMS = 40
_scanning: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_HEADINGS = {"blocking": "Fix before training", "left out": "Left out", "warning": "Warnings"}


def samples() -> dict[str, str]:
    """Path -> name of the sample styles that come with the studio."""
    return (
        {str(path): path.name.replace("-", " ").replace("_", " ").capitalize() for path in starter.sample_styles()}
        if starter.SAMPLES.is_dir()
        else {}
    )


def scan(data: str, outputs: Path, nested: bool = False, progress: Progress | None = None) -> Dataset:
    """The dataset in the folder ``data``, with all folders below it if ``nested``. Results are cached, so only
    changed files are read again, and by one at a time of those that ask.

    Raises:
        DatasetError: no folder was chosen.
    """
    if not data:
        raise DatasetError(
            "No pictures are chosen.", where="Pictures", do="Choose a sample style, or paste the path of your folder."
        )
    with _scanning[data]:
        return folder.scan(Path(data), runs.cache_folder(outputs), progress, nested=nested)


_LARGER = (
    '<dialog class="larger-picture"><form method="dialog">'
    '<button><img alt=""><b></b><span></span></button></form></dialog>'
)


def report(dataset: Dataset, outputs: Path) -> str:
    """The dataset as HTML: its first pictures, counts and problems."""
    shown = "".join(_thumbnail(picture, dataset.name(picture), outputs) for picture in dataset.pictures[:MOST_SHOWN])
    below = f"{words.facts(_facts(dataset))}{_problems(dataset)}"
    return f'<div class="dataset"><div class="thumbnails">{shown}</div>{below}</div>{_LARGER}'


def _thumbnail(picture: Picture, name: str, outputs: Path) -> str:
    """The thumbnail of a picture; empty if the file was just deleted."""
    try:
        path = thumbnail(picture.path, images.folder(outputs) / "pictures", images.PICTURE)
    except DatasetError:
        return ""
    name, caption = words.text(name), words.text(picture.caption or "no caption")
    image = f'<img src="{words.text(images.address(path))}" alt="{caption}" loading="lazy">'
    return f'<button type="button" class="thumbnail" data-name="{name}" title="{caption}">{image}</button>'


def _facts(dataset: Dataset) -> list[str]:
    pictures = [picture for picture in dataset.pictures if not picture.regularisation]
    facts = [words.counted(len(pictures), "picture")]
    if not pictures:
        return facts
    if others := len(dataset.pictures) - len(pictures):
        facts.append(words.counted(others, "class picture"))
    facts.append(f"{sum(bool(picture.caption) for picture in pictures):,} with a caption")
    if several := sum("\n" in picture.caption for picture in pictures):
        facts.append(f"{several:,} with several lines")
    if masked := sum(picture.mask is not None for picture in pictures):
        facts.append(f"{masked:,} with a mask")
    if (repeated := sum(picture.repeats for picture in pictures)) != len(pictures):
        facts.append(f"{repeated:,} including repeats")
    small, large = (choose(pictures, key=lambda picture: picture.width * picture.height) for choose in (min, max))
    sizes = [f"{picture.width} × {picture.height}" for picture in (small, large)]
    facts.append(sizes[0] if sizes[0] == sizes[1] else f"{sizes[0]} to {sizes[1]}")
    if len(pictures) > MOST_SHOWN:
        facts.append(f"first {MOST_SHOWN} shown")
    return facts


def _problems(dataset: Dataset) -> str:
    parts = []
    for severity, heading in _HEADINGS.items():
        found = [problem for problem in dataset.problems if problem.severity == severity]
        if found:
            is_open = " open" if severity == "blocking" or len(found) <= 2 else ""
            more = f"<li>… and {len(found) - _MOST_PROBLEMS:,} more</li>" if len(found) > _MOST_PROBLEMS else ""
            rows = "".join(map(_row, found[:_MOST_PROBLEMS])) + more
            title = f"<summary>{heading} <b>{len(found):,}</b></summary>"
            parts.append(
                f'<details class="problems {severity.replace(" ", "-")}"{is_open}>{title}<ul>{rows}</ul></details>'
            )
    return "".join(parts)


def _row(problem: Problem) -> str:
    place = f"<code>{words.text(problem.file)}</code> " if problem.file and problem.file not in problem.what else ""
    return f"<li>{place}{words.text(problem.what)} <span>{words.text(problem.do)}</span></li>"


ENLARGE = """
element.addEventListener('click', event => {
  const picture = event.target.closest('.thumbnail'), dialog = element.querySelector('.larger-picture');
  if (!picture) return;
  dialog.querySelector('img').src = picture.querySelector('img').src;
  dialog.querySelector('b').textContent = picture.dataset.name;
  dialog.querySelector('span').textContent = picture.title;
  dialog.showModal();
});
"""
"""Enlarges a picture, with its name and caption; for ``gr.HTML(js_on_load=...)``."""
