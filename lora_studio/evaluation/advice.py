"""Which saved state to keep, by what was judged, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_studio.evaluation.judging import Judgement


@dataclass(frozen=True)
class Advice:
    """The state to keep.

    Attributes:
        alike: steps whose style cannot be told from its own, itself included: the interval of the difference holds 0.
        reasons: what speaks for it, in half sentences.
        freer: the state before it, which follows prompts more freely, if there is one; ``tighter`` the one after it.
    """

    step: int
    alike: tuple[int, ...]
    reasons: tuple[str, ...]
    freer: int | None
    tighter: int | None

    @property
    def sentence(self) -> str:
        """For people."""
        others = [step for step in self.alike if step != self.step]
        unsure = (
            f" Its style cannot be told from that of step{'s' * (len(others) > 1)} {_listed(others)}." if others else ""
        )
        return f"Keep step {self.step:,}: {'; '.join(self.reasons)}.{unsure}"


def advise(judged: Sequence[Judgement]) -> Advice | None:
    """The state with most of the style among those whose subjects hold and that copied nothing; where there is none,
    among all. None if nothing was judged.
    """
    if not judged:
        return None
    ordered = sorted(judged, key=lambda one: one.step)
    sound = [one for one in ordered if not one.fades and not one.copies] or ordered
    best = max(sound, key=lambda one: one.style.value)
    steps = [one.step for one in ordered]
    place = steps.index(best.step)
    alike = tuple(one.step for one in ordered if _same(one, best))
    return Advice(
        best.step,
        alike,
        tuple(_reasons(best, ordered)),
        steps[place - 1] if place else None,
        steps[place + 1] if place + 1 < len(steps) else None,
    )


def _same(one: Judgement, other: Judgement) -> bool:
    """Whether two states' styles cannot be told apart, by a paired bootstrap."""
    low, high = np.quantile(np.subtract(one.samples, other.samples), [0.025, 0.975])
    return bool(low <= 0 <= high)


def _reasons(best: Judgement, ordered: Sequence[Judgement]) -> list[str]:
    value, low, high = best.style
    margin = f" (between {low:.0f} and {high:.0f})" if low is not None and high is not None else ""
    later = [one for one in ordered if one.step > best.step]
    better = [one for one in later if one.style.value > value]
    found = [f"style {value:.0f} %{margin}" + (", no better later" if later and not better else "")]
    found.append("subjects fade in every state" if best.fades else "subjects hold")
    if faded := [one.step for one in later if one.fades]:
        found[-1] += f" and fade from step {faded[0]:,} on"
    found.append(f"{len(best.copies)} pictures may be copies" if best.copies else "no copies")
    return found


def _listed(steps: Sequence[int]) -> str:
    shown = [f"{step:,}" for step in steps]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
