"""What a base model predicts and how its noise ends, and how that is known: from the user, from marks in its files, or
from its own answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from lora_studio.diffusion import edm
from lora_studio.diffusion import registry as processes
from lora_studio.diffusion.edm import ContinuousVelocity
from lora_studio.diffusion.flow import RectifiedFlow
from lora_studio.diffusion.gaussian import Epsilon, Velocity
from lora_studio.errors import ModelError
from lora_studio.events import Warned
from lora_studio.families.family import Family
from lora_studio.families.marks import EDM_MARKS, PLAYGROUND_MARK, V_MARK, ZERO_SNR_MARK, claims
from lora_studio.language import both, declared, tr

if TYPE_CHECKING:
    from lora_studio.models.base import Base
    from lora_studio.models.weights import Weights

ZERO_SNR = "rescale_betas_zero_snr"
"""As a scheduler's configuration names it."""
_SURE = (0.3, 0.97)
"""A correlation between these tells neither velocity nor noise with certainty. Measured on the starter, which predicts
v: 0.05 as it is, 0.9997 with its answer turned into ε, 0.92 with it turned into a rectified flow's.
"""


@dataclass(frozen=True)
class NoiseChoice:
    """What the user says of a base model, as the settings of the same names."""

    prediction: str = "auto"
    zero_snr: str = "auto"
    flow_shift: float = 0.0


@dataclass(frozen=True)
class NoiseMarks:
    """What a model's files say of its noise."""

    schedule: Mapping[str, Any]
    """The scheduler's configuration: its own, or its family's."""
    configured: bool = False
    """Whether the configuration is its own."""
    prediction: str = ""
    """A name of ``diffusion.registry``; empty where nothing is said."""
    source: str = ""
    """What says so, for people."""
    zero_snr: bool | None = None
    """None where nothing is said."""
    zero_snr_source: str = ""
    others: tuple[str, ...] = ()
    """NoiseMarks that say otherwise, for people."""


def of_file(family: Family, weights: Weights) -> NoiseMarks:
    """What the header of a single file says: its metadata and its empty tensors.

    Raises:
        ModelError: the file is of a noise process that the studio does not have, or of noise that no model has.
    """
    if PLAYGROUND_MARK in weights.shapes:
        raise _playground(weights.paths[0])
    if EDM_MARKS["sigma_max"] in weights.shapes:
        schedule = _edm_schedule(weights)
        return NoiseMarks(schedule, False, ContinuousVelocity.name, _mark(EDM_MARKS["sigma_max"]))
    said = list(claims(weights.shapes, weights.metadata))
    name, source = said[0] if said else ("", "")
    zero_snr, zero_snr_source = _zero_snr_of(weights)
    return NoiseMarks(
        family.config("scheduler"),
        prediction=name,
        source=source,
        zero_snr=zero_snr,
        zero_snr_source=zero_snr_source,
        others=tuple(
            tr("{source} says {prediction}", source=where, prediction=other) for other, where in said if other != name
        ),
    )


def of_folder(family: Family, schedule: Mapping[str, Any], where: Any) -> NoiseMarks:
    """What the configuration of a folder's scheduler says.

    Raises:
        ModelError: it is of a noise process that the studio does not have, or of noise that no model has.
        SettingsError: the studio cannot train what it predicts.
    """
    if str(schedule.get("_class_name", "")).startswith("EDM") and not ContinuousVelocity.owns(schedule):
        raise _playground(where)
    source, ends = tr("its scheduler's configuration"), schedule.get(ZERO_SNR)
    if ContinuousVelocity.owns(schedule):
        _require_ends(schedule, where, source)
    name = family.process(schedule).name
    return NoiseMarks(schedule, True, name, source, None if ends is None else bool(ends), source)


def settle(base: Base, marks: NoiseMarks, choice: NoiseChoice) -> None:
    """Gives ``base`` its noise process, the reason for it, and notices of what is doubtful about it. A model of which
    neither its files nor the user say what it predicts is asked: one forward pass.

    Raises:
        SettingsError: the studio cannot train what ``choice`` names.
    """
    name, reason = choice.prediction, tr("set by hand")
    if name == "auto":
        name, reason = (marks.prediction, marks.source) if marks.prediction else _asked(base)
    name = name if choice.prediction == "auto" else processes.named(name).name
    ends, why = _ends_in_noise(base.family, marks, choice, name)
    schedule = dict(marks.schedule)
    if ContinuousVelocity.owns(schedule) and name != ContinuousVelocity.name:
        schedule = base.family.config("scheduler")  # that one has no betas
    if ends != bool(schedule.get(ZERO_SNR)):
        schedule[ZERO_SNR] = ends
    if base.distilled and not marks.configured:
        schedule["timestep_spacing"] = "trailing"  # few steps must begin in pure noise (Lin et al. 2024, §3.3)
    if choice.flow_shift:
        schedule["shift"] = choice.flow_shift
    own = marks.configured and choice.prediction == "auto"
    base.process = base.family.process(schedule, "auto" if own else name)
    base.reason = _with_end(reason, ends, why) if why and why != reason else reason
    base.notices += _doubts(base, marks, choice)
    if base.distilled:
        base.notices.append(base.distilled.notice)
    if not marks.configured:
        side = base.family.native_size(base.process.name, base.family.latent_side(base.unet.config))
        base.unet.register_to_config(sample_size=side)


@torch.no_grad()
def likeness(base: Base) -> float:
    """The correlation, −1 … 1, of the model's answer to pure noise at the last timestep with that noise; NaN where the
    answer is not finite.

    There x_t is all but noise, so a model that predicts ε answers with x_t itself. v is −x₀ there, which is hardly
    related to it. The direction of a rectified flow, ε − x₀, is like the noise too, but less.
    """
    noise = torch.randn(1, base.channels, 32, 32, generator=torch.Generator().manual_seed(0))
    last = torch.tensor([base.process.timesteps - 1], device=base.device)
    answer = base.predict(noise, last, base.encode_text([""])).cpu()
    return torch.corrcoef(torch.stack([answer.flatten(), noise.flatten()]))[0, 1].item()


def _zero_snr_of(weights: Weights) -> tuple[bool | None, str]:
    if ZERO_SNR_MARK in weights.shapes:
        return True, _mark(ZERO_SNR_MARK)
    told = weights.metadata.get("ss_zero_terminal_snr", "").lower()
    if told in ("true", "false"):
        return told == "true", tr("the file's {entry}", entry="ss_zero_terminal_snr")
    if V_MARK not in weights.shapes:
        return None, ""
    return False, tr("its mark {mark} comes without {other}", mark=V_MARK, other=ZERO_SNR_MARK)


def _mark(mark: str) -> str:
    return tr("the file's mark {mark}", mark=mark)


def _with_end(reason: str, ends: bool, why: str) -> str:
    if ends:
        return tr("{reason}; zero terminal SNR on: {why}", reason=reason, why=why)
    return tr("{reason}; zero terminal SNR off: {why}", reason=reason, why=why)


def _ends_in_noise(family: Family, marks: NoiseMarks, choice: NoiseChoice, name: str) -> tuple[bool, str]:
    """Whether the noise ends without any signal, and why; the reason is empty where nothing has to be said."""
    if name not in (Epsilon.name, Velocity.name):
        return False, ""
    if choice.zero_snr in ("on", "off"):
        return choice.zero_snr == "on", tr("set by hand")
    if marks.zero_snr is not None:
        doubtful = name == Velocity.name and not marks.configured
        return marks.zero_snr, marks.zero_snr_source if marks.zero_snr or doubtful else ""
    explicit = marks.configured and marks.prediction == name
    assumed = family.v_ends_in_noise and choice.zero_snr == "auto"
    if name == Velocity.name and assumed and not explicit:
        return True, tr("as nearly all models of {family} that predict v", family=family.title)
    return False, ""


def _asked(base: Base) -> tuple[str, str]:
    like = likeness(base)
    if like != like:  # NaN
        default = processes.process_of(base.family.config("scheduler")).name
        answer = tr("the model answered pure noise with numbers that are not finite")
        base.notices.append(_uncertain(default, answer, tr("Its weights may be damaged: choose another copy of it.")))
        return default, tr("as its family; its own answer is not finite")
    name = Epsilon.name if like > 0.5 else Velocity.name
    answer = tr("the model answered pure noise with something else (correlation {correlation:.2f})", correlation=like)
    if like > 0.5:
        answer = tr("the model answered pure noise with that noise (correlation {correlation:.2f})", correlation=like)
    if _SURE[0] < like < _SURE[1]:
        base.notices.append(_uncertain(name, answer, tr("A rectified flow answers so too.")))
    return name, answer


def _uncertain(name: str, answer: str, why: str) -> Warned:
    return Warned(
        what=tr(
            "What the base model predicts is uncertain: {answer}. It is taken for a model that predicts {prediction}.",
            answer=answer,
            prediction=name,
        ),
        where="prediction",
        do=tr(
            "{why} If its author says what it predicts, set prediction to one of: {names}.",
            why=why,
            names=", ".join(processes.NAMES),
        ),
    )


def _doubts(base: Base, marks: NoiseMarks, choice: NoiseChoice) -> Iterator[Warned]:
    """What contradicts itself, or has no effect."""
    process = base.process
    if choice.prediction != "auto" and marks.prediction and marks.prediction != process.name:
        yield Warned(
            what=tr(
                "prediction is {chosen} by hand, but {source} says {prediction}.",
                chosen=process.name,
                source=marks.source,
                prediction=marks.prediction,
            ),
            where="prediction",
            do=tr("Set it to auto if the results are noise."),
        )
    if choice.prediction == "auto" and marks.others:
        yield Warned(
            what=tr(
                "The base model's marks disagree: {source} says {prediction}, {others}.",
                source=marks.source,
                prediction=marks.prediction,
                others=", ".join(map(str, marks.others)),
            ),
            where="prediction",
            do=tr(
                "It is taken for {prediction}. Set prediction if its author says otherwise.",
                prediction=marks.prediction,
            ),
        )
    if process.zero_snr and process.name == Epsilon.name:
        yield Warned(
            what=tr(
                "The noise ends without any signal (zero terminal SNR), and the model predicts ε: at the last "
                "timestep its answer tells nothing about the picture."
            ),
            where="zero_snr",
            do=tr("Set zero_snr to off, or prediction to v if that is what the model predicts."),
        )
    gaussian = process.name in (Epsilon.name, Velocity.name)
    if choice.zero_snr == "on" and not gaussian:
        yield Warned(
            what=tr(
                "{setting} has no effect on a model of this noise process ({process}).",
                setting="zero_snr",
                process=declared(process.title),
            ),
            where="zero_snr",
            do=tr("Set it to auto."),
        )
    if choice.flow_shift and process.name != RectifiedFlow.name:
        yield Warned(
            what=tr(
                "{setting} has no effect on a model of this noise process ({process}).",
                setting="flow_shift",
                process=declared(process.title),
            ),
            where="flow_shift",
            do=tr("Set it to 0, or prediction to flow if the model is a rectified flow."),
        )


def _edm_schedule(weights: Weights) -> dict[str, Any]:
    """The scheduler's configuration that a file of CosXL's kind stands in for."""
    path, found = weights.paths[0], {}
    with safe_open(path, framework="pt") as file:
        for name, mark in EDM_MARKS.items():
            if mark in weights.shapes:
                value = file.get_tensor(mark)
                found[name] = float(value) if value.numel() == 1 else math.nan
    made = {"_class_name": edm.CLASS, "prediction_type": "v_prediction", "sigma_data": 1.0, **found}
    _require_ends(made, path, both(EDM_MARKS[name] for name in found))
    return made


def _require_ends(schedule: Mapping[str, Any], where: Any, source: str) -> None:
    """Raises ModelError where no model was trained between the ends of σ that ``source`` gives."""
    smallest, largest = ContinuousVelocity(schedule).sigmas
    if not 0 < smallest < largest <= edm.LARGEST:
        raise ModelError(
            tr(
                "{name} says in {source} that its noise goes from {smallest:g} to {largest:g}, which makes no sense.",
                name=where.name,
                source=source,
                smallest=smallest,
                largest=largest,
            ),
            where=where,
            do=tr("Download it again, or choose another base model."),
        )


def _playground(where: Any) -> ModelError:
    return ModelError(
        tr(
            "{name} is Playground 2.5 or a model like it, whose noise process (EDM, Karras et al. "
            "2022) and latents the studio cannot train.",
            name=where.name,
        ),
        where=where,
        do=tr("Choose a model that predicts noise, velocity or a rectified flow."),
    )
