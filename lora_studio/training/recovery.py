"""What happens when a step diverges: the run rolls back to an earlier state and lowers its learning rate."""

from __future__ import annotations

import copy
import math
from pathlib import Path

from lora_studio.events import RolledBack
from lora_studio.language import tr
from lora_studio.runs import checkpoints
from lora_studio.training import checkpoint
from lora_studio.training.leader import Leader
from lora_studio.training.session import Session
from lora_studio.training.train_step import Diverged, NothingLearned, StepResult

ROLLBACKS = 3
"""How often a run rolls back before it gives up."""
SLOWER = 0.5
"""What each rollback multiplies the learning rate by."""
EXPLODED = 100.0
"""A gradient this many times its usual norm has exploded: weights that it moved are likely to diverge soon."""
_MEMORY = 20
"""Steps that the usual norm is averaged over, about; the first so many are not judged."""
_HEALTHY = 20
"""Steps past the one that diverged after which what was saved since counts as sound."""


class Recovery:
    """Keeps what a session can roll back to, and watches the gradient's norm."""

    def __init__(self, session: Session):
        self.session = session
        self.exploded = False
        """Whether the latest gradient had exploded: a state saved now is not one to go back to."""
        self._first = session.copied_state()
        self._failed_step, self._from_step = -math.inf, 0
        """Of the latest rollback: the step that diverged, and the step that it went back to."""
        self._log_norm, self._seen = 0.0, 0

    def watch(self, result: StepResult) -> None:
        """Compares the gradient of a step with those before it. In fp16 one may be infinite, which the loss scaler
        handles: it is passed over.
        """
        if not math.isfinite(result.gradient_norm):
            return
        log_norm = math.log(max(result.gradient_norm, 1e-30))
        self.exploded = self._seen >= _MEMORY and log_norm - self._log_norm > math.log(EXPLODED)
        self._seen += 1
        self._log_norm += (log_norm - self._log_norm) / min(self._seen, _MEMORY)

    def roll_back(self, leader: Leader, error: Diverged) -> RolledBack:
        """Restores an earlier state in all processes and lowers the learning rate: the newest saved state, or an older
        one than last time if the run hardly got further since (``_HEALTHY``); where there is none, the state that this
        process began with.

        Raises:
            Diverged: it was tried ``ROLLBACKS`` times, or no learning rate would help.
        """
        session = self.session
        if session.rollbacks >= ROLLBACKS or isinstance(error, NothingLearned):
            raise error
        failed, factor, count = session.step + 1, session.rate_factor * SLOWER, session.rollbacks + 1
        recovered = failed - self._failed_step >= _HEALTHY
        folder = self._earlier(math.inf if recovered else self._from_step)
        state = checkpoint.load(folder, session.machine.device) if folder else copy.deepcopy(self._first)
        leader.restore(session, state | {"rate_factor": factor, "rollbacks": count})
        session.saved_step = session.step if folder else None
        session.abandoned = checkpoints.abandon(session.run, session.step)
        self._failed_step, self._from_step, self.exploded = failed, session.step, False
        what = tr(
            "{what} Training went back to step {step} and continues at {factor:g} × the learning rate (try {count} "
            "of {rollbacks}).",
            what=error.what,
            step=session.step,
            factor=factor,
            count=count,
            rollbacks=ROLLBACKS,
        )
        return RolledBack(step=session.step, failed_step=failed, factor=factor, what=what)

    def _earlier(self, before: float) -> Path | None:
        """The newest undamaged saved state of a step below ``before``."""
        saved = [one.folder for one in checkpoints.listed(self.session.run) if one.step < before]
        return next(filter(checkpoints.complete, reversed(saved)), None)
