"""What a sweep would do, and how a study stands. HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_studio.errors import StudioError
from lora_studio.events import State
from lora_studio.jobs.sweeping import SweepingJob, SweepingView
from lora_studio.language import declared, in_sequence, tr
from lora_studio.sweeps import study
from lora_studio.sweeps.outcome import TrialState
from lora_studio.sweeps.space import Sweep
from lora_studio.sweeps.study import Study
from lora_studio.ui import words
from lora_studio.ui.blank import link
from lora_studio.ui.outcome import wrong
from lora_studio.ui.pages.sweeps import table

_STATES = {**words.STATES, State.RUNNING: tr("At work")}
_SAMPLERS = {
    "grid": tr("every combination"),
    "random": tr("drawn at random"),
    "tpe": tr("drawn where earlier ones were good"),
}


def source(values: Mapping[str, Any]) -> str:
    """Which pictures and base model are taken from the Train page."""
    data = Path(str(values["data"])).name or tr("none yet")
    told = tr(
        "Pictures {pictures}, base model {base}, as on the {train} page.",
        pictures=f"<b>{words.text(data)}</b>",
        base=f"<b>{words.text(Path(str(values['base'])).name)}</b>",
        train=link("train", tr("Train")),
    )
    return f'<p class="hint">{told}</p>'


def about(sweep: Sweep | None, pace: float | None) -> str:
    """What a sweep varies, how many trials it has, and how long they take at ``pace``, seconds for each step."""
    if sweep is None:
        return ""
    trials = words.counted(sweep.total, "trial")
    if sweep.seeds > 1:
        trials = tr("{trials}, {seeds} training seeds each", trials=trials, seeds=sweep.seeds)
    which = tr("{trials}: {sampler}.", trials=trials, sampler=_SAMPLERS[sweep.sampler])
    long = tr("How long that takes is known after the first trial.")
    if pace:
        long = tr("About {duration} on this machine.", duration=words.duration(pace * _steps(sweep)))
    blurb = f'<p class="blurb">{words.text(declared(sweep.blurb))}</p>'
    return f'{blurb}{table.axes(sweep)}<p class="hint">{words.text(in_sequence((which, long)))}</p>'


_ALIKE = 3
"""By how much the steps of two runs may differ for one to tell how long the other takes."""


def _steps(sweep: Sweep) -> float:
    """Steps of all its runs."""
    return sweep.total * sweep.seeds * _steps_of_a_run(sweep)


def _steps_of_a_run(sweep: Sweep) -> float:
    steps = sweep.values("steps") if "steps" in sweep.axes else [sweep.base().run.steps]
    return sum(steps) / len(steps)


def pace(outputs: Path, base: str, sweep: Sweep | None) -> float | None:
    """Seconds for each step, judging included, of earlier trials on the base model. Trials that are much shorter or
    longer than those of ``sweep`` do not count: judging costs as much however few the steps are.
    """
    if sweep is None:
        return None
    wanted = _steps_of_a_run(sweep)
    for one in study.listed(outputs)[:20]:
        try:
            own = one.settings()
        except StudioError:
            continue
        alike = wanted / _ALIKE <= own.run.steps <= wanted * _ALIKE
        if Path(own.run.base).name != Path(base).name or "steps" in one.sweep.axes or not alike:
            continue
        seconds = [trial.seconds for trial in one.noted() if trial.state is TrialState.FINISHED and trial.seconds]
        if seconds:
            return sum(seconds) / len(seconds) / one.sweep.seeds / own.run.steps
    return None


def html(job: SweepingJob, seen: SweepingView) -> str:
    """How far the study is, and what it waits for or why it ended."""
    share = 100 * seen.done / seen.total if seen.total else 0
    kind = "stopping" if seen.stopping else str(seen.state)
    told = in_sequence(_told(job, seen))
    bar = f'<div class="bar"><i style="width:{share:.3g}%"></i></div>'
    error = wrong(StudioError(seen.error.what, where=seen.error.where, do=seen.error.do)) if seen.error else ""
    return f'<div class="{kind}"><p class="sentence"><span class="dot"></span>{words.text(told)}</p>{bar}</div>{error}'


def _told(job: SweepingJob, seen: SweepingView) -> Iterator[str]:
    """Sentences on how far the study is."""
    title = tr("Stopping") if seen.stopping else _STATES[seen.state]
    far = tr("{title}: {done} of {trials}", title=title, done=seen.done, trials=words.counted(seen.total, "trial"))
    left = words.duration(seen.seconds_left) if seen.seconds_left else ""
    yield tr("{far}, about {duration} left.", far=far, duration=left) if left else tr("{far}.", far=far)
    if seen.state is State.RUNNING and (stage := job.stage()):
        yield tr("Now {stage}.", stage=stage)
    if seen.waits_for:
        yield tr("It waits for {job}.", job=seen.waits_for)


def signature(found: Study) -> object:
    """Changes whenever the study has something new to show."""
    job = SweepingJob(found.folder)
    alive = job.alive
    return found.name, alive, job.stop_file.exists(), job.stage() if alive else "", *map(_stamp, (
        found.trials_file, job.events_file, found.folder.parent,
    ))  # fmt: skip


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
        return status.st_mtime_ns, status.st_size
    except OSError:
        return 0, 0
