"""How much of a style was learned: what an adapter changes in the statistics of the base model's features, against what
tells the training pictures from the base model's pictures of the same captions.

0 % is the base model. 100 % is a change of the whole size and direction. What pictures show is the same on both sides
of each difference, so it does not count. Letters as in ``perception``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_studio.evaluation.value import Value

RESAMPLED = 1000
"""Bootstrap draws of an interval."""
_SEED = 5


class StyleScale:
    """The scale of one style; all features are ``perception.Seen.style``.

    Args:
        training: (N, D) of training pictures; N at least 2.
        captioned: (M, R, D) of the base model's pictures of captions, of all training pictures or of some.
        base: (P, S, D) of the base model's pictures of the evaluation prompts.
        chosen: the M training pictures that the captions are of; M at least 2.
    """

    def __init__(self, training: Tensor, captioned: Tensor, base: Tensor, chosen: Sequence[int]):
        spread = training.std(0)
        self.spread = spread + 0.1 * spread.mean()  # a channel that never varies would decide everything
        wanted = (training[list(chosen)] - captioned.mean(1)) / self.spread
        self.wanted, self.error = wanted.mean(0), wanted.var(0) / len(wanted)
        self.base = base
        sure = (self.wanted**2 - self.error).mean()  # not positive where chance alone could tell the pictures apart
        self.whole = (sure if sure > 0 else (self.wanted**2).mean()).sqrt()

    def of_seeds(self, count: int) -> StyleScale:
        """The same scale for pictures of the first ``count`` seeds of each prompt."""
        other = copy.copy(self)
        other.base = self.base[:, :count]
        return other

    def percent(self, drawn: Tensor) -> Value:
        """How far pictures of the same prompts and seeds as ``base``, (P, S, D), have come, with a 95 % bootstrap
        interval over prompts and seeds.
        """
        once = torch.ones(1, drawn.shape[0] * drawn.shape[1])
        found = interval(self._percent(drawn, once, 1).item(), self.resampled(drawn))
        return found._replace(high=min(found.high, 100.0)) if found.high is not None else found

    def resampled(self, drawn: Tensor) -> Tensor:
        """(``RESAMPLED``,) percentages, over the same resamplings for every set of this shape: the differences of two
        sets are paired.
        """
        prompts, seeds = resamplings(*drawn.shape[:2])
        places = (prompts * drawn.shape[1] + seeds).flatten(1)
        times = F.one_hot(places, drawn.shape[0] * drawn.shape[1]).sum(1).float()
        return self._percent(drawn, times, 2)  # a resampled mean has the error of the set, and that of resampling it

    def along(self, drawn: Tensor) -> Tensor:
        """(``RESAMPLED``,) shares of the wanted change that pictures (P, S, D) have made in its direction, over the
        resamplings of ``resampled``; above 1 they go further. It varies less than the distance, and misses what else
        has changed.
        """
        prompts, seeds = resamplings(*drawn.shape[:2])
        shares = ((drawn - self.base) / self.spread) @ self.wanted / self.wanted.square().sum()
        return shares[prompts, seeds].mean((1, 2))

    def _percent(self, drawn: Tensor, times: Tensor, errors: int) -> Tensor:
        """(R,): percentages of sets in which the pictures count so many ``times``, (R, P · S); 100 at most.

        Means of few pictures differ by chance even if nothing else does. The square that chance alone would give is
        subtracted as many times as it is in there. What is left may be negative, which is no distance.
        """
        changes, count = ((drawn - self.base) / self.spread).flatten(0, 1), times.sum(1, keepdim=True)
        mean = times @ changes / count
        error = (times @ changes**2 / count - mean**2) / (count - 1)
        left = ((mean - self.wanted) ** 2 - errors * error - self.error).mean(1)
        return 100 * (1 - left.clamp_min(0).sqrt() / self.whole)


def interval(value: float, resampled: Tensor) -> Value:
    """``value`` with the 95 % interval of ``resampled`` around its median: the value of a resampled set is biased where
    it is a distance, which the spread of these values is not.
    """
    low, middle, high = resampled.quantile(torch.tensor([0.025, 0.5, 0.975])).tolist()
    return Value(value, value + low - middle, value + high - middle)


def resamplings(prompts: int, seeds: int) -> tuple[Tensor, Tensor]:
    """Indices of prompts and of their seeds, drawn with replacement: (``RESAMPLED``, P, S) each (Efron 1979)."""
    source = torch.Generator().manual_seed(_SEED)
    chosen = torch.randint(prompts, (RESAMPLED, prompts, 1), generator=source).expand(-1, -1, seeds)
    return chosen, torch.randint(seeds, (RESAMPLED, prompts, seeds), generator=source)
