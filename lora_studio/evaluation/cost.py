"""How many pictures judging draws, which is nearly all that it costs. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from lora_studio.config.settings import Settings
from lora_studio.evaluation.judgements import PROMPTS

REFERENCES = 2
"""Pictures of the base model of each prompt and caption that others are compared with, at least 2. Their seeds are not
those that are judged: what the same noise leads to is alike whatever the prompt says.
"""
CAPTIONS = 24
"""Captions of which the base model draws pictures, at most."""
CAPTIONS_ASKED = 8
"""Captions of training pictures that are drawn to see which pictures are memorized, at most."""
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
STRENGTH_SEEDS = 1
"""Of each prompt at each strength. Two narrow the intervals little, which come from the prompts, and double the time.
"""


def of_a_state(settings: Settings, captions: int, prompts: Sequence[str] = (), seeds: int = 0) -> int:
    """Pictures drawn to judge one state. ``captions``: how many the run has; ``prompts`` and ``seeds`` in place of
    those of ``settings``.
    """
    new = _prompts(settings, prompts) * (seeds or settings.evaluation.evaluation_seeds)
    return new * (2 if settings.run.trigger else 1) + min(CAPTIONS_ASKED, captions)


def of_the_base(settings: Settings, captions: int, prompts: Sequence[str] = (), seeds: int = 0) -> int:
    """Pictures of the base model that are drawn once before, as in ``of_a_state``."""
    count = _prompts(settings, prompts)
    drawn = count * (seeds or settings.evaluation.evaluation_seeds)
    return drawn + (count + min(CAPTIONS, captions)) * REFERENCES


def of_strengths(settings: Settings, prompts: Sequence[str] = ()) -> int:
    """Pictures drawn to find the strengths at which a state holds."""
    return _prompts(settings, prompts) * len(STRENGTHS) * STRENGTH_SEEDS


def _prompts(settings: Settings, prompts: Sequence[str]) -> int:
    return len(prompts or settings.evaluation.evaluation_prompts) or PROMPTS
