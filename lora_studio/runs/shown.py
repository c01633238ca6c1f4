"""The pictures that show what an adapter does: previews of its run, without it and with it. No torch."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from lora_studio import events
from lora_studio.errors import SettingsError
from lora_studio.runs import Run


class Shown(NamedTuple):
    """One prompt's pictures."""

    prompt: str
    """As it was written, without the trigger word."""
    style: Path
    base: Path | None
    """Drawn without the adapter; None if there is none."""


def of(run: Run, step: int | None = None) -> list[Shown]:
    """The previews of the latest step, or of the latest up to ``step``, by the order of their prompts; empty if there
    are none.
    """
    drawn = _steps(run)
    able = [one for one in drawn if step is None or one <= step]
    if not able:
        return []
    prompts = _prompts(run)
    return [
        Shown(prompts.get(index, ""), path, base if (base := run.preview_file(0, index, base=True)).is_file() else None)
        for index, path in sorted(drawn[max(able)].items())
    ]


def _steps(run: Run) -> dict[int, dict[int, Path]]:
    """Step -> number of the prompt -> preview. Step 0, where what starts from nothing is the base, is left out."""
    found: dict[int, dict[int, Path]] = {}
    try:
        names = os.listdir(run.previews)
    except OSError:
        return {}
    for name in names:
        kind, *numbers = name.removesuffix(".png").split("-")
        if kind == "step" and name.endswith(".png") and len(numbers) == 2 and all(map(str.isdecimal, numbers)):
            step, index = map(int, numbers)
            if step:
                found.setdefault(step, {})[index] = run.previews / name
    return found


def _prompts(run: Run) -> dict[int, str]:
    """What the previews show, as the run's events tell."""
    try:
        stat = os.stat(run.events_file)
        trigger = run.settings().run.trigger
    except (OSError, SettingsError):
        return {}  # the pictures speak for themselves
    return {
        index: prompt.removeprefix(trigger).replace("{trigger}", "").strip(" ,")
        for index, prompt in _told(run.events_file, stat.st_size)
    }


@lru_cache(maxsize=256)
def _told(file: Path, _size: int) -> tuple[tuple[int, str], ...]:
    """Number and text of each prompt, by the last preview of it."""
    found: dict[int, str] = {}
    with open(file, "rb") as lines:
        for line in lines:
            if b'"kind":"preview"' in line:
                with suppress(ValueError):  # cut off as the power failed
                    one = events.parse(line)
                    if isinstance(one, events.PreviewReady):
                        found[one.index] = one.prompt
    return tuple(sorted(found.items()))
