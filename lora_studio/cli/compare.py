"""``compare``: what tells trained runs apart, as far as it can be told."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_studio import files, runs
from lora_studio.cli.options import AsJson, Further, Outputs, duration, judging_prompts, of_class, tell
from lora_studio.errors import RunError, SettingsError, StudioError
from lora_studio.events import Preparing, Warned
from lora_studio.jobs import comparing, view
from lora_studio.runs import Run
from lora_studio.sweeps import results
from lora_studio.sweeps import study as studies
from lora_studio.sweeps.outcome import TrialState

if TYPE_CHECKING:
    from lora_studio.evaluation.comparison import Contestant
    from lora_studio.evaluation.side_by_side import ComparedState, SideBySide
    from lora_studio.evaluation.value import Value
    from lora_studio.sweeps.study import Study

_FIGURES = {"style": ".0f", "subject": ".2f", "drift": ".2f"}
"""How measures are written; further columns as ``_FURTHER``."""
_FURTHER = ".3g"
_TITLES = {"style": "style, %", "subject": "subjects"}


@dataclass
class CompareOptions:
    """The options of ``compare``."""

    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN[@STEP]… | STUDY",
            help="Runs, or states of them. Runs of the same settings and different seeds are averaged if commas join "
            "them: A1,A2 B1,B2. Or a study of a sweep, for its trials.",
            show_default=False,
        ),
    ]
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What to draw, without the trigger word; may be repeated."),
    ] = None
    seeds: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=16,
            help="Pictures of each prompt.",
            show_default="as the first run was judged, or its settings say",
        ),
    ] = None
    further: Further = None
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="The sheet, .png or .webp.", show_default="in outputs/"),
    ] = None
    outputs: Outputs = runs.OUTPUTS
    as_json: AsJson = False


@of_class(CompareOptions)
def compare(options: CompareOptions) -> None:
    """Compare runs of one base model: what each learned, what tells them apart, the settings that differ, and a sheet
    of what they draw. Waits for its turn.
    """
    names = options.names
    study = _study(options)
    if (len(names) < 2 and not study) or not all(name.strip(",") for name in names):
        do = "Name two runs or more: python3 app.py compare ana ben"
        raise SettingsError("There is nothing to compare with.", where="RUN", do=do)
    sheet = _destination(options.out, names, options.outputs)
    found = _judged(options, study)
    contestants = _contestants(found, study)
    result = _result(found, contestants) | {"sheet": sheet}
    _save(sheet, found, contestants, result)
    tell(result, _lines(found, contestants, result), options.as_json)


def _study(options: CompareOptions) -> Study | None:
    """The study that is named in place of runs; None where the one name is a run's."""
    [first, *others] = options.names or [""]
    if others or Run(options.outputs.resolve() / first).settings_file.is_file():
        return None
    try:
        return studies.find(first, options.outputs)
    except RunError:
        return None


def _trials(study: Study) -> list[list[str]]:
    """The finished trials of ``study`` that are here, each as the names of its runs.

    Raises:
        RunError: there are fewer than two.
    """
    seeds = range(study.sweep.seeds)
    numbers = [trial.number for trial in study.noted() if trial.state is TrialState.FINISHED]
    found = [
        [study.run(number, seed).name for seed in seeds] for number in numbers if study.run(number).folder.is_dir()
    ]
    if len(found) < 2:
        do = f"Continue it first: python3 app.py sweep {study.name}"
        raise RunError(f"{study.name} has fewer than two finished trials here.", where=study.folder, do=do)
    return found


def _judged(options: CompareOptions, study: Study | None) -> SideBySide:
    """All states, judged alike, in turn with runs and jobs.

    Raises:
        RunError: a run or a state is missing, or ``stop`` ended the comparison.
    """
    prompts = judging_prompts(options.prompt)

    from lora_studio.evaluation import side_by_side
    from lora_studio.evaluation.bench import Cancelled

    names = _trials(study) if study else [[one for one in name.split(",") if one] for name in options.names]
    place = study.folder if study else options.outputs
    groups = [[side_by_side.find(one, place) for one in group] for group in names]
    called = list(dict.fromkeys(state.run.name for group in groups for state in group))
    try:
        with comparing.turn(called, options.outputs, _say) as stopping:
            found = side_by_side.judge(groups, prompts, options.seeds or 0, options.further or (), stopping)
            return _watched(found)
    except (Cancelled, comparing.Stopped):
        do = "Start it again: the states that it has judged are kept."
        raise RunError("The comparison was stopped.", where="compare", do=do) from None


def _contestants(found: SideBySide, study: Study | None) -> list[Contestant]:
    """One for each group of runs; a study's trials are called by what differs."""
    from lora_studio.evaluation.comparison import Contestant

    called = {study.run(trial.number): results.values(trial) for trial in study.noted()} if study else {}
    return [
        Contestant(called.get(group[0].state.run) or _name(group), place, tuple(one.judgement for one in group))
        for place, group in enumerate(found.groups)
    ]


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _destination(out: Path | None, names: Sequence[str], outputs: Path) -> Path:
    if out is None:
        short = "-".join(Path(one).name for name in names for one in name.split(",") if one)
        return files.free(outputs.resolve() / f"compare-{files.safe_name(short)[:80]}.webp")
    path = out.expanduser().resolve()
    if path.suffix.lower() not in (".png", ".webp"):
        raise SettingsError(f"{path.name} is no PNG or WebP.", where="--out", do="Let its name end in .png or .webp.")
    if path.exists():
        raise SettingsError(
            f"{path} exists already.", where="--out", do="Choose another name: no command overwrites a file."
        )
    return path


def _watched(events: Generator[Any, None, SideBySide]) -> SideBySide:
    """The result, once it is there; progress and warnings go to standard error."""
    said = ""
    while True:
        try:
            event = next(events)
        except StopIteration as done:
            return done.value
        if isinstance(event, Preparing) and event.stage != said:
            said = event.stage
            _say(f"{said}…")
        elif isinstance(event, Warned):
            _say(f"Note: {StudioError(event.what, where=event.where, do=event.do)}")


def _name(group: Sequence[Any]) -> str:
    return ", ".join(one.state.name for one in group)


def _result(found: SideBySide, contestants: Sequence[Contestant]) -> dict[str, Any]:
    from lora_studio.evaluation import comparison

    first, *others = contestants
    settings = [[one.state.run.settings() for one in group] for group in found.groups]
    return {
        "prompts": list(found.plan.prompts),
        "seeds": list(found.plan.seed_numbers),
        "same_pictures": found.shared,
        "runs": [
            {
                "name": one.name,
                **{measure: list(one.value(measure)) for measure in first.measures},
                "level": one.level,
                "fades": one.fades,
                "copies": one.copies,
                "states": [_facts(judged.state) for judged in group],
            }
            for one, group in zip(contestants, found.groups, strict=True)
        ],
        "base": {name: list(value) for name, value in found.of_base.items()},
        "training": found.of_training,
        "differences": [
            {"name": one.name, **{measure: list(one.difference(first, measure)) for measure in first.measures}}
            for one in others
        ],
        "verdicts": [comparison.verdict(first, one, found.shared) for one in others],
        "settings": {key: list(row) for key, row in comparison.differing(settings).items()},
    }


def _facts(state: ComparedState) -> dict[str, Any]:
    """What is known of a state beside its measures."""
    from lora_studio.evaluation import comparison

    seen = view.fold(state.run)
    past = [one.seconds for one in seen.steps if one.step <= state.step]
    return {
        "run": state.run.name,
        "step": state.step,
        "adapter": str(state.adapter),
        "pictures_seen": comparison.pictures_seen(state.run.settings(), state.step),
        "parameters": seen.started.parameters if seen.started else None,
        "bytes": state.adapter.stat().st_size,
        "seconds": past[-1] if past else None,
        "memory": _memory(state),
    }


def _memory(state: ComparedState) -> int | None:
    """Bytes that its run takes, as estimated; None where that can only be measured."""
    from lora_studio.models import shapes
    from lora_studio.training import devices, memory

    settings = devices.settled(state.run.settings())
    machine = devices.choose(settings.machine)
    known = shapes.read(settings.run.base, settings.run.vae, settings.run.text_encoders)
    return memory.estimate(settings, known, machine.precision).peak if memory.can_estimate(known) else None


def _save(path: Path, found: SideBySide, contestants: Sequence[Contestant], result: dict[str, Any]) -> None:
    from lora_studio.evaluation import comparison_sheet

    image = comparison_sheet.drawn(found, [one.name for one in contestants])
    data = comparison_sheet.data(image, path.suffix.lower(), json.dumps(result | {"sheet": path.name}))
    try:
        files.write(path, data)
    except OSError as error:
        raise files.refusal(error, "The sheet cannot be saved", path.parent) from error


def _lines(found: SideBySide, contestants: Sequence[Contestant], result: dict[str, Any]) -> list[str]:
    head = ["", *(one.name for one in contestants)]
    measured = [head, *_measures(found, contestants), *_costs(found, result["runs"])]
    differing = [["Settings that differ", *head[1:]], *([key, *row] for key, row in result["settings"].items())]
    verdicts = result["verdicts"]
    notes = [] if found.shared else [_OWN_PICTURES]
    settings = _table(differing) if len(differing) > 1 else ["No settings differ."]
    return [*_table(measured), "", *settings, "", *notes, *verdicts, f"Sheet: {result['sheet']}"]


_OWN_PICTURES = (
    "The runs were trained on different pictures. Each style is measured against the run's own: the percentages say "
    "how much of its own style each learned."
)


def _measures(found: SideBySide, contestants: Sequence[Contestant]) -> list[list[str]]:
    """A row for each measure, and below it the differences to the first."""
    from lora_studio.evaluation.comparison import signed

    first, *others = contestants
    rows: list[list[str]] = []
    for measure in first.measures:
        how = _FIGURES.get(measure, _FURTHER)
        rows.append([_title(measure, first, found), *(_written(one.value(measure), how) for one in contestants)])
        rows.append(["", "", *(signed(one.difference(first, measure), how) for one in others)])
    rows.append(["may be copies", *(str(one.copies or "none") for one in contestants)])
    return rows


def _title(measure: str, first: Contestant, found: SideBySide) -> str:
    """With what the training pictures and the base model reach, where that is known."""
    known = {"training pictures": first.level if measure == "subject" else found.of_training.get(measure)}
    known["base model"] = found.of_base[measure].value if measure in found.of_base else None
    told = ", ".join(f"{whose} {value:.3g}" for whose, value in known.items() if value is not None)
    return f"{_TITLES.get(measure, measure)}{f' ({told})' if told else ''}"


def _written(value: Value, how: str) -> str:
    assert value.low is not None and value.high is not None
    return f"{value.value:{how}} [{value.low:{how}}, {value.high:{how}}]"


def _costs(found: SideBySide, rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows of what each cost; of several runs the first."""
    facts = [row["states"][0] for row in rows]
    times = [None if one["seconds"] is None else duration(one["seconds"]) for one in facts]
    sizes = [f"{one['bytes'] / 1e6:.1f} MB" for one in facts]
    return [
        ["pictures seen", *(f"{one['pictures_seen']:,}" for one in facts)],
        ["trained parameters", *("" if one["parameters"] is None else f"{one['parameters']:,}" for one in facts)],
        ["file size", *sizes],
        ["memory, estimated", *("" if one["memory"] is None else f"{one['memory'] / 2**30:.1f} GB" for one in facts)],
        ["training time", *(one or "" for one in times)],
    ]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
