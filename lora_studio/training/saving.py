"""Saving a run while it trains: when, what if the disk refuses, and the adapter at its end.

A state is worth more than the adapter, which can be made from it: it is always written first. What fails is a warning,
given once for each cause, and tried again at the next interval; only a full disk makes the run wait.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from lora_studio import files
from lora_studio.errors import MachineError, StudioError
from lora_studio.evaluation import judgements
from lora_studio.events import CheckpointSaved, Event, State, StateChanged, Warned
from lora_studio.files import DiskFull
from lora_studio.language import tr
from lora_studio.methods import registry as methods
from lora_studio.runs import checkpoints
from lora_studio.training import checkpoint, devices, export
from lora_studio.training.requests import Requests
from lora_studio.training.session import Session

T = TypeVar("T")

POLL = 0.2
"""Seconds between two looks whether a wait is over."""
RETRY = 60.0
"""Seconds after which a save is tried again where the free space does not explain that the disk is full, as with a
quota.
"""


class Saver:
    """Saves the checkpoints of ``session``, and its adapter at the end."""

    def __init__(self, session: Session, requests: Requests):
        self.session, self.requests = session, requests
        self._tried = time.monotonic()
        self._told: dict[str, set[object]] = {}
        """What was warned of: causes by what failed."""
        self._adapter_error: Exception | None = None
        self._gave_up = False

    def due(self) -> bool:
        """Whether to save after this step: by steps or by minutes, whichever comes first, so that a slow machine loses
        no more time to a crash than a fast one.
        """
        saving, step = self.session.settings.saving, self.session.step
        by_steps = saving.checkpoint_every > 0 and step % saving.checkpoint_every == 0
        return by_steps or 0 < 60 * saving.checkpoint_minutes <= time.monotonic() - self._tried

    def save(self, afterwards: State = State.RUNNING) -> Iterator[Event]:
        """Saves a checkpoint, then removes those that need not be kept. While the disk is full the run waits.

        Args:
            afterwards: the state of the run after a wait.
        """
        began = self._tried = time.monotonic()
        try:
            path = yield from self._when_there_is_room(self._write, afterwards)
        except DiskFull:  # as was told when the wait began
            return
        except StudioError as error:
            yield from self._warn("state", error)
            return
        finally:
            self._tried = time.monotonic()
        self._told.pop("state", None)
        self.session.saved_step = self.session.step
        yield CheckpointSaved(step=self.session.step, path=self.session.run.relative(path), seconds=self._tried - began)
        if self._adapter_error:
            yield from self._warn("adapter", self._without_adapter(self._adapter_error))
        else:
            self._told.pop("adapter", None)
        yield from self._prune()

    def keep_look(self) -> Iterator[Event]:
        """Keeps the adapter with which the present previews were drawn, and deletes the oldest of those that are more
        than ``keep_previewed``. Whatever fails is a warning.
        """
        session, most = self.session, self.session.settings.saving.keep_previewed
        place = judgements.folder(session.run)
        saved = session.run.checkpoint(session.step) / judgements.ADAPTER
        copies = session.saved_step == session.step and saved.is_file()
        write = partial(files.copy, saved) if copies else partial(export.write, session)
        try:
            if most:
                judgements.keep_unjudged(place, session.step, write)
            judgements.prune_unjudged(place, session.step, most)
        except (StudioError, OSError, RuntimeError, MemoryError) as error:
            if devices.lost(error):
                raise
            yield from self._warn("look", self._without_look(error), cause=error)
        else:
            self._told.pop("look", None)

    def export(self) -> Iterator[Event]:
        """Writes the adapter that the run was for. While the disk is full it waits.

        Raises:
            StudioError: it cannot be written; the error says what is saved.
        """
        try:
            residual = yield from self._when_there_is_room(self._export, State.STOPPING)
        except StudioError as error:
            raise self._with_what_is_saved(error) from error
        if residual:
            title = methods.get(self.session.settings.adapter.method).title
            yield Warned(
                what=tr(
                    "The {title} was exported as a plain LoRA, which differs from it by {residual:.1%}.",
                    title=title,
                    residual=residual,
                ),
                where=self.session.run.adapter_file.name,
                do=tr("All programs read it the same way. A higher rank comes closer."),
            )

    def _write(self) -> Path:
        session, self._adapter_error = self.session, None
        final = session.run.checkpoint(session.step)
        if session.saved_step == session.step and checkpoints.complete(final):
            return final
        try:
            return checkpoint.save(session.run, session.step, session.state(), self._write_adapter, session.about())
        except (RuntimeError, MemoryError) as error:
            if not devices.memory_full(error):
                raise
            what = tr(
                "The state of step {step} could not be saved: there is not enough memory to copy it.", step=session.step
            )
            raise MachineError(what, where=session.run.checkpoints, do=tr("Close other programs.")) from error

    def _write_adapter(self, path: Path) -> None:
        """A state whose adapter cannot be made is saved without it: the run can still be resumed from it."""
        try:
            export.write(self.session, path)
        except (StudioError, OSError, RuntimeError, MemoryError) as error:
            if _full(error) or devices.lost(error):
                raise
            path.unlink(missing_ok=True)
            self._adapter_error = error

    def _export(self) -> float:
        target = self.session.run.adapter_file
        try:
            return export.write(self.session, target)
        except OSError as error:
            raise files.refusal(error, tr("The adapter could not be written"), target) from error

    def _prune(self) -> Iterator[Event]:
        """What cannot be removed now, such as a file that another program has open, is tried again after the next
        save.
        """
        run, saving = self.session.run, self.session.settings.saving
        try:
            self._remove_abandoned()
            checkpoints.prune(run, saving.keep_checkpoints, saving.keep_every)
        except OSError as error:
            refused = files.refusal(error, tr("An old saved state could not be removed"), run.checkpoints)
            yield from self._warn("prune", refused, cause=error)
        except StudioError as error:  # they cannot even be listed
            yield from self._warn("prune", error)
        else:
            self._told.pop("prune", None)

    def _remove_abandoned(self) -> None:
        """After a rollback, states of later steps would be resumed from in place of the one just saved."""
        session = self.session
        for saved in checkpoints.listed(session.run):
            if saved.folder in session.abandoned and saved.step > session.step and not saved.starred:
                files.remove(saved.folder)
        session.abandoned = []

    def _when_there_is_room(self, act: Callable[[], T], afterwards: State) -> Generator[Event, None, T]:
        """The result of ``act``. While the disk is full the run waits, paused, and tries again: what it learned since
        the last save is in memory alone.

        Raises:
            DiskFull: it was asked to stop while it waited.
        """
        while True:
            try:
                result = act()
            except DiskFull as error:
                if self._gave_up:
                    raise
                if afterwards is State.STOPPING:
                    self.requests.take_stop()  # the one that ended the run; another one ends the wait
                yield from self._wait_for_room(error, afterwards)
                if self.requests.stop():
                    self._gave_up = afterwards is State.STOPPING
                    raise
            else:
                self._told.pop("room", None)
                return result

    def _wait_for_room(self, error: DiskFull, afterwards: State) -> Iterator[Event]:
        """Until there is room for the state, the user ends the pause to try again, or stops the run."""
        do = tr("{do} The run continues as soon as there is enough room.", do=error.do)
        yield from self._warn("room", StudioError(error.what, where=error.where, do=do), cause=error.__cause__)
        yield StateChanged(state=State.PAUSED)
        shown, folder = self.requests.pause(), self.session.run.folder
        needed = 2 * checkpoint.size(self.session.state())
        latest = time.monotonic() + RETRY if files.room(folder) >= needed else float("inf")
        while True:
            time.sleep(POLL)
            ended_by_user = shown and not self.requests.paused()
            has_room = latest == float("inf") and files.room(folder) >= needed
            if self.requests.stop() or ended_by_user or has_room or time.monotonic() >= latest:
                break
        self.requests.end_pause()
        yield StateChanged(state=afterwards)

    def _warn(self, subject: str, error: StudioError, cause: BaseException | None = None) -> Iterator[Event]:
        """Warns of ``error`` unless the same cause was warned of since ``subject`` last succeeded."""
        cause = cause or error.__cause__ or error
        key = type(cause), getattr(cause, "errno", None)
        told = self._told.setdefault(subject, set())
        if key not in told:
            told.add(key)
            yield Warned(what=error.what, where=error.where, do=error.do)

    def _without_adapter(self, error: Exception) -> StudioError:
        why = files.reason(error) if isinstance(error, OSError) else getattr(error, "what", error)
        told = StudioError(
            tr(
                "The state of step {step} was saved without its adapter, which could not be written: {why}",
                step=self.session.step,
                why=why,
            ),
            where=getattr(error, "filename", None) or self.session.run.checkpoint(self.session.step),
            do=tr("The run can be resumed from that state. The adapter is written again with the next one."),
        )
        told.__cause__ = error
        return told

    def _without_look(self, error: Exception) -> StudioError:
        what = tr("The adapter of step {step} could not be kept with its previews", step=self.session.step)
        if isinstance(error, OSError):
            return files.refusal(error, what, self.session.run.folder)
        return StudioError(
            tr("{what}: {why}", what=what, why=getattr(error, "what", error)),
            where="keep_previewed",
            do=tr("Training continues."),
        )

    def _with_what_is_saved(self, error: StudioError) -> StudioError:
        session = self.session
        if session.saved_step != session.step:
            return error
        do = tr(
            "{do} The state of step {step} is saved: resume the run to write the adapter.",
            do=error.do,
            step=session.step,
        )
        return type(error)(error.what, where=error.where, do=do, details=error.details)


def _full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
