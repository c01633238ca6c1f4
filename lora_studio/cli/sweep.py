"""``sweep``: many short runs over some settings, each judged, and which is best."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_studio import runs
from lora_studio.cli import following, train
from lora_studio.cli.options import AsJson, Outputs, duration, like, of_class, tell
from lora_studio.config.specs import SPECS, from_text
from lora_studio.errors import RunError, SettingsError
from lora_studio.evaluation.value import STYLE_SCALE, number
from lora_studio.jobs import sweeping
from lora_studio.jobs.sweeping import SweepingView
from lora_studio.sweeps import results, space, study
from lora_studio.sweeps.outcome import Trial, TrialState
from lora_studio.sweeps.space import Sweep
from lora_studio.sweeps.study import Study

_ENDED = (TrialState.FINISHED, TrialState.PRUNED, TrialState.FAILED)


@dataclass
class SweepOptions:
    """The options of ``sweep``."""

    name: Annotated[
        str | None,
        typer.Argument(
            metavar="SWEEP | FILE | STUDY",
            help="A sweep, the path of its TOML file, or a study to continue. Without it, all are listed.",
        ),
    ] = None
    data: Annotated[str | None, like("data")] = None
    base: Annotated[str | None, like("base", show_default=SPECS["base"].default)] = None
    assignments: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of all trials, as in train; may be repeated."),
    ] = field(default_factory=list)
    trials: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="How many trials, for a sweep that draws them.")
    ] = None
    called: Annotated[
        str | None,
        typer.Option("--name", help="Name of the study.", show_default="that of the sweep and of the pictures"),
    ] = None
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL | FILE",
            help="Where Optuna keeps the trials: a database's URL, an SQLite file (.db), or a journal (.log), which "
            "machines can share over a network.",
            show_default="a file of the study",
        ),
    ] = None
    devices: Annotated[
        str,
        typer.Option(help="Several devices, with a trial on each: cuda:0,cuda:1.", show_default="the fastest"),
    ] = ""
    queue: Annotated[bool, typer.Option("--queue", help="Put the study into the queue and return.")] = False
    show: Annotated[bool, typer.Option("--show", help="Show what a study has found, and run nothing.")] = False
    keep: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Copy the run of a study's trial N to the other runs.")
    ] = None
    outputs: Outputs = runs.OUTPUTS
    as_json: AsJson = False


@of_class(SweepOptions)
def sweep(options: SweepOptions) -> None:
    """Try many settings: a short run for each, judged, in a table."""
    if options.name is None:
        return _list(options.outputs, options.as_json)
    if options.keep is not None:
        kept = study.keep(study.find(options.name, options.outputs), options.keep)
        return tell({"run": kept.folder}, [f"Run {kept.name}, in {kept.folder}"], options.as_json)
    found = _study(options.name, options)
    if options.queue:
        return _queue(found, options)
    if not options.show:
        _work(found, options.devices)
    _tell(found, options.as_json)


def _queue(found: Study, options: SweepOptions) -> None:
    waits = sweeping.start(found, _devices(options.devices)).view().waits_for
    said = f"It waits for {waits}, then starts." if waits else "It starts now."
    tell({"study": found.folder, "waits_for": waits}, [f"Study {found.name}, in {found.folder}", said], options.as_json)


def _study(name: str, options: SweepOptions) -> Study:
    """The study called ``name``, or, with pictures, the one of the sweep ``name``.

    Raises:
        SettingsError, DatasetError, RunError: there is neither, or what is wrong with it.
    """
    if options.data and not options.show:
        return begin(space.find(name), options)
    try:
        return study.find(name, options.outputs)
    except RunError:
        if name in {one.name for one in space.available()} or name.endswith(".toml"):
            do = f"Write for example: python3 app.py sweep {name} --data my-pictures"
            raise SettingsError("There is no folder of pictures.", where="--data", do=do) from None
        raise


def begin(chosen: Sweep, options: SweepOptions) -> Study:
    """Creates a study, or finds the one that was begun with the same options."""
    if options.trials:
        chosen = space.checked(chosen.model_dump() | {"trials": options.trials}, "--trials")
    given = {key: value for key, value in {"data": options.data, "base": options.base}.items() if value}
    settings = train.checked(chosen.base(**_assigned(options.assignments), **given), options.outputs)
    return study.begin(chosen, settings, options.outputs, options.called or "", _place(options.storage))


def _assigned(assignments: list[str]) -> dict[str, Any]:
    found = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            what = f"{assignment!r} is not of the form key=value."
            raise SettingsError(what, where="--set", do="Write for example --set steps=200.")
        found[key.strip()] = from_text(key.strip(), text.strip())
    return found


def _place(storage: str | None) -> str:
    return "" if not storage else storage if "://" in storage else str(Path(storage).expanduser().resolve())


def _work(found: Study, devices: str) -> None:
    """Works on the study in turn with the runs, and prints each trial that ends. Raises as ``following.follow``."""
    job = sweeping.start(found, _devices(devices))
    told = {trial.number for trial in found.noted() if trial.state in _ENDED}
    print(f"Study {found.name}, in {found.folder}", file=sys.stderr, flush=True)

    def look() -> SweepingView:
        seen = job.view()
        for trial in seen.trials:
            if trial.state in _ENDED and trial.number not in told:
                told.add(trial.number)
                print(_line(trial), file=sys.stderr, flush=True)
        return seen

    def describe(seen: SweepingView) -> str:
        if seen.waits_for:
            return f"waits for {seen.waits_for}"
        left = "" if seen.seconds_left is None else f", {duration(seen.seconds_left)} left"
        return f"{seen.done} of {seen.total} trials{left}, {job.stage() or 'starting'}"

    following.follow(job, look, describe, "the trial at work is continued when the study is")


def _devices(text: str) -> tuple[str, ...]:
    """Raises SettingsError where one of them is none."""
    found = tuple(one.strip() for one in text.split(",") if one.strip())
    for one in found:
        sweeping.Device.of(one)
    return found


def _tell(found: Study, as_json: bool) -> None:
    """Prints what the study found."""
    from lora_studio.sweeps.store import TrialStore

    with TrialStore(found) as store:
        trials, importances = store.trials(), store.importances()
    best = results.best(trials)
    result = {
        "study": found.folder,
        "trials": [trial.told() for trial in trials],
        "best": {"trial": best.trial.number, "alike": list(best.alike), "sound": best.sound} if best else None,
        "importances": importances,
    }
    tell(result, [*_table(found, trials), "", *_findings(best, importances)], as_json)


def _findings(best: results.Best | None, importances: dict[str, float]) -> list[str]:
    lines = [best.sentence if best else "No trial has finished."]
    if importances:
        shares = ", ".join(f"{SPECS[key].label} {share:.0%}" for key, share in importances.items())
        lines.append(f"What explains the style: {shares}.")
    return lines


def _table(found: Study, trials: list[Trial]) -> list[str]:
    """The trials as lines, the best first."""
    heads = ["trial", *found.sweep.axes, "style", "", "subjects", "copies", "time", ""]
    rows = [heads]
    for trial in results.ranked(trials):
        values = [results.shown(key, trial.params[key]) if key in trial.params else "" for key in found.sweep.axes]
        rows.append([str(trial.number), *values, *_measures(trial), duration(trial.seconds), _state(trial)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _measures(trial: Trial) -> list[str]:
    """Style, its interval, subjects, copies."""
    outcome = trial.outcome
    if outcome is None:
        return ["", "", "", ""]
    return [
        f"{number(outcome.style.value)} %",
        outcome.style.margin(STYLE_SCALE, "[{}, {}]"),
        f"{number(outcome.subject.value, '.2f')}{' fading' if outcome.fades else ''}",
        str(outcome.copies),
    ]


def _state(trial: Trial) -> str:
    return "" if trial.state is TrialState.FINISHED else f"{trial.state}{f': {trial.error}' if trial.error else ''}"


def _line(trial: Trial) -> str:
    """One trial that has ended, for a person who waits."""
    style = f"style {number(trial.outcome.style.value)} %" if trial.outcome else ""
    told = ", ".join(filter(None, [style, _state(trial), duration(trial.seconds)]))
    return f"trial {trial.number}: {results.described(trial)}: {told}"


def _list(outputs: Path, as_json: bool) -> None:
    sweeps, studies = space.available(), study.listed(outputs)
    rows: list[dict[str, Any]] = []
    for one in studies:
        try:
            ended = sum(trial.state in (TrialState.FINISHED, TrialState.PRUNED) for trial in one.noted())
            rows.append({"name": one.name, "trials": one.sweep.total, "ended": ended, "folder": one.folder})
        except RunError:  # of another version
            continue
    lines = ["Sweeps:", *(f"  {one.name:20}  {one.total:3} trials  {one.title}" for one in sweeps)]
    lines += ["", "Studies:"] * bool(rows) + [
        f"  {row['name']}  {row['ended']} of {row['trials']} trials" for row in rows
    ]
    result = {
        "sweeps": [{"name": one.name, "title": one.title, "trials": one.total} for one in sweeps],
        "studies": rows,
    }
    tell(result, lines, as_json)
