"""Judging while training: at every multiple of ``evaluate_every`` and at the end, as ``judge`` does it afterwards.

What is judged is the adapter as it was written, on the base model alone: not what is under training, which may be
exported as something else. Nothing of the session changes but where its encoders are.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import suppress

from lora_studio import files
from lora_studio.evaluation import judgements
from lora_studio.evaluation.advice import advise
from lora_studio.evaluation.bench import Bench, Cancelled
from lora_studio.evaluation.judgements import ADAPTER, JudgingPlan
from lora_studio.events import Event, Preparing, StateKept, Warned
from lora_studio.language import in_sequence, tr
from lora_studio.training import devices, exceptions, export, previews
from lora_studio.training.requests import Requests
from lora_studio.training.session import Session

_WRITTEN = "unjudged.safetensors"
"""The adapter, until it is judged."""
_FAILURES = 2
"""So many in a row, and judging is off."""


class Evaluations:
    """Judges the present state of ``session``. Whatever fails is a warning; after ``_FAILURES`` in a row no more states
    are judged, until the run is resumed. While the run is asked to stop, a state is left unjudged.
    """

    def __init__(self, session: Session, requests: Requests):
        self.session, self.requests = session, requests
        self.settings = session.settings.evaluation
        self.every = self.settings.evaluate_every
        """Steps between two of them; to keep the best state, those between saved states if nothing else is said."""
        if self.settings.keep == "best":
            self.every = self.every or session.settings.saving.checkpoint_every
        self.place = judgements.folder(session.run)
        self.seconds = 0.0
        """How long judging a state takes, as far as that is known."""
        self._bench: Bench | None = None
        self._failures = 0
        """In a row."""
        self._ending = False
        """Whether everything is trained and saved, so that not even a lost device can do harm."""

    def begin(self) -> Iterator[Event]:
        """Draws the base model's pictures, or reads them; and judges the state that a run resumes from, where it was
        killed before that was done.
        """
        if not self.every:
            return
        yield from self._guarded(self._prepared(), tr("Judging could not be prepared"))
        if self.due() and not self.session.finished:
            yield from self.judge()

    def due(self) -> bool:
        """Whether the present step is one to judge."""
        step = self.session.step
        return self.every > 0 and step > 0 and step % self.every == 0

    def seconds_left(self) -> float:
        """How long the evaluations to come will take, that of the last step included."""
        every, step, last = self.every, self.session.step, self.session.settings.run.steps
        if not every or step >= last:
            return 0.0
        return self.seconds * (last // every - step // every + (last % every > 0))

    def judge(self) -> Iterator[Event]:
        """Judges the present state and keeps it, or finds that it was judged before.

        Raises:
            RuntimeError: the device was lost before the last step, so that nothing can continue.
        """
        yield from self._guarded(
            self._judged(), tr("The state of step {step} could not be judged", step=self.session.step)
        )

    def last(self) -> Iterator[Event]:
        """Judges the last state; then the run's adapter becomes the best one, where that is wanted: a run that was
        stopped judges its last state for that too, until it is asked again.
        """
        self._ending = True
        if self.settings.keep == "best":
            self.requests.take_stop()
        if self.every and self.session.step:
            yield from self.judge()
        if self.settings.keep == "best":
            yield from self._guarded(self._keep_best(), tr("The best state could not become the run's adapter"))

    def _guarded(self, events: Iterator[Event], what: str) -> Iterator[Event]:
        """Passes on ``events``. An error of any kind becomes a warning that says ``what`` failed."""
        try:
            with suppress(Cancelled):
                yield from events
                self._failures = 0
        except Exception as error:  # judging must never lose the run
            if devices.lost(error) and not self._ending:
                raise
            yield self._failed(error, what)
        finally:
            if not self._ending:
                self.session.base.encoders_to("cpu")

    def _failed(self, error: Exception, what: str) -> Warned:
        warned = exceptions.skipped(error, what, tr("pictures"), self.place)
        self._failures += 1
        if self._failures < _FAILURES or not self.every:
            return warned
        self.every = 0
        off = tr("No more states are judged, since that failed twice in a row; the Judge button does it after the run.")
        return warned.model_copy(update={"do": in_sequence([warned.do, off])})

    def _prepared(self) -> Generator[Event, None, Bench]:
        self.session.stepper.make_room(_needed(self.session))
        if self._bench is None:
            session, how = self.session, self.settings
            dataset = session.data.dataset
            plan = JudgingPlan.of(dataset, how.evaluation_prompts, how.evaluation_seeds)
            cache, stop = session.data.cache, self.requests.stop
            bench = Bench(session.settings, session.base, cache, dataset, plan, self.place, stop)
            yield from bench.prepare()
            self.seconds = bench.base_seconds * bench.pictures_drawn / bench.base_pictures_drawn
            self._bench = bench
        return self._bench

    def _judged(self) -> Iterator[Event]:
        bench, step = (yield from self._prepared()), self.session.step
        began, written = time.monotonic(), judgements.state_folder(self.place, step) / _WRITTEN
        try:
            export.write(self.session, written)
            found = bench.known(step, written)
            if found is None:
                yield Preparing(stage=tr("judging this state"), done=0, total=1)
                found = bench.judge(step, written)
                self.seconds = time.monotonic() - began
                yield judgements.event(found, self.seconds)
            else:
                yield judgements.event(found)
        finally:
            files.unlink(written)

    def _keep_best(self) -> Iterator[Event]:
        session, bench = self.session, self._bench
        known = [one for one in judgements.judged(session.run, bench.key) if one.step <= session.step] if bench else []
        advice = advise(known)
        if advice is None:
            what = tr("No state was judged, so the adapter is that of the last step.")
            yield Warned(
                what=what, where="keep", do=tr("Judge it with python3 app.py judge {name}", name=session.run.name)
            )
        elif advice.step == session.step:
            yield StateKept(
                step=advice.step, what=tr("The adapter is that of the last step. {sentence}", sentence=advice.sentence)
            )
        else:
            source = judgements.state_folder(self.place, advice.step) / ADAPTER
            files.copy(source, session.run.adapter_file)
            yield StateKept(
                step=advice.step,
                what=tr(
                    "The adapter is that of step {step:,}, and not of the last one. {sentence}",
                    step=advice.step,
                    sentence=advice.sentence,
                ),
            )


def _needed(session: Session) -> int:
    """Bytes on the device for the VAE that decodes a picture, or for the text encoders before it."""
    encoders = session.base.text_encoders.values()
    texts = sum(parameter.nbytes for encoder in encoders for parameter in encoder.parameters())
    return max(previews.decoding(session.base, session.preview_side), texts)
