"""What a run or a job reports: one small record for each occurrence. Training has no other output.

A worker appends each as one line of JSON to ``events.jsonl``; the page and the command line fold that file.
Every record carries ``kind`` (its tag) and ``at`` (seconds since the epoch).
"""

from __future__ import annotations

import json
import time
from enum import StrEnum
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lora_studio.errors import StudioError
from lora_studio.language import Told, number, tr
from lora_studio.language.handover import handed


class State(StrEnum):
    """The state of a run. Only its worker changes it; where there is no worker, the parent that is about to start one,
    or that finds it dead.
    """

    QUEUED = "queued"
    """Waiting for the device, behind the runs that were started before."""
    PREPARING = "preparing"
    """Reading pictures, loading the base model, encoding."""
    RUNNING = "running"
    """Training."""
    PAUSED = "paused"
    """Waiting between two steps for the user."""
    STOPPING = "stopping"
    """Asked to stop: saving what has been learned."""
    FINISHED = "finished"
    """Ended with an adapter: at the last step or where the user stopped it."""
    FAILED = "failed"
    """Ended by an error; the saved states are kept."""
    INTERRUPTED = "interrupted"
    """The worker vanished (killed, power cut), or left the queue before its turn; the saved states are kept."""

    @property
    def ended(self) -> bool:
        return self in (State.FINISHED, State.FAILED, State.INTERRUPTED)


class Event(BaseModel):
    """What all events have in common."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")

    at: float = Field(default_factory=time.time)

    def line(self) -> str:
        """The event as one line of JSON, without the newline."""
        return self.model_dump_json()

    def printed(self) -> str:
        """The event as one line of JSON that a command prints: for the studio as ``line``, for other programs with its
        texts in English.
        """
        return json.dumps(handed(json.loads(self.line())), ensure_ascii=False, separators=(",", ":"))


class StateChanged(Event):
    """The run is in another state.

    Attributes:
        asked: it was interrupted since it was asked to stop before its first step.
    """

    kind: Literal["state"] = "state"
    state: State
    asked: bool = False


class Preparing(Event):
    """Progress of the preparation: ``done`` of ``total`` items of ``stage``."""

    kind: Literal["preparing"] = "preparing"
    stage: Told
    done: int
    total: int


class BaseLoaded(Event):
    """The base model ``name`` of ``family`` is in memory. ``predicts`` is what it predicts, ``reason`` how that is
    known. All of them are for people.
    """

    kind: Literal["base"] = "base"
    name: str
    family: Told
    predicts: Told
    reason: Told

    @property
    def finding(self) -> str:
        """What it predicts, with the reason."""
        predicts, reason = self.predicts, self.reason
        return tr("{predicts} – {reason}", predicts=predicts, reason=reason) if reason else predicts

    @property
    def sentence(self) -> str:
        return tr(
            "Base model {name}, {family}. It predicts: {finding}.",
            name=self.name,
            family=self.family,
            finding=self.finding,
        )


class Started(Event):
    """Training begins at ``first_step`` (0 for a new run) of ``total_steps``."""

    kind: Literal["started"] = "started"
    total_steps: int
    first_step: int = 0
    images: int
    validation_images: int = 0
    class_images: int = 0
    """Pictures of regularisation folders, which ``images`` does not count."""
    pairs: int = 0
    """Of prompts, for a run without pictures."""
    device: Told
    precision: str
    parameters: int
    """Trainable parameters."""
    modules: int
    """Adapted modules."""
    engine: Told = ""
    """How a GPU takes the steps, for people."""


class RateFound(Event):
    """Before the first step, learning rates from ``low`` to ``high`` were tried. The run trains with ``rate``: the one
    that was ``found``, or that of its settings where none lowered the loss.
    """

    kind: Literal["rate_found"] = "rate_found"
    rate: float
    found: bool = True
    low: float
    high: float
    rates: tuple[float, ...] = ()
    """Those that were tried until the loss grew too high, smoothed."""
    losses: tuple[float, ...] = ()
    """The mean loss around each of ``rates``."""

    @property
    def sentence(self) -> str:
        rate, low, high = (f"{one:.2g}".replace("e-0", "e-") for one in (self.rate, self.low, self.high))
        if self.found:
            return tr("Found the learning rate {rate} between {low} and {high}.", rate=rate, low=low, high=high)
        return tr(
            "No learning rate between {low} and {high} lowered the loss clearly: it stays {rate}.",
            low=low,
            high=high,
            rate=rate,
        )


class LayersSeen(Event):
    """Before the first step, ``samples`` passed through the model, and the adapter starts along ``what`` its layers
    saw of them. ``layers`` of ``of`` saw anything; the others start as at random.
    """

    kind: Literal["layers_seen"] = "layers_seen"
    what: Literal["inputs", "gradients"]
    layers: int
    of: int
    samples: int
    """Pictures, or prompts of pairs, at a noise level each."""
    seconds: float
    memory: int
    """Bytes that were held for it, beside the model."""

    @property
    def sentence(self) -> str:
        of = number(self.of) if self.layers == self.of else tr("{layers:,} of {of:,}", layers=self.layers, of=self.of)
        measured = {"of": of, "samples": self.samples, "seconds": self.seconds, "size": self.memory / 2**20}
        if self.what == "inputs":
            return tr(
                "Looked at the inputs of {of} layers over {samples} samples, in {seconds:.0f} s with {size:,.0f} MB: "
                "the adapter starts along them.",
                **measured,
            )
        return tr(
            "Looked at the gradients of {of} layers over {samples} samples, in {seconds:.0f} s with {size:,.0f} MB: "
            "the adapter starts along them.",
            **measured,
        )


class StepDone(Event):
    """One optimizer step; ``loss`` is the mean over its batch, ``eta`` and ``seconds`` in seconds."""

    kind: Literal["step"] = "step"
    step: int
    loss: float
    learning_rate: float
    gradient_norm: float = 0.0
    images_per_second: float = 0.0
    seconds: float = 0.0
    """Time spent training so far."""
    eta: float = 0.0


class Validated(Event):
    """Loss over the validation images, at fixed noise and timesteps."""

    kind: Literal["validated"] = "validated"
    step: int
    loss: float


class Measured(Event):
    """A value that was measured of the adapter as it is at ``step``, with an interval where it has one."""

    kind: Literal["measured"] = "measured"
    step: int
    name: str
    title: Told
    """For people."""
    value: float
    low: float | None = None
    high: float | None = None


class JudgingStarted(Event):
    """A judging job begins to work, or continues, on ``total`` states. Then it measures strengths, which is as much
    work as ``strengths`` states; 0 if it does not.
    """

    kind: Literal["judging"] = "judging"
    total: int
    strengths: float = 0.0


class Judged(Event):
    """The state of ``step`` was judged by what it draws: a summary of ``evaluation.judgements.Judgement``. The file
    beside its pictures has all of it.
    """

    kind: Literal["judged"] = "judged"
    step: int
    style: float
    """In per cent."""
    low: float
    high: float
    """Ends of the interval of ``style``."""
    subject: float
    level: float
    """The training pictures' own ``subject``."""
    fades: bool
    """Whether subjects have faded, beyond doubt."""
    drift: float
    copies: int
    """Pictures of new prompts that may be copies of training pictures."""
    memorized: int = 0
    """Training pictures that came back when they were asked for by their captions, of ``asked``."""
    asked: int = 0
    seconds: float = 0.0
    """What it took; 0 where it had been judged before."""


class StateKept(Event):
    """The run's adapter is that of ``step``, and not of the last one; ``what`` says why, for people."""

    kind: Literal["kept"] = "kept"
    step: int
    what: Told


class PreviewReady(Event):
    """An image was drawn, to ``path`` (relative to the run's folder). ``base`` marks one without the adapter."""

    kind: Literal["preview"] = "preview"
    step: int
    index: int
    prompt: str
    seed: int
    path: str
    base: bool = False


class CheckpointSaved(Event):
    """The run can be resumed from ``path`` (relative to the run's folder)."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    seconds: float = 0.0


class RolledBack(Event):
    """Step ``failed_step`` was NaN or infinite: training went back to ``step`` and continues at ``factor`` times the
    learning rate.
    """

    kind: Literal["rolled_back"] = "rolled_back"
    step: int
    failed_step: int
    factor: float
    what: Told


class Warned(Event):
    """Something the user should know; training continues."""

    kind: Literal["warned"] = "warned"
    what: Told
    where: Told = ""
    do: Told = ""


class CaptioningStarted(Event):
    """A captioning job begins to work, or continues: ``done`` of ``total`` pictures have been captioned before."""

    kind: Literal["captioning"] = "captioning"
    done: int
    total: int
    model: str
    """For people."""
    device: Told
    tags: bool = False
    """Whether it writes tags with commas between them, and no sentences."""


class Captioned(Event):
    """A captioning job looked at the picture ``name``, relative to its dataset, and would write ``text``; it may be
    empty. ``cut`` marks a caption that ends because it became too long.
    """

    kind: Literal["captioned"] = "captioned"
    name: str
    text: str
    cut: bool = False


class CaptionsWritten(Event):
    """A captioning job wrote the captions of the pictures ``written`` into the dataset. Those of ``kept`` it left as
    they were: someone wrote them meanwhile, or they had all that it would add.
    """

    kind: Literal["captions_written"] = "captions_written"
    written: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


class Finished(Event):
    """The run ended with an adapter at ``adapter`` (relative to the run's folder)."""

    kind: Literal["finished"] = "finished"
    adapter: str
    steps: int
    seconds: float
    final_loss: float
    stopped: bool = False
    """Whether the user stopped it before its last step."""


class Failed(Event):
    """The run ended with an error. ``ours`` marks a bug in the studio rather than in its input; ``changes`` are
    settings that would fix the error.
    """

    kind: Literal["failed"] = "failed"
    what: Told
    where: Told = ""
    do: Told = ""
    ours: bool = False
    changes: dict[str, Any] = {}

    @classmethod
    def of(cls, error: BaseException) -> "Failed":
        if isinstance(error, StudioError):
            return cls(what=error.what, where=error.where, do=error.do, changes=error.details.get("changes", {}))
        return cls(
            what=tr("Internal error: {name}: {error}", name=type(error).__name__, error=error),
            where="worker.log",
            do=tr("This is a bug in the studio. The run's worker.log has the details; what was saved is intact."),
            ours=True,
        )


AnyEvent = Annotated[
    Union[
        StateChanged,
        Preparing,
        BaseLoaded,
        Started,
        LayersSeen,
        RateFound,
        StepDone,
        Validated,
        Measured,
        JudgingStarted,
        Judged,
        StateKept,
        PreviewReady,
        CheckpointSaved,
        RolledBack,
        Warned,
        CaptioningStarted,
        Captioned,
        CaptionsWritten,
        Finished,
        Failed,
    ],
    Field(discriminator="kind"),
]
_any_event: TypeAdapter[Event] = TypeAdapter(AnyEvent)


def parse(line: str | bytes) -> Event:
    """The event that one line of JSON holds.

    Raises:
        ValueError: the line is torn or holds no event (pydantic's ValidationError is one).
    """
    return _any_event.validate_json(line)
