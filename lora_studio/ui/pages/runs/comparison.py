"""Two runs compared, as HTML: their previews side by side, their curves over each other, what both measured, and the
settings that differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from lora_studio.config.specs import SPECS
from lora_studio.errors import SettingsError
from lora_studio.events import PreviewReady
from lora_studio.jobs.view import RunView
from lora_studio.language import ntr, tr
from lora_studio.runs import Run
from lora_studio.ui import images, words
from lora_studio.ui.pages.runs import curves, state_words
from lora_studio.ui.pages.runs.curves import SIDES
from lora_studio.ui.pages.runs.measured_both import ComparedValue, RunFacts, figures
from lora_studio.ui.pages.train import previews
from lora_studio.ui.pages.train.live import RunWatcher
from lora_studio.ui.pages.train.previews import Filmstrip

_UNTOLD = {"name"}
"""Settings that differ between any two runs and teach nothing."""


class _Side(NamedTuple):
    """One of the two runs."""

    run: Run
    facts: RunFacts
    film: Filmstrip
    step: int | None
    """Whose previews are shown."""

    @property
    def view(self) -> RunView:
        return self.facts.view


def html(pair: Sequence[Run], steps: Mapping[int, int], watcher: RunWatcher) -> str:
    """The comparison.

    Args:
        pair: the two runs.
        steps: the steps that were chosen, by 0 for the first run and 1 for the second; else the last of each.
        watcher: knows the runs.
    """
    with ExitStack() as views:
        sides = [
            _side(run, views.enter_context(watcher.view(run)), steps.get(place), watcher)
            for place, run in enumerate(pair)
        ]
        heads = "".join(_head(side, name, place) for place, (side, name) in enumerate(zip(sides, SIDES, strict=True)))
        parts = [_films(sides, watcher), _curves(sides), _measured(sides), _settings(pair)]
        return f'<div class="comparison"><div class="contestants">{heads}</div>{"".join(parts)}</div>'


def _side(run: Run, view: RunView, chosen: int | None, watcher: RunWatcher) -> _Side:
    film = previews.filmstrip(view)
    last = film.steps[-1] if film.steps else None
    return _Side(run, RunFacts(view, watcher.evaluations.of(run)), film, chosen if chosen in film.steps else last)


def _head(side: _Side, name: str, place: int) -> str:
    """The run's name, its state, and the step whose previews are shown, to be chosen."""
    title, state = words.text(side.run.name), words.text(state_words.named(side.run, side.view))
    options = "".join(
        f'<option value="{step}"{" selected" * (step == side.step)}>{tr("step {step:,}", step=step)}</option>'
        for step in side.film.steps
    )
    label = tr("Step of {run}", run=title)
    chosen = f'<select data-side="{place}" aria-label="{label}">{options}</select>' if options else ""
    return f'<div class="contestant {name}"><h3>{title}</h3><span>{state}</span>{chosen}</div>'


def _films(sides: Sequence[_Side], watcher: RunWatcher) -> str:
    """The previews of the prompts that both drew, side by side."""
    one, other = sides
    places = [_by_prompt(side) for side in sides]
    shared = [prompt for prompt in places[0] if prompt in places[1]]
    if not shared:
        said = tr("No prompt was drawn by both.") if one.film.steps and other.film.steps else ""
        return f'<p class="hint">{said}</p>' if said else ""
    shown = "".join(_pair(prompt, [place[prompt] for place in places], sides, watcher) for prompt in shared)
    left = sum(len(place) for place in places) - 2 * len(shared)
    rest = f'<p class="hint">{_by_one_alone(left)}</p>' if left else ""
    return f'<h3>{tr("Previews")}</h3><div class="pairs">{shown}</div>{rest}'


def _by_one_alone(count: int) -> str:
    return ntr(
        count,
        "{count:,} other prompt was drawn by one of them alone.",
        "{count:,} other prompts were drawn by one of them alone.",
    )


def _by_prompt(side: _Side) -> dict[str, PreviewReady]:
    """The previews of the step that is shown, by their prompts."""
    frames = side.film.frames.get(side.step, {}) if side.step is not None else {}
    return {frame.prompt: frame for _, frame in sorted(frames.items())}


def _pair(prompt: str, frames: Sequence[PreviewReady], sides: Sequence[_Side], watcher: RunWatcher) -> str:
    pictures = "".join(_picture(side, frame, watcher) for side, frame in zip(sides, frames, strict=True))
    seeds = {frame.seed for frame in frames}
    same = "" if len(seeds) == 1 else f" · {tr('other seeds')}"
    return f"<figure>{pictures}<figcaption>{words.text(prompt)}{same}</figcaption></figure>"


def _picture(side: _Side, frame: PreviewReady, watcher: RunWatcher) -> str:
    path = previews.copy(side.run, frame, watcher.outputs, images.PICTURE)
    if path is None:
        return '<span class="gone"></span>'
    title = words.text(tr("{prompt}, {name}, step {step:,}", prompt=frame.prompt, name=side.run.name, step=frame.step))
    return f'<img src="{words.text(images.address(path))}" alt="{title}" title="{title}" loading="lazy">'


def _curves(sides: Sequence[_Side]) -> str:
    """Loss, validation, style learned and subjects, of those what there is."""
    views, found = [side.view for side in sides], [side.facts.found for side in sides]
    losses = [curves.trend([(step.step, step.loss) for step in view.steps]) for view in views]
    validation = [[(value.step, value.value) for value in view.validations] for view in views]
    style = [[(state.step, state.style.value) for state in one.states] for one in found]
    subjects = [[(state.step, state.subject.value) for state in one.states] for one in found]
    drawn = [
        curves.chart(tr("Loss, smoothed"), losses),
        curves.chart(tr("Validation"), validation, dots=True),
        curves.chart(tr("Style learned"), style, dots=True, unit=" %"),
        curves.chart(tr("Subjects"), subjects, dots=True),
    ]
    shown = "".join(drawn)
    return f'<h3>{tr("Curves")}</h3><div class="curves">{shown}</div>' if shown else ""


def _measured(sides: Sequence[_Side]) -> str:
    rows = figures(*(side.facts for side in sides))
    return _table(tr("Measured"), [side.run.name for side in sides], rows) if rows else ""


def _settings(pair: Sequence[Run]) -> str:
    """The settings that differ, in the words of the form."""
    try:
        one, other = (run.settings().flat() for run in pair)
    except SettingsError as error:
        return words.notice("wrong", error.what, error.where, error.do)
    told = [key for key in SPECS if key in one and key not in _UNTOLD]
    differ = [key for key in told if one[key] != other[key]]
    if not differ:
        return f'<h3>{tr("Settings")}</h3><p class="hint">{tr("All settings are the same.")}</p>'
    rows = [ComparedValue(SPECS[key].label, _value(key, one[key]), _value(key, other[key])) for key in differ]
    same = ntr(
        len(told) - len(differ), "{count:,} other setting is the same.", "{count:,} other settings are the same."
    )
    table = _table(tr("Settings that differ"), [run.name for run in pair], rows)
    return f'{table}<p class="hint">{same}</p>'


def _value(key: str, value: object) -> str:
    """As the form shows it."""
    return SPECS[key].title(value) if SPECS[key].kind == "choice" else words.value(value)


def _table(title: str, names: Sequence[str], rows: Sequence[ComparedValue]) -> str:
    heads = "".join(
        f'<th scope="col" class="{side}">{words.text(name)}</th>' for side, name in zip(SIDES, names, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{words.text(row.name)}</th><td>{words.text(row.one)}</td>'
        f"<td>{words.text(row.other)}</td></tr>"
        for row in rows
    )
    return (
        f'<h3>{title}</h3><div class="differences"><table><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


PRESS = """
element.addEventListener('change', event => {
  const {side} = event.target.dataset;
  if (side) trigger('click', {act: 'step', side: Number(side), step: Number(event.target.value)});
});
"""
"""Reports the step that was chosen; for ``gr.HTML(js_on_load=...)``."""
