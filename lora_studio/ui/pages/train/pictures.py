"""The dataset on the Train page: what it holds and what prevents training."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lora_studio import runs, starter
from lora_studio.config.settings import Settings
from lora_studio.config.slices.run import names_pairs
from lora_studio.dataset import buckets, caption_notices, folder, slider_pairs
from lora_studio.dataset import pictures as readers
from lora_studio.dataset.batch_sampler import split
from lora_studio.dataset.examination import Progress
from lora_studio.dataset.items import Dataset, Picture, PromptPair
from lora_studio.dataset.problems import Problem
from lora_studio.errors import DatasetError
from lora_studio.language import in_sequence, ntr, tr
from lora_studio.ui import images, words
from lora_studio.ui.pages.pictures import findings

_MOST_PROBLEMS, _MOST_LINES = 3, 5
_SHOWN = 5
"""Pictures that are shown."""
_AS_IT_SHOULD = frozenset(("mask", "caption lines", "wildcards", "folder caption", "left out"))
"""Kinds of what a scan tells that are no problem."""
_scanning: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def samples() -> dict[str, str]:
    """Path -> name of the sample styles that come with the studio."""
    return (
        {str(path): path.name.replace("-", " ").replace("_", " ").capitalize() for path in starter.sample_styles()}
        if starter.SAMPLES.is_dir()
        else {}
    )


def scan(data: str, outputs: Path, nested: bool = False, progress: Progress | None = None) -> Dataset:
    """The dataset in the folder ``data``, with all folders below it if ``nested``; or the prompt pairs of the file
    ``data``. Results are cached, so only changed files are read again, and by one at a time of those that ask.

    Raises:
        DatasetError: no folder was chosen.
        SettingsError, DatasetError: of a file, as ``slider_pairs.read``.
    """
    if not data:
        raise DatasetError(
            tr("No pictures are chosen."),
            where=tr("Pictures"),
            do=tr("Choose a sample style, or paste the path of your folder."),
        )
    with _scanning[data]:
        if names_pairs(data):
            return slider_pairs.scan(Path(data), runs.cache_folder(outputs))
        return folder.scan(Path(data), runs.cache_folder(outputs), progress, nested=nested)


def report(dataset: Dataset, settings: Settings, outputs: Path, resolution: int = 0) -> str:
    """The dataset as it will be trained with ``settings``, as HTML: how many pictures train, a few of them, and what is
    wrong with them, folded by kind. What prevents training stands open.

    Args:
        resolution: that they train at, in pixels; 0 where it is not known.
    """
    if dataset.pairs:
        return f'<div class="dataset">{words.facts(_pairs(dataset.pairs))}</div>'
    found = [*dataset.problems, *_of_settings(dataset, settings, resolution)]
    blocking = [one for one in found if one.severity == "blocking" or one.kind == "unread folder"]
    notices = "".join(
        words.notice("wrong" if one.severity == "blocking" else "warned", one.what, one.file, one.do)
        for one in blocking[:_MOST_PROBLEMS]
    )
    kinds: dict[str, list[Problem]] = {}
    for one in found:
        if one not in blocking and one.kind not in _AS_IT_SHOULD:
            kinds.setdefault(one.kind, []).append(one)
    folds = "".join(_fold(kind, problems) for kind, problems in kinds.items())
    said = _sentence(dataset, settings) if dataset.pictures else ""
    if said and not kinds and not blocking:
        said = in_sequence([said, tr("Nothing to fix.")])
    sentence = f'<p class="hint">{words.text(said)}</p>' if said else ""
    return f'<div class="dataset">{sentence}{_row(dataset, outputs)}{notices}{folds}</div>'


def _of_settings(dataset: Dataset, settings: Settings, resolution: int) -> list[Problem]:
    """What is wrong with the pictures and captions under these settings."""
    of = settings.dataset
    size = of.resolution or resolution
    cropped = buckets.problems(dataset, size, of.bucket_step, of.max_upscale) if size and dataset.pictures else []
    return [*cropped, *caption_notices.problems(dataset, of)]


def _fold(kind: str, problems: Sequence[Problem]) -> str:
    """All problems of a kind in one line, which unfolds."""
    first = problems[0]
    counted = len(problems) == 1 and first.files  # which says how many there are
    title = str(first.what).partition(":")[0].rstrip(".") if counted else f"{findings.title(kind)}: {len(problems)}"
    told = (one.what if one.files or not one.file else f"{one.file}: {one.what}" for one in problems[:_MOST_LINES])
    lines = "".join(f"<li>{words.text(line)}</li>" for line in told)
    if (more := len(problems) - _MOST_LINES) > 0:
        lines += f"<li>{tr('and {count:,} more', count=more)}</li>"
    return (
        f'<details class="problem"><summary>{words.text(title)}</summary>'
        f"<ul>{lines}</ul><p>{words.text(first.do)}</p></details>"
    )


def _row(dataset: Dataset, outputs: Path) -> str:
    """The first pictures, small; a link to all of them."""
    shown = [_image(picture, outputs) for picture in _own(dataset)[:_SHOWN]]
    if not any(shown):
        return ""
    label = words.text(tr("Look at the pictures"))
    return f'<a class="row-of-pictures" href="#pictures" aria-label="{label}">{"".join(shown)}</a>'


def _image(picture: Picture, outputs: Path) -> str:
    try:
        made = readers.thumbnail(picture.path, images.folder(outputs) / "pictures", images.PICTURE, picture.sha256)
    except (DatasetError, OSError):  # which the scan has told
        return ""
    return f'<img src="{words.text(images.address(made))}" alt="" loading="lazy">'


def _pairs(pairs: Sequence[PromptPair]) -> list[str]:
    """How many pairs of prompts, what for, and what a run without pictures does without."""
    slider = tr("for a slider, which also works at negative weights")
    if pairs[0].pictures:
        counted = ntr(len(pairs), "{count:,} pair of pictures", "{count:,} pairs of pictures")
        return [counted, slider, tr("nothing is validated or judged")]
    counted = ntr(len(pairs), "{count:,} pair of prompts", "{count:,} pairs of prompts")
    what = tr("for a concept to be erased") if pairs[0].erases else slider
    return [counted, what, tr("no pictures, so nothing is validated or judged")]


def _own(dataset: Dataset) -> list[Picture]:
    return [picture for picture in dataset.pictures if not picture.regularisation]


def _sentence(dataset: Dataset, settings: Settings) -> str:
    """How many pictures train and how many are held out, and what else there is."""
    train, checked = split(dataset.pictures, settings.dataset.validation_share, settings.run.seed)
    own = _own(dataset)
    told = words.divided(len(own) - len(checked), len(checked))
    others = []
    if classes := len(dataset.pictures) - len(own):
        others.append(words.counted(classes, "class picture"))
    if (repeated := sum(picture.repeats for picture in own)) != len(own):
        others.append(tr("{count:,} with repeats", count=repeated))
    if dataset.left_out:
        others.append(tr("{count:,} left out", count=len(dataset.left_out)))
    for one in others:
        told = tr("{told}, {more}", told=told, more=one)
    return tr("{told}.", told=told)
