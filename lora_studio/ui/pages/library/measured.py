"""The pictures that one adapter was judged by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_studio.evaluation import judgements, strength
from lora_studio.language import number, tr
from lora_studio.runs import Run
from lora_studio.runs.library import Entry
from lora_studio.ui import images, words
from lora_studio.ui.pages.library import measures

_PROMPTS = 4
"""Prompts that are shown at every strength."""


def html(entry: Entry, found: measures.Measures, outputs: Path) -> str:
    """The pictures that ``found`` was measured of, folded, as HTML."""
    run, step = Run(outputs / entry.run), entry.state or 0
    under = judgements.conditions(run, step)
    prompts = under.plan.prompts if under else ()
    return _drawn(run, step, prompts, outputs) + _by_strength(run, step, prompts, found, outputs)


def _drawn(run: Run, step: int, prompts: tuple[str, ...], outputs: Path) -> str:
    folder = judgements.state_folder(judgements.folder(run), step)
    shown = [_picture(folder / f"{index}-0.png", prompt, outputs) for index, prompt in enumerate(prompts)]
    return _folded(tr("Pictures that were judged"), "judged", shown)


def _by_strength(run: Run, step: int, prompts: tuple[str, ...], found: measures.Measures, outputs: Path) -> str:
    """The first prompts, a row each, at every strength that was measured."""
    strengths = [row.strength for row in found.strength.rows] if found.strength else []
    shown = [
        _picture(
            strength.picture(run, step, index, 0, at),
            tr("{prompt}, strength {strength:g}", prompt=prompt, strength=at),
            outputs,
        )
        for index, prompt in enumerate(prompts[:_PROMPTS])
        for at in strengths
    ]
    head = "".join(f"<b>{number(at, 'g')}</b>" for at in strengths)
    return _folded(tr("Pictures by strength"), "strengths", shown, head)


def _folded(summary: str, kind: str, shown: Sequence[str], head: str = "") -> str:
    if not any(shown):
        return ""
    inside = head + "".join(one or "<span></span>" for one in shown)
    return (
        f'<details class="recipe"><summary>{words.text(summary)}</summary><div class="{kind}">{inside}</div></details>'
    )


def _picture(file: Path, prompt: str, outputs: Path) -> str:
    """A small copy; empty where there is no such picture."""
    try:
        copy = images.copy(file, outputs, images.THUMBNAIL, images.preview)
    except OSError:
        return ""
    told = words.text(prompt)
    return f'<img src="{words.text(images.address(copy))}" alt="{told}" title="{told}" loading="lazy">'
