"""Which saved state to keep, by what was judged, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_studio.evaluation.judgements import Judgement
from lora_studio.evaluation.value import STYLE_SCALE, number

UNSOUND = "In no state do subjects hold without copies: look at its pictures."


@dataclass(frozen=True)
class Advice:
    """The state to keep.

    Attributes:
        alike: steps whose style cannot be told from its own, itself included: the interval of the difference holds 0.
        reasons: what speaks for it, in half sentences.
        freer: the state before it, which follows prompts more freely, if there is one; ``tighter`` the one after it.
        sound: whether its subjects hold and it copied nothing; False where that is so in no state.
    """

    step: int
    alike: tuple[int, ...]
    reasons: tuple[str, ...]
    freer: int | None
    tighter: int | None
    sound: bool = True

    @property
    def sentence(self) -> str:
        """For people."""
        others = [step for step in self.alike if step != self.step]
        unsure = (
            f" Its style cannot be told from that of step{'s' * (len(others) > 1)} {_listed(others)}." if others else ""
        )
        keep = f"Keep step {self.step:,}" if self.sound else f"{UNSOUND} Step {self.step:,} has most of the style"
        return f"{keep}: {'; '.join(self.reasons)}.{unsure}"


def advise(judged: Sequence[Judgement]) -> Advice | None:
    """The state with most of the style among those whose subjects hold and that copied nothing; where there is none,
    among all. None if nothing was judged.
    """
    if not judged:
        return None
    ordered = sorted(judged, key=lambda one: one.step)
    sound = [one for one in ordered if not one.fades and not one.copied]
    best = max(sound or ordered, key=lambda one: one.style.value)
    steps = [one.step for one in ordered]
    place = steps.index(best.step)
    alike = tuple(one.step for one in ordered if _same(one, best))
    return Advice(
        best.step,
        alike,
        tuple(_reasons(best, ordered)),
        steps[place - 1] if place else None,
        steps[place + 1] if place + 1 < len(steps) else None,
        bool(sound),
    )


def _same(one: Judgement, other: Judgement) -> bool:
    """Whether two states' styles cannot be told apart, by a paired bootstrap."""
    first, second = one.samples["style"], other.samples["style"]
    if len(first) != len(second):
        return True
    low, high = np.quantile(np.subtract(first, second), [0.025, 0.975])
    return bool(low <= 0 <= high)


def _reasons(best: Judgement, ordered: Sequence[Judgement]) -> list[str]:
    value, margin = best.style.value, best.style.margin(STYLE_SCALE)
    later = [one for one in ordered if one.step > best.step]
    better = [one for one in later if one.style.value > value]
    found = [
        f"style {number(value)} %{f' ({margin})' * bool(margin)}"
        + (", no better later" if later and not better else "")
    ]
    everywhere = " in every state" if all(one.fades for one in ordered) and len(ordered) > 1 else ""
    found.append(best.told_subjects + everywhere)
    if not best.fades and (faded := [one.step for one in later if one.fades]):
        found[-1] += f", but fade from step {faded[0]:,} on"
    found.append(best.told_copies)
    return found


def _listed(steps: Sequence[int]) -> str:
    shown = [f"{step:,}" for step in steps]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
