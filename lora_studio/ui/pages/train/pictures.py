"""The dataset on the Train page: what it holds and what prevents training."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lora_studio import runs, starter
from lora_studio.config.slices.run import names_pairs
from lora_studio.dataset import folder, slider_pairs
from lora_studio.dataset.examination import Progress
from lora_studio.dataset.items import Dataset, PromptPair
from lora_studio.errors import DatasetError
from lora_studio.ui import words

_MOST_PROBLEMS = 3
_scanning: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_COUNTED = {"left out": "unread file", "warning": "warning"}
"""Severities of problems that are told by their number."""
_LINK = '<a class="quiet-link" href="#pictures">Look at the pictures</a>'


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
            "No pictures are chosen.", where="Pictures", do="Choose a sample style, or paste the path of your folder."
        )
    if names_pairs(data):
        return slider_pairs.scan(Path(data))
    with _scanning[data]:
        return folder.scan(Path(data), runs.cache_folder(outputs), progress, nested=nested)


def report(dataset: Dataset) -> str:
    """The dataset in one line, and what prevents training, as HTML. The Pictures page shows the rest."""
    if dataset.pairs:
        return f'<div class="dataset">{words.facts(_pairs(dataset.pairs))}</div>'
    told = [one for one in dataset.problems if one.severity == "blocking" or one.kind == "unread folder"]
    notices = "".join(
        words.notice("wrong" if one.severity == "blocking" else "warned", one.what, one.file, one.do)
        for one in told[:_MOST_PROBLEMS]
    )
    return f'<div class="dataset">{words.facts(_facts(dataset))}{notices}{_LINK}</div>'


def _pairs(pairs: Sequence[PromptPair]) -> list[str]:
    """How many pairs of prompts, what for, and what a run without pictures does without."""
    counted = words.counted(len(pairs), "pair") + " of prompts"
    what = "for a concept to be erased" if pairs[0].erases else "for a slider, which also works at negative weights"
    return [counted, what, "no pictures, so nothing is validated or judged"]


def _facts(dataset: Dataset) -> list[str]:
    pictures = [picture for picture in dataset.pictures if not picture.regularisation]
    facts = [words.counted(len(pictures), "picture")]
    if others := len(dataset.pictures) - len(pictures):
        facts.append(words.counted(others, "class picture"))
    if bare := sum(not picture.caption for picture in pictures):
        facts.append(f"{bare:,} without a caption")
    if (repeated := sum(picture.repeats for picture in pictures)) != len(pictures):
        facts.append(f"{repeated:,} including repeats")
    if dataset.left_out:
        facts.append(f"{len(dataset.left_out):,} left out")
    for severity, name in _COUNTED.items():
        kinds = ("left out", "no caption")  # which are counted already
        found = [one for one in dataset.problems if one.severity == severity and one.kind not in kinds]
        if found:
            facts.append(words.counted(len(found), name))
    return facts
