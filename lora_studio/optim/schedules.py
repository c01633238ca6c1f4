"""The learning rate over a run: a pure function of the step, so that a resumed run needs no state for it."""

from __future__ import annotations

import math


def factor(step: int, total: int, kind: str, warmup: float) -> float:
    """What the learning rate is multiplied by at ``step`` (0 … total−1).

    It rises linearly over the first ``warmup`` share of the steps, then stays (``constant``), or falls to zero
    along a line (``linear``) or half a cosine (``cosine``; Loshchilov & Hutter 2017, eq. 5).

    >>> [round(factor(step, 4, "linear", 0.0), 2) for step in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    rising = math.ceil(total * warmup)
    if step < rising:
        return (step + 1) / rising
    if kind == "constant":
        return 1.0
    progress = (step - rising) / max(1, total - rising)
    return 1.0 - progress if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
