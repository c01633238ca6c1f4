"""``judge``: how good each saved state of a run is, and which to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lora_studio import runs
from lora_studio.cli import following
from lora_studio.cli.options import AsJson, Further, Outputs, duration, judging_prompts, tell
from lora_studio.cli.watch import judged_line
from lora_studio.evaluation import judgements, strength
from lora_studio.evaluation.advice import advise
from lora_studio.evaluation.judgements import Judgement
from lora_studio.jobs import judging
from lora_studio.jobs.judging import JudgingJob, JudgingView
from lora_studio.runs import Run


def judge(
    name: Annotated[str, typer.Argument(metavar="RUN", help="The run's name, or the path of its folder.")],
    step: Annotated[
        list[int] | None, typer.Option(metavar="STEP", help="Judge the state of this step alone; may be repeated.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What to draw, without the trigger word; may be repeated."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=2, max=16, help="Pictures of each prompt.", show_default="as the run's settings say"),
    ] = None,
    further: Further = None,
    outputs: Outputs = runs.OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """Measure what each saved state of a run learned: style, subjects, copies, drift. Waits for its turn."""
    run = runs.find(name, outputs)
    _require_scorers(further or ())
    job = judging.start(run, judging_prompts(prompt), seeds or 0, step or ())
    shown = _Shown(job, quiet=as_json)
    following.follow(job, shown.look, _progress, "the states that were judged are kept")
    shown.look()
    _report(run, _scored(run, shown.found, further or (), as_json), as_json)


def _require_scorers(folders: Sequence[Path]) -> None:
    """Raises ModelError before anything is drawn, if a folder holds no scorer."""
    if folders:
        from lora_studio.vision import scorers

        for folder in folders:
            scorers.kind_of(folder)


def _scored(run: Run, found: list[Judgement], folders: Sequence[Path], quiet: bool) -> list[Judgement]:
    """``found`` with what the scorers in ``folders`` say of the pictures, which is kept too."""
    if not folders:
        return found
    from lora_studio.evaluation import columns

    found, training = columns.add_to_judged(run, found, folders)
    for one in () if quiet else found:
        for name, (value, low, high) in one.extra.items():
            own = training.get(name)
            told = "" if own is None else f" (training pictures {own:.3g})"
            print(f"step {one.step:>6}  {name} {value:.3g} [{low:.3g}, {high:.3g}]{told}", flush=True)
    return found


class _Shown:
    """Prints every state's line once it is judged."""

    def __init__(self, job: JudgingJob, quiet: bool):
        self.job, self.quiet = job, quiet
        self.found: list[Judgement] = []
        self._looked_at = 0

    def look(self) -> JudgingView:
        seen = self.job.view()
        new, self._looked_at = seen.judged[self._looked_at :], len(seen.judged)
        for event in new:
            under = judgements.conditions(self.job.run, event.step)
            found = judgements.read(judgements.folder(self.job.run), event.step, under.key) if under else None
            if found is None:  # it was judged otherwise meanwhile, or its file was damaged
                continue
            self.found.append(found)
            if not self.quiet:
                like = [*found.copies, *found.memorized.pictures]
                copied = f", such as of {like[0].training}" if like else ""
                print(f"{judged_line(event)}{copied}", flush=True)
        return seen


def _progress(seen: JudgingView) -> str:
    if seen.waits_for:
        return f"waits for {seen.waits_for}"
    left = "" if seen.seconds_left is None else f", {duration(seen.seconds_left)} left"
    return f"{seen.done} of {seen.total} judged, {seen.stage}{left}" if seen.stage else "starting"


def _report(run: Run, found: list[Judgement], as_json: bool) -> None:
    advice, place = advise(found), judgements.folder(run)
    at = strength.known(run, advice.step) if advice else None
    result = {
        "run": run.folder,
        "judged": [{name: value for name, value in asdict(one).items() if name != "samples"} for one in found],
        "advice": advice and asdict(advice),
        "strength": at and asdict(at),
        "pictures": place,
    }
    said = [advice.sentence if advice else "Stopped before a state was judged.", *([at.sentence] if at else [])]
    tell(result, ["", *said, f"Pictures: {place}"], as_json)
