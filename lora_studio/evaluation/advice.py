"""Which saved state to keep, by what was judged, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_studio.evaluation.judgements import Judgement
from lora_studio.evaluation.value import STYLE_SCALE, number
from lora_studio.language import both, in_row, in_sequence, ntr, tr
from lora_studio.language import number as said

UNSOUND = tr("In no state do subjects hold without copies: look at its pictures.")


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
        reasons = in_row(self.reasons)
        told = [tr("Keep step {step:,}: {reasons}.", step=self.step, reasons=reasons)]
        if not self.sound:
            told = [UNSOUND, tr("Step {step:,} has most of the style: {reasons}.", step=self.step, reasons=reasons)]
        if others:
            told.append(
                ntr(
                    len(others),
                    "Its style cannot be told from that of step {steps}.",
                    "Its style cannot be told from that of steps {steps}.",
                    steps=both(said(step, ",") for step in others),
                )
            )
        return in_sequence(told)


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
    style = tr("style {value} %", value=number(value))
    if margin:
        style = tr("style {value} % ({margin})", value=number(value), margin=margin)
    if later and not better:
        style = tr("{style}, no better later", style=style)
    subjects = best.told_subjects
    if len(ordered) > 1 and all(one.fades for one in ordered):
        subjects = tr("{subjects} in every state", subjects=subjects)
    if not best.fades and (faded := [one.step for one in later if one.fades]):
        subjects = tr("{subjects}, but fade from step {step:,} on", subjects=subjects, step=faded[0])
    return [style, subjects, best.told_copies]
