"""Previews as a filmstrip: one row per prompt, one frame per step, the base model's own preview first."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lora_studio.errors import RunError
from lora_studio.evaluation.value import number
from lora_studio.events import PreviewReady
from lora_studio.jobs.view import RunView
from lora_studio.runs import Run, keeping
from lora_studio.ui import downloads, images, tabs, words
from lora_studio.ui.icons import icon
from lora_studio.ui.pages.train import saved
from lora_studio.ui.pages.train.judged import Evaluation

MOST_STEPS = 40
"""Columns of the filmstrip. A run with more steps shows an even selection, with the first and the last."""


_CHOSEN = ' class="chosen"'


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


def spread(steps: list[int], most: int = MOST_STEPS) -> list[int]:
    """At most ``most`` of ``steps``, evenly chosen, with the first and the last.

    >>> spread(list(range(10)), 4)
    [0, 3, 6, 9]
    """
    return steps if len(steps) <= most else [steps[i * (len(steps) - 1) // (most - 1)] for i in range(most)]


def html(
    run: Run, film: Filmstrip, step: int | None, prompt: int, outputs: Path, found: Evaluation | None = None
) -> str:
    """The filmstrip as HTML. ``step`` and ``prompt`` name the frame that is shown large; step None is the latest.

    Of the states that were judged (``found``), the proposed one is marked, and the style learned stands below.
    """
    if not film.prompts:
        return '<div class="film empty"><p>Previews appear here as they are drawn.</p></div>'
    steps = spread(film.steps)
    chosen = step if step is not None else (steps[-1] if steps else None)
    rows = "".join(_row(run, film, index, steps, chosen, prompt, outputs) for index in film.prompts)
    head = "".join(_step(one, chosen, found.proposed if found else None) for one in steps)
    head = f'<div class="steps" aria-hidden="true"><span>base</span>{head}</div>'
    foot = _styles(steps, chosen, found) if found else ""
    return f'<div class="film" style="--frames:{len(steps) + 1}">{head}{rows}{foot}</div>'


def _step(step: int, chosen: int | None, proposed: int | None) -> str:
    """The name of a column."""
    mark = " ★" if step == proposed else ""
    return f"<span{_CHOSEN * (step == chosen)}>{step:,}{mark}</span>"


def _styles(steps: list[int], chosen: int | None, found: Evaluation) -> str:
    """The style that each step has learned, where it was judged; nothing where none was."""
    judged = [found.at(step) for step in steps]
    if not any(judged):
        return ""
    cells = "".join(
        f"<span{_CHOSEN * (step == chosen)}>{f'{number(one.style.value)} %' if one else ''}</span>"
        for step, one in zip(steps, judged, strict=True)
    )
    return f'<p class="prompt">Style learned</p><div class="steps"><span>0 %</span>{cells}</div>'


def _row(
    run: Run, film: Filmstrip, index: int, steps: list[int], chosen: int | None, prompt: int, outputs: Path
) -> str:
    title = words.text(film.prompts[index])
    cells = [_frame(run, film.base.get(index), "base", f"{title}, base model", False, outputs)]
    for step in steps:
        large = step == chosen and index == prompt
        cells.append(_frame(run, film.frames[step].get(index), str(step), f"{title}, step {step:,}", large, outputs))
    return f'<p class="prompt">{title}</p><div class="row" data-prompt="{index}">{"".join(cells)}</div>'


def _frame(run: Run, one: PreviewReady | None, step: str, title: str, chosen: bool, outputs: Path) -> str:
    path = copy(run, one, outputs, images.THUMBNAIL)
    if path is None:
        return '<span class="frame missing"></span>'
    state = f'class="frame{" chosen" if chosen else ""}" aria-pressed="{str(chosen).lower()}"'
    return (
        f'<button type="button" {state} data-step="{step}" title="{title}">'
        f'<img src="{words.text(images.address(path))}" alt="{title}" loading="lazy"></button>'
    )


def copy(run: Run, one: PreviewReady | None, outputs: Path, side: int) -> Path | None:
    """The page's copy of a preview; None if the preview does not exist or cannot be read."""
    source = images.inside(run.folder, one.path) if one else None
    if source is None:
        return None
    try:
        return images.copy(source, outputs, side, images.preview)
    except OSError:
        return None


def pair(
    run: Run, film: Filmstrip, step: int | None, prompt: int, outputs: Path, found: Evaluation = Evaluation()
) -> str:
    """The chosen frame, large, with a slider to compare it with the base model's preview of the same prompt and seed,
    and what can be done with its state (``found``); empty before the first preview.
    """
    drawn = [one for one in film.steps if prompt in film.frames[one]]
    if not drawn:
        return ""
    now = film.frames[step if step in drawn else drawn[-1]][prompt]
    trained, base = (copy(run, one, outputs, images.FULL) for one in (now, film.base.get(prompt)))
    if trained is None:
        return ""
    title = words.text(now.prompt)
    latest = ", the latest" if now.step == drawn[-1] else ""
    below = f'<img src="{words.text(images.address(trained))}" alt="{title}, step {now.step:,}">'
    above = labels = ""
    if base:
        above = (
            f'<img class="base" src="{words.text(images.address(base))}" alt="{title}, base model">'
            '<input type="range" min="0" max="100" value="50" aria-label="Compare with the base model">'
        )
        labels = f'<i class="edge"></i><span class="left">base</span><span class="right">step {now.step:,}</span>'
    larger = (
        f'<button type="button" class="larger" title="Full screen" aria-label="Full screen">{icon("expand")}</button>'
    )
    return (
        f'<div class="pair">{below}{above}{labels}{larger}</div>'
        f'<p class="caption"><b>{title}</b><span>step {now.step:,}{latest} · seed {now.seed}</span></p>'
        f"{_acts(run, now.step, outputs, found)}"
    )


def _acts(run: Run, step: int, outputs: Path, found: Evaluation) -> str:
    """What can be done with the state that a frame shows; nothing once its adapter is no longer there."""
    if step not in found.steps:
        return ""
    try:
        kept = found.kept.get(step)
        parts = [downloads.link(kept, outputs, "Download") if kept else saved.keep(step, "Keep this one", "way")]
        adapter = kept or keeping.state_file(run, step)
        parts.append(tabs.link("draw", adapter.relative_to(outputs).as_posix(), "Draw with it"))
    except (RunError, OSError):  # it was deleted since; the next tick shows that
        return ""
    if step in found.saved:
        parts.append(saved.button("branch", step, "Branch", "way", f' aria-label="Branch from step {step:,}"'))
    return f'<div class="ways">{"".join(parts)}</div>'


SLIDE = """
const show = () => {
  const pair = element.querySelector('.pair'), slider = pair?.querySelector('input');
  if (slider) pair.style.setProperty('--at', slider.value + '%');
};
element.addEventListener('input', show);
element.addEventListener('click', event => {
  if (!event.target.closest('.larger')) return;
  if (document.fullscreenElement) document.exitFullscreen(); else element.querySelector('.pair').requestFullscreen();
});
watch('value', () => requestAnimationFrame(show));
show();
"""
"""Moves the edge between the two previews, and shows them in full screen; for ``gr.HTML(js_on_load=...)``."""

CHOOSE = """
let atEnd = true, shown;
const follow = () => requestAnimationFrame(() => {
  const film = element.querySelector('.film'), chosen = element.querySelector('.steps .chosen');
  if (!film) return;
  const last = !chosen?.nextElementSibling;
  if (last && atEnd) film.scrollLeft = film.scrollWidth;
  else if (chosen && chosen.textContent !== shown) {
    const [frame, all] = [chosen.getBoundingClientRect(), film.getBoundingClientRect()];
    if (frame.left < all.left + frame.width || frame.right > all.right)
      film.scrollLeft += frame.left - all.left - (all.width - frame.width) / 2;
  }
  shown = chosen?.textContent;
});
element.addEventListener('click', event => {
  const frame = event.target.closest('button[data-step]');
  if (frame) trigger('click', {step: frame.dataset.step, prompt: Number(frame.closest('.row').dataset.prompt)});
});
element.addEventListener('scroll', event => {
  const film = event.target;
  atEnd = film.scrollWidth - film.clientWidth - film.scrollLeft < 40;
}, true);
watch('value', follow);
follow();
"""
"""Reports which frame was clicked. Keeps the newest frame visible unless the user has scrolled away, and shows a step
that is chosen elsewhere; for
``gr.HTML(js_on_load=...)``.
"""
