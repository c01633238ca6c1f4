"""What is judged while training, and which state the run's adapter is."""

from __future__ import annotations

from typing import ClassVar

from pydantic import field_validator

from lora_studio.config.declaration import Choice, Group, Level, NamedChoice, SettingsSlice, setting
from lora_studio.language import tr


def _kept() -> list[Choice]:
    return [
        NamedChoice("last", "Last"),
        NamedChoice("best", "Best", "the judged state with most of the style, of those whose subjects hold"),
    ]


class EvaluationSettings(SettingsSlice):
    """What is judged while training, and which state the run's adapter is."""

    group: ClassVar[Group] = Group.EVALUATION

    evaluate_every: int = setting(
        0,
        "Judge every",
        "Steps between states that are judged by what they draw; the last one is judged too. 0 judges none: the Judge "
        "button does it afterwards.",
        Level.ADVANCED,
        "steps",
        ge=0,
        le=1_000_000,
    )
    keep: str = setting(
        "last",
        "Adapter",
        "Which state becomes the run's adapter; the last one stays a saved state. If Judge every is 0, Best judges "
        "every state that Save every saves.",
        choices=_kept,
    )
    evaluation_prompts: list[str] = setting(
        list,
        "Judging prompts",
        "What is drawn to judge a state, two prompts or more, without the trigger word; if empty, plain subjects that "
        "no caption names.",
    )
    evaluation_seeds: int = setting(
        2,
        "Pictures of each prompt",
        "How many are drawn to judge a state; more tell states apart better.",
        ge=2,
        le=16,
    )

    @field_validator("evaluation_prompts")
    @classmethod
    def _require_two(cls, value: list[str]) -> list[str]:
        if len(set(map(str.strip, value))) == 1:
            raise ValueError(
                tr("what one prompt shows is seen against others, so name two different ones or more, or none")
            )
        return value
