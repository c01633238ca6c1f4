"""Previews as a filmstrip: one row per prompt, one column per step, the base model's own previews first. Here is what
is shown, as data; ``film_view`` draws it in the browser.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio.config.settings import Settings
from lora_studio.evaluation.judgements import Judgement
from lora_studio.evaluation.value import STYLE_SCALE, SUBJECT_SCALE, TOO_FEW, number
from lora_studio.events import PreviewReady
from lora_studio.jobs.view import RunView
from lora_studio.language import tr
from lora_studio.runs import Run
from lora_studio.ui import images
from lora_studio.ui.pages.train.judged import Evaluation

MOST_STEPS = 40
"""Columns of the filmstrip. A run with more steps shows an even selection, with the first and the last."""
_PLANNED = 12
"""Columns that are shown empty before they are drawn; of a longer run, none are."""


class Filmstrip(NamedTuple):
    """A run's previews, sorted."""

    prompts: dict[int, str]
    base: dict[int, PreviewReady]
    frames: dict[int, dict[int, PreviewReady]]
    """Step -> index of the prompt -> preview."""

    @property
    def steps(self) -> list[int]:
        return sorted(self.frames)


def filmstrip(view: RunView) -> Filmstrip:
    """The filmstrip of ``view``. A preview that was drawn again replaces the earlier one."""
    prompts: dict[int, str] = {}
    base: dict[int, PreviewReady] = {}
    frames: dict[int, dict[int, PreviewReady]] = {}
    for one in view.previews:
        prompts[one.index] = one.prompt
        if one.base:
            base[one.index] = one
        else:
            frames.setdefault(one.step, {})[one.index] = one
    return Filmstrip(dict(sorted(prompts.items())), base, frames)


def spread(steps: Sequence[int], wanted: Collection[int] = (), most: int = MOST_STEPS) -> list[int]:
    """At most ``most`` of ``steps``, and those of them that are ``wanted``: every second, fourth … of them, with the
    first and the last, so that few columns change when a step is added.

    >>> spread(range(10), [5], 5)
    [0, 4, 5, 8, 9]
    """
    stride, kept = 1, list(steps)
    while len(kept) > most - 1 and stride < len(steps):
        stride *= 2
        kept = list(steps[::stride])
    return sorted({*kept, *steps[-1:], *(step for step in wanted if step in steps)})


def planned(settings: Settings | None, view: RunView) -> list[int]:
    """The steps at which a run will have drawn, if it goes on as its settings say; empty where that is not known."""
    if settings is None or not view.started:
        return []
    total, every = view.started.total_steps, settings.previews.preview_every
    return sorted({*(range(every, total + 1, every) if every else ()), total})


def data(
    run: Run,
    film: Filmstrip,
    step: int | None,
    prompt: int,
    outputs: Path,
    found: Evaluation | None = None,
    lowest: int | None = None,
    to_come: Sequence[int] = (),
    trigger: str = "",
    awaits: bool = False,
) -> dict[str, Any]:
    """What ``film_view`` draws. ``step`` and ``prompt`` name the frame that is chosen; step None is the latest.

    Args:
        found: of judged states, what each has learned; the proposed one is marked.
        lowest: the step of lowest validation, which is marked, too.
        to_come: all steps at which the run means to draw.
        trigger: the run's trigger word, with which prompts begin.
        awaits: whether states will be judged, so that there is a place for what each has learned.
    """
    found = found or Evaluation()
    steps = spread(film.steps, [one for one in (step, found.proposed, lowest) if one is not None])
    coming = [one for one in to_come if one not in film.frames and (not steps or one > steps[-1])]
    judged = {one.step: one for one in found.states}
    return {
        "root": images.address(images.folder(outputs)) + "/",
        "prompts": [[index, short(text, trigger), text] for index, text in film.prompts.items()],
        "base": _keys(run, film, film.base, outputs),
        "columns": [
            [one, _keys(run, film, film.frames[one], outputs), *_learned(judged.get(one), judged)] for one in steps
        ],
        "coming": coming if len(steps) + len(coming) <= _PLANNED else [],
        "frames": 1 + max(1, len(steps) + len(coming)),
        "step": step if step is not None else steps[-1] if steps else None,
        "prompt": prompt,
        "judged": awaits or bool(found.states),
        "proposed": found.proposed,
        "lowest": lowest,
    }


def short(prompt: str, trigger: str) -> str:
    """The prompt without the trigger word at its beginning, which all of a run's prompts share.

    >>> short("anastyle, a cat", "anastyle"), short("a cat, anastyle", "anastyle"), short("anastyle", "anastyle")
    ('a cat', 'a cat, anastyle', 'anastyle')
    """
    rest = prompt.removeprefix(trigger).lstrip(" ,")
    return rest if trigger and rest else prompt


def _keys(run: Run, film: Filmstrip, drawn: Mapping[int, PreviewReady], outputs: Path) -> list[str]:
    """The names of the page's copies, without folder and ending, in the order of the prompts; empty for one that is
    not there.
    """
    found = (copy(run, drawn.get(index), outputs, images.THUMBNAIL) for index in film.prompts)
    return [path.stem if path else "" for path in found]


def _learned(one: Judgement | None, judged: Mapping[int, Judgement]) -> list[str | bool]:
    """The style learned, how sure that is, whether subjects hold, in words and whether they are seen to fade; empty
    where that was not judged.
    """
    if one is None:
        return []
    low, high = one.style.low, one.style.high
    sure = "" if low is None or high is None else f"± {number((high - low) / 2)}"
    if one.style.vague(STYLE_SCALE):
        sure = TOO_FEW
    earlier = any(other.fades for step, other in judged.items() if step < one.step)
    fading, vague = tr("fade") if earlier else tr("fade from here"), one.subject.vague(SUBJECT_SCALE)
    subjects = "?" if vague else fading if one.fades else tr("hold")
    return [f"{number(one.style.value)} %", sure, subjects, one.fades and not vague]


def copy(run: Run, one: PreviewReady | None, outputs: Path, side: int) -> Path | None:
    """The page's copy of a preview; None if the preview does not exist or cannot be read."""
    source = images.inside(run.folder, one.path) if one else None
    if source is None:
        return None
    try:
        return images.copy(source, outputs, side, images.preview)
    except OSError:
        return None
