"""The process that judges: ``python -m lora_studio.jobs.judging_worker JOB_FOLDER``. It reports only through the job's
event log; see ``judging``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from lora_studio import events as e
from lora_studio import libraries
from lora_studio.errors import MachineError, RunError
from lora_studio.evaluation import cost, judgements
from lora_studio.jobs import job_worker
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.judging import JudgingJob
from lora_studio.language import tr


def main(folder: str) -> int:
    """Waits for the job's turn and does it; returns the process's exit status."""
    job = JudgingJob(Path(folder))
    return job_worker.in_turn(job, lambda log, stopping: work(job, log, stopping))


def work(job: JudgingJob, log: EventLog, stopping: Callable[[], bool]) -> int:
    """Does the job, now; returns the process's exit status."""
    no_room = MachineError(
        tr("There is not enough memory to draw the pictures."),
        do=tr("Close other programs that use much memory, or train with a lower resolution."),
    )
    return job_worker.reported(job, log, lambda: judge(job, log, stopping), no_room, tr("what was judged"))


def judge(job: JudgingJob, log: EventLog, stopping: Callable[[], bool]) -> bool:
    """Judges the states that were not judged yet; returns whether nothing is left. Raises as ``judging.judge``."""
    run, order = job.run, job.order()

    def stopping_or_gone() -> bool:
        if not run.settings_file.exists():
            raise RunError(
                tr("The run's folder was deleted or renamed."), where=run.folder, do=tr("Judge it where it is now.")
            )
        return stopping()

    strengths = not order.steps  # advice on some of the states is not worth so many pictures
    total = len(judgements.states(run, order.steps))
    log.append(e.JudgingStarted(total=total, strengths=_work_of_strengths(job) if strengths else 0.0))
    with libraries.importing():
        from lora_studio.evaluation import judging

    began = 0.0
    try:
        for event in judging.judge(run, order.prompts, order.seeds, order.steps, stopping_or_gone, strengths):
            if isinstance(event, judgements.Judgement):
                log.append(judgements.event(event, time.monotonic() - began if began else 0.0))
                began = 0.0
            else:
                log.append(event)
                began = time.monotonic() if judging.of_a_state(event) else 0.0
    except judging.Cancelled:
        return False
    return True


def _work_of_strengths(job: JudgingJob) -> float:
    """How many states could be judged while strengths are measured."""
    settings, order = job.run.settings(), job.order()
    state = cost.of_a_state(settings, cost.CAPTIONS_ASKED, order.prompts, order.seeds)
    return cost.of_strengths(settings, order.prompts) / state


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
