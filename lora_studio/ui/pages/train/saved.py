"""A run's states: those that it could resume from, and those that were judged. A star protects a saved state from
deletion, and a new run can branch from any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lora_studio.evaluation.judgements import Judgement
from lora_studio.evaluation.value import number
from lora_studio.language import ntr, tr
from lora_studio.runs.checkpoints import Damaged, Saved
from lora_studio.ui import words
from lora_studio.ui.icons import icon
from lora_studio.ui.pages.train import judged_curves
from lora_studio.ui.pages.train.judged import Evaluation

_HINT = tr("Starred states are never deleted. Branching starts a new run from a saved state; this run stays as it is.")
_MEASURES = {"style": tr("Style"), "subjects": tr("Subjects"), "copies": tr("Copies"), "drift": tr("Drift")}
"""The names of the columns, by their classes."""


def html(
    states: Sequence[Saved],
    damaged: Sequence[Damaged] = (),
    found: Evaluation | None = None,
    shown: int | None = None,
    most: int = 0,
) -> str:
    """One row per state, newest first, then those that are damaged.

    Args:
        found: what is known of judged states, which have their measures in the rows.
        shown: the step of the state whose pictures are shown.
        most: how many adapters the run keeps with its previews.
    """
    found = found or Evaluation()
    bad = {one.folder for one in damaged}
    there = {one.step: one for one in states if one.folder not in bad}
    steps = sorted({*there, *found.unjudged, *(one.step for one in found.states)}, reverse=True)
    rows = "".join(_row(step, there.get(step), found, shown) for step in steps)
    columns = _columns(found)
    rows += "".join(
        f'<tr><td></td><th scope="row">{tr("step {step:,}", step=one.step)}</th>'
        f'<td colspan="{columns}">{words.text(tr("damaged: {why}", why=one.why))}</td></tr>'
        for one in damaged
    )
    hint = f'<p class="hint">{" ".join(filter(None, (str(_HINT), _alone(there, found, most))))}</p>'
    return f'<div class="saved"><table>{_head(found)}<tbody>{rows}</tbody></table></div>{hint}'


def _alone(there: Mapping[int, Saved], found: Evaluation, most: int) -> str:
    """What the adapters that are kept alone take, and which of them stay."""
    alone = [step for step in found.sizes if step not in there]
    if not alone or not most:
        return ""
    size = words.size(sum(found.sizes[step] for step in alone))
    return ntr(
        len(alone),
        "{count:,} adapter kept with previews or judgements: {size}. Of those that are neither kept nor judged, the "
        "latest {most} stay.",
        "{count:,} adapters kept with previews or judgements: {size}. Of those that are neither kept nor judged, the "
        "latest {most} stay.",
        size=size,
        most=most,
    )


def _columns(found: Evaluation) -> int:
    return 2 + len(_names(found))


def _names(found: Evaluation) -> list[tuple[str, str]]:
    """The columns of the measures, each with its class and its name; none where nothing was judged."""
    return [*_MEASURES.items(), *(("extra", name) for name in _extra(found))] if found.states else []


def _extra(found: Evaluation) -> list[str]:
    """Further measures that some of the states have."""
    return list({name: None for one in found.states for name in one.extra})


def _head(found: Evaluation) -> str:
    if not found.states:
        return ""
    names = "".join(f'<th scope="col" class="{kind}">{words.text(name)}</th>' for kind, name in _names(found))
    state, saved = tr("State"), tr("Saved")
    return f'<thead><tr><td></td><th scope="col">{state}</th>{names}<th scope="col">{saved}</th><td></td></tr></thead>'


def _row(step: int, saved: Saved | None, found: Evaluation, shown: int | None) -> str:
    one = found.at(step)
    measures = "".join(
        f'<td class="{kind}" data-name="{words.text(name)}">{text}</td>'
        for (kind, name), text in zip(_names(found), _measured(one, found), strict=True)
    )
    kind = ' class="shown"' if one and step == shown else ""
    star, name = _star(saved) if saved else "", _name(step, one, found, shown)
    return (
        f'<tr{kind}><td class="mark">{star}</td><th scope="row">{name}</th>{measures}'
        f'<td class="what">{_about(saved, found.sizes.get(step, 0))}</td>'
        f'<td class="acts">{_acts(step, saved, found)}</td></tr>'
    )


def _name(step: int, one: Judgement | None, found: Evaluation, shown: int | None) -> str:
    if one is None:
        return tr("step {step:,}", step=step)
    proposed = f' <span class="chip">{tr("recommended")}</span>' if step == found.proposed else ""
    about = f' title="{words.text(tr("Show its pictures"))}" aria-pressed="{str(step == shown).lower()}"'
    return button("show", step, tr("step {step:,}", step=step), "quiet-link", about) + proposed


def _measured(one: Judgement | None, found: Evaluation) -> list[str]:
    """The values of a state's measures, as HTML."""
    if one is None:
        return ["–"] * len(_names(found))
    holds = f"<b>{tr('fade')}</b>" if one.fades else tr("hold")
    subjects = f"{number(one.subject.value, '.2f')} {holds}"
    copies = f"<b>▲ {len(one.copies)}</b>" if one.copies else tr("none")
    if count := len(one.memorized.pictures):
        by_caption = tr("{count} of {asked} by caption", count=count, asked=one.memorized.asked)
        copies = f"{copies}, {by_caption}"
    margin = judged_curves.interval(one.style)
    style = f"{number(one.style.value)} %<span>{f' ({margin})' if margin else ''}</span>"
    extra = [words.figure(one.extra[name].value) if name in one.extra else "–" for name in _extra(found)]
    return [style, subjects, copies, number(one.drift.value, ".2f"), *extra]


def _star(one: Saved) -> str:
    act, title = ("unstar", tr("Remove the star")) if one.starred else ("star", tr("Never delete this state"))
    title = words.text(title)
    about = f' title="{title}" aria-label="{title}" aria-pressed="{str(one.starred).lower()}"'
    return button(act, one.step, icon("star"), "star", about)


def _about(one: Saved | None, size: int) -> str:
    if one is None:
        return f"{tr('adapter only')} · {words.size(size)}"
    return f"{words.day_and_time(one.at)} · {words.size(one.size)}"


def _acts(step: int, saved: Saved | None, found: Evaluation) -> str:
    buttons = []
    if step in found.kept:
        buttons.append(is_kept())
    elif step in found.steps:
        buttons.append(keep(step, tr("Keep this one")))
    if saved or step in found.steps:
        buttons.append(branch(step))
    return "".join(buttons)


def is_kept() -> str:
    """That a state was kept."""
    return f'<span class="is-kept">{tr("kept")}</span>'


def branch(step: int, kind: str = "quiet") -> str:
    """The button that branches from a state; ``kind`` as of ``button``."""
    spoken = tr("Branch from step {step:,}", step=step)
    return button("branch", step, tr("Branch"), kind, f' aria-label="{words.text(spoken)}"')


def keep(step: int, label: str, kind: str = "quiet") -> str:
    """The button that keeps a state; ``kind`` as of ``button``."""
    title = tr("Keep step {step:,} as an adapter of its own", step=step)
    spoken = tr("{label}: step {step:,}", label=label, step=step)
    about = f' title="{words.text(title)}" aria-label="{words.text(spoken)}"'
    return button("keep", step, label, kind, about)


def button(act: str, step: int, label: str, kind: str, more: str = "") -> str:
    """A button that asks for something to be done with a state, as HTML. ``more`` are further attributes."""
    return f'<button type="button" class="{kind}" data-act="{act}" data-step="{step}"{more}>{label}</button>'


CHOOSE = """
const all = () => [...element.querySelectorAll('a, button')];
let pressed = null;
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  const name = button?.dataset.act === 'show' ? 'input' : 'click';
  if (!button) return;
  pressed = {button, place: all().indexOf(button)};
  trigger(name, {act: button.dataset.act, step: button.dataset.step});
});
new MutationObserver(() => {
  if (!pressed || pressed.button.isConnected) return;
  if (document.activeElement === document.body) all()[pressed.place]?.focus({preventScroll: true});
  pressed = null;
}).observe(element, {childList: true, subtree: true});
"""
"""Reports which button was pressed: as an input where it only shows another state; for ``gr.HTML(js_on_load=...)``. If
the button goes away by that, what stands in its place gets the focus, so that the keyboard need not start anew.
"""
