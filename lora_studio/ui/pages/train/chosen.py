"""The frame of the film that is chosen: what can be done with its state, and the frame itself, large, beside what the
base model or another step drew of the same prompt with the same seed. As HTML.
"""

from __future__ import annotations

from pathlib import Path

from lora_studio.errors import RunError
from lora_studio.language import tr
from lora_studio.runs import Run
from lora_studio.ui import downloads, images, tabs, words
from lora_studio.ui.icons import icon
from lora_studio.ui.pages.train import saved
from lora_studio.ui.pages.train.judged import Evaluation
from lora_studio.ui.pages.train.previews import Filmstrip, copy, short

COMPARE, CLOSE = "compare", "close"
"""What the head and the pair ask for, beside what the buttons of states do."""


def shown(film: Filmstrip, step: int | None, prompt: int) -> int | None:
    """The step whose frame is chosen: ``step``, or the latest that drew ``prompt``; None before the first."""
    drawn = [one for one in film.steps if prompt in film.frames[one]]
    return step if step in drawn else drawn[-1] if drawn else None


def head(
    run: Run,
    film: Filmstrip,
    step: int | None,
    prompt: int,
    outputs: Path,
    found: Evaluation,
    comparing: bool = False,
    moving: bool = False,
    trigger: str = "",
) -> str:
    """The heading of the film with the frame that is chosen and what can be done with its state (``found``).

    Args:
        comparing: the frame is shown large.
        moving: it is the latest of a run at work, and the next one will take its place.
    """
    now = shown(film, step, prompt)
    if now is None:
        told = tr("The first frames are drawn without the adapter. Later ones show what it has learned.")
        return f'<div class="film-head"><h2>{tr("Previews")}</h2><p class="hint">{told}</p></div>'
    name, full = words.text(short(film.prompts[prompt], trigger)), words.text(film.prompts[prompt])
    chip = f'<span class="chip" title="{full}">{tr("step {step:,}", step=now)} · {name}</span>'
    compare = (
        f'<button type="button" class="way" data-act="{CLOSE if comparing else COMPARE}" data-step="{now}" '
        f'aria-expanded="{str(comparing).lower()}">{tr("Compare")}</button>'
    )
    ways = f'<div class="ways">{chip}{_acts(run, now, outputs, found, moving)}{compare}</div>'
    return f'<div class="film-head"><h2>{tr("Previews")}</h2>{ways}</div>'


def _acts(run: Run, step: int, outputs: Path, found: Evaluation, moving: bool) -> str:
    """What can be done with the state that a frame shows; where its adapter is not there, that alone is said. A frame
    that is ``moving`` offers no download: the page's copy of each would stay on the disk.
    """
    if step not in found.steps:
        why = words.text(tr("The adapter is kept with the latest previews"))
        return f'<span class="hint" title="{why}">{tr("not kept")}</span>'
    try:
        adapter = found.adapter(run, step)
        keep = saved.is_kept() if step in found.kept else saved.keep(step, tr("Keep this one"), "way")
        download = "" if moving else downloads.link(adapter, outputs, tr("Download"), run.kept_file(step).name)
        draw = tabs.link("draw", adapter.relative_to(outputs).as_posix(), tr("Draw with it"))
    except (RunError, OSError):  # it was deleted since; the next tick shows that
        return ""
    return keep + download + saved.branch(step, "way") + draw


def pair(run: Run, film: Filmstrip, step: int | None, prompt: int, outputs: Path, against: int | None = None) -> str:
    """The chosen frame, large, with a slider over it that uncovers the base model's frame, or that of the step
    ``against``; empty before the first preview.
    """
    now = shown(film, step, prompt)
    if now is None:
        return ""
    other = None if against == now else film.frames.get(against, {}).get(prompt) if against is not None else None
    base, name = other or film.base.get(prompt), _step(against) if other else tr("base model")
    frame = film.frames[now][prompt]
    trained, beside = (copy(run, one, outputs, images.FULL) for one in (frame, base))
    if trained is None:
        return ""
    title, step_now = words.text(frame.prompt), _step(now)
    below = f'<img src="{words.text(images.address(trained))}" alt="{title}, {step_now}">'
    above = labels = ""
    if beside:
        label = tr("Compare with {step}", step=name) if other else tr("Compare with the base model")
        above = (
            f'<img class="base" src="{words.text(images.address(beside))}" alt="{title}, {name}">'
            f'<input type="range" min="0" max="100" value="50" aria-label="{label}">'
        )
        labels = f'<i class="edge"></i><span class="left">{name}</span><span class="right">{step_now}</span>'
    full = tr("Full screen")
    larger = f'<button type="button" class="larger" title="{full}" aria-label="{full}">{icon("expand")}</button>'
    latest = tr("step {step:,}, the latest", step=now) if now == film.steps[-1] else step_now
    return (
        f'<div class="compared"><div class="pair">{below}{above}{labels}{larger}</div>'
        f'<div class="known"><p class="caption"><b>{title}</b>'
        f"<span>{latest} · {tr('seed {seed}', seed=frame.seed)}</span></p>"
        f"{_choice(film, now, prompt, against if other else None)}"
        f'<button type="button" class="way" data-act="{CLOSE}" data-step="{now}">{tr("Close")}</button></div></div>'
    )


def _step(number: int | None) -> str:
    return tr("step {step:,}", step=number)


def _choice(film: Filmstrip, now: int, prompt: int, against: int | None) -> str:
    """What the frame is compared with."""
    steps = [one for one in film.steps if one != now and prompt in film.frames[one]]
    choices = "".join(
        f'<option value="{one}"{" selected" * (one == against)}>{tr("Step {step:,}", step=one)}</option>'
        for one in reversed(steps)
    )
    base = f'<option value="">{tr("Base model")}</option>'
    return f'<label class="against">{tr("Compare with")} <select>{base}{choices}</select></label>'


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
document.addEventListener('keydown', event => {
  if (event.key !== 'Escape' || event.defaultPrevented || document.querySelector('dialog[open]')) return;
  if (document.fullscreenElement || !element.isConnected || !element.checkVisibility()) return;
  const typed = event.target.closest?.('input:not([type="range"]), textarea, [role="listbox"]');
  if (!typed) document.querySelector('#chosen [data-act="close"]')?.click();
});
watch('value', () => requestAnimationFrame(show));
show();
"""
"""Moves the edge between the two pictures, shows them in full screen, and lets Escape close them; for
``gr.HTML(js_on_load=...)``.
"""

RETURN = """
let opener = null, within = false;
const noted = event => {
  within = Boolean(event.target.closest?.('#pair'));
  if (!within) opener = event.target;
};
for (const kind of ['focusin', 'pointerdown']) document.addEventListener(kind, noted);
new MutationObserver(() => {
  if (!element.isConnected || !within || document.querySelector('#pair .pair')) return;
  within = false;
  setTimeout(() => {  // the head is drawn anew too
    if (document.activeElement !== document.body) return;
    const there = opener?.isConnected && opener.checkVisibility() && opener.closest('button');
    (there || element.querySelector('[aria-expanded]'))?.focus({preventScroll: true});
  }, 50);
}).observe(document.getElementById('run') ?? document.body, {childList: true, subtree: true});
"""
"""Gives the focus back to what opened the pair once that is closed; for the head's ``gr.HTML(js_on_load=...)``."""

CHOOSE_OTHER = """
element.addEventListener('change', event => {
  const choice = event.target.closest('select');
  if (choice) trigger('select', {step: choice.value});
});
"""
"""Reports with what the frame is to be compared; for ``gr.HTML(js_on_load=...)``."""
