"""Further measures by models in local folders: CLIP, DINO, an aesthetic predictor (``vision.scorers``).

They are measured of pictures that were drawn and kept, whenever they are asked for. Letters: P prompts, S seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lora_studio.dataset.folder import scan
from lora_studio.dataset.items import Dataset
from lora_studio.dataset.pictures import open_picture
from lora_studio.errors import RunError
from lora_studio.evaluation import judgements
from lora_studio.evaluation.judgements import Judgement, JudgingPlan
from lora_studio.evaluation.style import interval, resamplings
from lora_studio.evaluation.value import Value
from lora_studio.language import tr
from lora_studio.runs import Run
from lora_studio.vision import scorers
from lora_studio.vision.scorers import Scores

MOST = 100
"""Training pictures that others are compared with; of more, these many are taken evenly."""


class Columns:
    """Scorers by the names of their folders.

    Args:
        dataset: pictures that drawn ones are compared with.

    Attributes:
        training: what the training pictures themselves reach, by the column's name, once something was measured.

    Raises:
        ModelError: a folder holds no scorer.
    """

    def __init__(self, folders: Sequence[Path], dataset: Dataset, device: torch.device | str = "cpu"):
        self.scorers = {
            name: scorers.load(folder, _training(dataset), device) for name, folder in _named(folders).items()
        }
        self.training: dict[str, float | None] = {}

    def add(self, judgement: Judgement, pictures: Sequence[Image.Image], plan: JudgingPlan) -> Judgement:
        """``judgement`` with a value and samples for each column.

        Args:
            pictures: P · S, the seeds of a prompt side by side.
        """
        found = self.measured(pictures, plan)
        extra = {name: _value(one) for name, one in found.items()}
        samples = {name: tuple(_resampled(one).tolist()) for name, one in found.items()}
        return replace(judgement, extra={**judgement.extra, **extra}, samples={**judgement.samples, **samples})

    def values(self, pictures: Sequence[Image.Image], plan: JudgingPlan) -> dict[str, Value]:
        """The value of each column, with a 95 % bootstrap interval over prompts and seeds."""
        return {name: _value(one) for name, one in self.measured(pictures, plan).items()}

    def measured(self, pictures: Sequence[Image.Image], plan: JudgingPlan) -> dict[str, Tensor]:
        """(P, S) scores of pictures by the columns' names, such as ``clip text``."""
        prompts = [prompt for prompt in plan.prompts for _ in range(plan.seeds)]
        found: dict[str, Scores] = {
            f"{folder} {what}": scores
            for folder, scorer in self.scorers.items()
            for what, scores in scorer.scores(pictures, prompts).items()
        }
        self.training |= {name: one.training for name, one in found.items()}
        return {name: one.of.unflatten(0, (len(plan.prompts), plan.seeds)) for name, one in found.items()}


def add_to_judged(
    run: Run, found: Sequence[Judgement], folders: Sequence[Path]
) -> tuple[list[Judgement], dict[str, float | None]]:
    """``found``, which was judged of ``run``, with the columns of the scorers in ``folders``, which are kept with the
    rest; and what the training pictures reach. It computes on the CPU.

    Raises:
        ModelError: a folder holds no scorer.
        RunError: a picture that was judged is missing.
    """
    settings, place = run.settings(), judgements.folder(run)
    scored = Columns(folders, scan(Path(settings.run.data), run.cache, nested=settings.dataset.nested))
    added: list[Judgement] = []
    for one in found:
        if under := judgements.conditions(run, one.step):
            pictures = kept(judgements.state_folder(place, one.step), under.plan)
            added.append(scored.add(one, pictures, under.plan))
            judgements.write(added[-1], under, place)
    return added, scored.training


def _value(scores: Tensor) -> Value:
    return interval(scores.mean().item(), _resampled(scores))


def _resampled(scores: Tensor) -> Tensor:
    """(K,) means over the resamplings that all measures share, of scores (P, S)."""
    prompts, seeds = resamplings(*scores.shape)
    return scores[prompts, seeds].mean((1, 2))


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by their names; the second of two with the same name has its parent's in front."""
    named: dict[str, Path] = {}
    for folder in folders:
        path = folder.expanduser().resolve()
        named[path.name if named.get(path.name, path) == path else f"{path.parent.name}/{path.name}"] = path
    return named


def _training(dataset: Dataset) -> Iterator[Image.Image]:
    shown = [picture for picture in dataset.pictures if not picture.regularisation]
    for place in np.linspace(0, len(shown) - 1, min(MOST, len(shown))).round().astype(int):
        yield open_picture(shown[place].path)


def kept(place: Path, plan: JudgingPlan) -> list[Image.Image]:
    """The pictures that were drawn and kept in ``place``: P · S, the seeds of a prompt side by side.

    Raises:
        RunError: one is missing or damaged.
    """
    return [picture(place, prompt, seed) for prompt in range(len(plan.prompts)) for seed in range(plan.seeds)]


def picture(place: Path, prompt: int, seed: int) -> Image.Image:
    """The picture that was drawn of a prompt with a seed, by their numbers, and kept in ``place``.

    Raises:
        RunError: it is missing or damaged.
    """
    path = place / f"{prompt}-{seed}.png"
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        what = tr("A picture that was judged cannot be read: {name}.", name=path.name)
        raise RunError(
            what, where=path, do=tr("Delete the folder {place}, and it is judged again.", place=place)
        ) from error
