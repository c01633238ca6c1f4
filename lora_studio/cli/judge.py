"""``judge``: how good each saved state of a run is, and which to keep."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lora_studio import runs
from lora_studio.cli.options import AsJson, Outputs, tell
from lora_studio.events import Preparing

if TYPE_CHECKING:
    from lora_studio.evaluation.judging import Judgement
    from lora_studio.evaluation.measure import Value


def judge(
    name: Annotated[str, typer.Argument(metavar="RUN", help="The run's name, or the path of its folder.")],
    step: Annotated[
        list[int] | None, typer.Option(metavar="STEP", help="Judge the state of this step alone; may be repeated.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What to draw, without the trigger word; may be repeated."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, max=16, help="Pictures of each prompt.")] = 2,
    outputs: Outputs = runs.OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """Measure what each saved state of a run learned: style, subjects, copies, drift."""
    run = runs.find(name, outputs)

    from lora_studio.evaluation import judging
    from lora_studio.evaluation.advice import advise

    found: list[Judgement] = []
    for event in judging.judge(run, prompt or (), seeds, step or ()):
        if isinstance(event, judging.Judgement):
            found.append(event)
            if not as_json:
                print(_line(event), flush=True)
        elif isinstance(event, Preparing) and not as_json and not event.done:
            print(f"{event.stage[:1].upper()}{event.stage[1:]}…", flush=True)
    advice = advise(found)
    assert advice  # a run without saved states is refused before
    rows = [{name: value for name, value in asdict(one).items() if name != "samples"} for one in found]
    result = {"run": run.folder, "judged": rows, "advice": asdict(advice), "pictures": judging.folder(run)}
    tell(result, ["", advice.sentence, f"Pictures: {judging.folder(run)}"], as_json)


def _line(one: Judgement) -> str:
    subjects = f"{one.subject.value:.2f} (training pictures {one.level.value:.2f}){', fading' if one.fades else ''}"
    copies = f", {len(one.copies)} may be copies, such as of {one.copies[0].training}" if one.copies else ""
    return f"step {one.step:>6}  style {_percent(one.style)}  subjects {subjects}  drift {one.drift.value:.2f}{copies}"


def _percent(value: Value) -> str:
    assert value.low is not None and value.high is not None
    return f"{value.value:3.0f} % [{value.low:.0f}, {value.high:.0f}]"
