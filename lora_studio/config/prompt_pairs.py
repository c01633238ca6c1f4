"""Which settings mean nothing to a run of prompt pairs, or to one of pictures."""

from __future__ import annotations

from collections.abc import Iterator

from lora_studio.config.slices import (
    AdapterSettings,
    AugmentationSettings,
    DatasetSettings,
    EvaluationSettings,
    LossSettings,
    NoiseSettings,
    RunSettings,
    SliderSettings,
)
from lora_studio.language import declared, tr
from lora_studio.methods import registry as methods

_OF_PAIRS = tuple(SliderSettings.model_fields)
_OF_BOTH = ("resolution", "caption_tokens", "clip_skip", "prediction", "zero_snr", "flow_shift")
_OF_PICTURES = tuple(
    key
    for part in (DatasetSettings, AugmentationSettings, NoiseSettings, LossSettings)
    for key in part.model_fields
    if key not in _OF_BOTH
)


def refusal(run: RunSettings, adapter: AdapterSettings, loss: LossSettings, evaluation: EvaluationSettings) -> str:
    """Why a run cannot train on prompt pairs with these settings, and what to set instead: a sentence without its full
    stop. Empty if it can, and for a run of pictures.
    """
    return next(_refusals(run, adapter, loss, evaluation), "") if run.has_pairs else ""


def _refusals(
    run: RunSettings, adapter: AdapterSettings, loss: LossSettings, evaluation: EvaluationSettings
) -> Iterator[str]:
    method = methods.get(adapter.method)
    if not method.cappable:
        yield tr(
            "a slider also trains at weight −1, which {method} has no opposite for: set method to lora",
            method=declared(method.title),
        )
    if adapter.train_text:
        yield tr("prompt pairs are read by the base model's own text encoders: set train_text to off")
    if adapter.tokens:
        yield tr("a run of prompt pairs has no captions to learn a word from: set learned_tokens to 0")
    if loss.preserve_weight:
        yield tr("preserve_weight holds the captions of pictures, and prompt pairs have none: set it to 0")
    if run.trigger.strip():
        yield tr("prompt pairs are read as they are written, without a trigger word: leave trigger empty")
    if run.epochs:
        yield tr(
            "epochs count pictures, and prompt pairs have none: set epochs to 0, and steps to the length of the run"
        )
    if evaluation.evaluate_every or evaluation.keep == "best":
        yield tr(
            "states are judged by the pictures that they were trained on, and prompt pairs have none: set "
            "evaluate_every to 0 and keep to last"
        )


def idle(run: RunSettings) -> tuple[str, ...]:
    """The settings that mean nothing to what ``run`` trains on; none where that is not named yet."""
    if not run.data.strip():
        return ()
    return _OF_PICTURES if run.has_pairs else _OF_PAIRS
