"""A study's trials in Optuna's storage: chosen, run one at a time, and run again if they were interrupted. Several
processes and machines may work on one storage.
"""

from __future__ import annotations

import datetime
import math
import platform
import secrets
import uuid
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from lora_studio import locks
from lora_studio.config.specs import SPECS
from lora_studio.errors import RunError, StudioError
from lora_studio.language import in_sequence, tr
from lora_studio.language.message import from_data, to_data
from lora_studio.locks import Lock
from lora_studio.sweeps.outcome import Trial, TrialOutcome, TrialState
from lora_studio.sweeps.space import Params, ValueRange
from lora_studio.sweeps.storage import explained, opened
from lora_studio.sweeps.study import Study

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # its version is pinned
_BEGINNING = datetime.timedelta(seconds=10)
"""After which a trial has certainly noted whose it is."""
_ATTEMPTS = 5
"""Times that a trial is begun whose process vanishes."""
_FIRST, _FEW = 5, 8
"""Trials before others are pruned; and before importances mean anything."""
_STATES = {
    OptunaState.WAITING: TrialState.WAITING,
    OptunaState.RUNNING: TrialState.RUNNING,
    OptunaState.COMPLETE: TrialState.FINISHED,
    OptunaState.PRUNED: TrialState.PRUNED,
    OptunaState.FAIL: TrialState.FAILED,
}


class Interrupted(Exception):
    """A trial was stopped by its user, or its process vanished: it will be run again."""

    def __init__(self, by_user: bool):
        super().__init__()
        self.by_user = by_user


class Pruned(Exception):
    """A trial fell behind and was stopped."""

    def __init__(self, outcome: TrialOutcome | None):
        super().__init__()
        self.outcome = outcome


class _Surplus(Exception):
    """Another process took the same trial at the same moment."""


class Attempt:
    """One trial while it is being run.

    Attributes:
        number: of its runs' folders.
    """

    def __init__(self, number: int, params: Params, trial: optuna.Trial, prunes: bool):
        self.number, self.params, self._trial, self._prunes = number, params, trial, prunes

    def falls_behind(self, step: int, style: float) -> bool:
        """Whether ``style`` per cent at ``step`` is so little that the trial should be stopped; kept for others."""
        if not self._prunes or not math.isfinite(style):
            return False
        self._trial.report(style, step)
        return self._trial.should_prune()


class TrialStore:
    """The trials of ``study``. To be closed, or used as a context.

    Args:
        lane: tells apart those who work on the study in one process.

    Raises:
        RunError: the storage cannot be opened.
        MachineError: a library that it needs is missing.
    """

    def __init__(self, study: Study, lane: int = 0):
        self.study, self.sweep, self._lane = study, study.sweep, lane
        self._machine = f"{platform.node()} {uuid.getnode():x}"
        self._lock = Lock(study.folder / f".worker-{secrets.token_hex(4)}.lock")
        self._at_work = -1
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with explained(study, OSError, ValueError, KeyError), locks.held(study.folder / "study.lock"):
            pruner = optuna.pruners.MedianPruner(n_startup_trials=_FIRST)
            self._trials = optuna.create_study(
                storage=opened(study),
                study_name=study.name,
                direction="maximize",
                pruner=pruner if self.sweep.prunes else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )

    def __enter__(self) -> TrialStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the claim on trials."""
        self._lock.release()
        self._lock.path.unlink(missing_ok=True)

    def left(self) -> int:
        """Trials that nobody has begun."""
        return self.sweep.total - sum(trial.state is not TrialState.WAITING for trial in self.trials())

    def trials(self) -> list[Trial]:
        """All trials, by number: a trial that was run again is one."""
        latest: dict[int, FrozenTrial] = {}
        for trial in self._all():
            if not _given_up(trial) or trial.user_attrs.get("error"):
                latest[_number(trial)] = trial
        return [_row(number, trial) for number, trial in sorted(latest.items())]

    def importances(self) -> dict[str, float]:
        """How much each axis explains of the style, in shares of 1, the most first; empty where that is unknown.

        Computed by Optuna as in Watanabe et al. (2023), "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance
        in Arbitrary Subspaces".
        """
        ended = [trial for trial in self._all() if trial.state is OptunaState.COMPLETE]
        if len(ended) < _FEW or len(self.sweep.axes) < 2:
            return {}
        return optuna.importance.get_param_importances(self._trials)

    def run_next(self, perform: Callable[[Attempt], TrialOutcome]) -> None:
        """Runs one trial with ``perform``, which may raise ``Interrupted``, ``Pruned`` or a StudioError: the trial
        itself is then run again, pruned or failed, and nothing is raised here.
        """

        def objective(trial: optuna.Trial) -> float:
            return self._perform(trial, perform)

        if not self._lock.acquire():
            raise AssertionError("nobody else knows this lock")
        self.repair()
        with explained(self.study):
            self._trials.sampler = self._sampler()
            try:
                self._trials.optimize(objective, n_trials=1, catch=(StudioError, Interrupted, _Surplus))
            except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
                if not self._taken_away():
                    raise
        self.repair()

    def repair(self) -> None:
        """Puts back what was interrupted, here or on a machine that went silent, and completes a grid."""
        with explained(self.study), locks.held(self.study.folder / "study.lock"):
            for trial in self._all():
                if trial.state is OptunaState.RUNNING and self._vanished(trial):
                    self._trials.tell(trial.number, state=OptunaState.FAIL, skip_if_finished=True)
            known = self._all()
            again = {number for trial in known for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}
            for trial in known:
                if _given_up(trial) and not {"error", "surplus"} & trial.user_attrs.keys():
                    if trial.number not in again:
                        RetryHeartbeatStaleTrialCallback()(self._trials, trial)
            if self.sweep.sampler == "grid":
                self._complete_grid(known)

    def _all(self) -> list[FrozenTrial]:
        return self._trials.get_trials(deepcopy=False)

    def _complete_grid(self, known: list[FrozenTrial]) -> None:
        queued = [trial.system_attrs.get("fixed_params") for trial in known]
        for point in self.sweep.points():
            if point not in queued:
                self._trials.enqueue_trial(point)

    def _vanished(self, trial: FrozenTrial) -> bool:
        """Whether the process that ran ``trial`` has ended. Only those of this machine can be told."""
        worker = trial.user_attrs.get("worker")
        if worker is None:
            begun = trial.datetime_start
            return begun is not None and datetime.datetime.now() - begun > _BEGINNING
        path = self.study.folder / worker["lock"]
        if worker["machine"] != self._machine or path == self._lock.path:
            return False
        lock = Lock(path)
        if path.exists() and not lock.acquire():
            return False
        lock.release()
        path.unlink(missing_ok=True)
        return True

    def _taken_away(self) -> bool:
        """Whether others gave up the trial that is run here, as this machine was silent for too long."""
        return any(trial.number == self._at_work and _given_up(trial) for trial in self._all())

    def _sampler(self) -> optuna.samplers.BaseSampler:
        """A new one for each trial: one that began anew after a restart, or elsewhere, would draw the same again."""
        where = f"{self.sweep.seed} {len(self._all())} {self._lane} {self._machine}"
        seed = zlib.crc32(where.encode())
        if self.sweep.sampler == "tpe":
            return optuna.samplers.TPESampler(
                seed=seed, constraints_func=lambda trial: trial.user_attrs.get("constraints", (0.0, 0.0))
            )
        return optuna.samplers.RandomSampler(seed=seed)

    def _perform(self, trial: optuna.Trial, perform: Callable[[Attempt], TrialOutcome]) -> float:
        self._at_work = trial.number
        params = {key: self._suggested(trial, key) for key in self.sweep.axes}
        attempt = trial.user_attrs.get("attempt", 0) + 1
        trial.set_user_attr("attempt", attempt)
        trial.set_user_attr("worker", {"machine": self._machine, "lock": self._lock.path.name})
        frozen = next(one for one in self._all() if one.number == trial.number)
        if self._is_surplus(frozen, params):
            trial.set_user_attr("surplus", True)
            raise _Surplus
        self.study.note(self.trials())
        try:
            if attempt > _ATTEMPTS:
                do = tr("Its run's worker.log may say why: often the memory was full.")
                raise RunError(
                    tr("Its process ended unexpectedly {attempts} times.", attempts=_ATTEMPTS),
                    where=self.study.folder,
                    do=do,
                )
            outcome = perform(Attempt(_number(frozen), params, trial, self.sweep.prunes))
            _keep(trial, outcome)
            return outcome.style.value
        except Pruned as pruned:
            if pruned.outcome:
                _keep(trial, pruned.outcome)
            raise optuna.TrialPruned from None
        except Interrupted as error:
            if error.by_user:
                trial.set_user_attr("attempt", attempt - 1)
            raise
        except StudioError as error:
            trial.set_user_attr("error", to_data(_told(error)))
            raise

    def _suggested(self, trial: optuna.Trial, key: str) -> Any:
        axis = self.sweep.axes[key]
        if not isinstance(axis, ValueRange) or self.sweep.sampler == "grid":
            return trial.suggest_categorical(key, self.sweep.values(key))
        if SPECS[key].kind == "integer":
            return trial.suggest_int(key, round(axis.low), round(axis.high), log=axis.log)
        return trial.suggest_float(key, axis.low, axis.high, log=axis.log)

    def _is_surplus(self, own: FrozenTrial, params: Params) -> bool:
        """Whether another process has the same trial, or all there are to be."""
        others = [trial for trial in self._all() if not _given_up(trial) and trial.number < own.number]
        if any(_number(trial) == _number(own) for trial in others):
            return True
        if self.sweep.sampler == "grid":
            return any(_values(trial) == params for trial in others)
        return len({_number(trial) for trial in others}) >= self.sweep.total


def _keep(trial: optuna.Trial, outcome: TrialOutcome) -> None:
    """Keeps what a trial found."""
    trial.set_user_attr("outcome", outcome.model_dump_json())
    trial.set_user_attr("constraints", list(outcome.constraints))


def _number(trial: FrozenTrial) -> int:
    """What people see: from 1, and the same for a trial that was run again."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return 1 + (trial.number if first is None else first)


def _given_up(trial: FrozenTrial) -> bool:
    return trial.state is OptunaState.FAIL


def _values(trial: FrozenTrial) -> Params:
    return trial.system_attrs.get("fixed_params", trial.params)


def _told(error: StudioError) -> str:
    what = error.what
    if error.where and error.where not in what:
        what = tr("{what} [{where}]", what=what, where=error.where)
    return in_sequence([what, error.do])


def _row(number: int, trial: FrozenTrial) -> Trial:
    found = trial.user_attrs.get("outcome")
    return Trial(
        number,
        _STATES[trial.state],
        _values(trial),
        TrialOutcome.model_validate_json(found) if found else None,
        trial.duration.total_seconds() if trial.duration else 0.0,
        trial.user_attrs.get("worker", {}).get("machine", "").split(" ")[0],
        from_data(trial.user_attrs.get("error", "")),
    )
