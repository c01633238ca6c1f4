"""What is known of the form's settings before a run: the base model, the pictures, and what the run will take."""

from __future__ import annotations

import json
from pathlib import Path

from lora_studio.config.settings import Settings
from lora_studio.dataset import epochs
from lora_studio.dataset.items import Dataset
from lora_studio.errors import StudioError
from lora_studio.jobs import warm
from lora_studio.jobs.warm import MemoryEstimate
from lora_studio.language import tr
from lora_studio.ui import paths, words
from lora_studio.ui.fields import FormReading
from lora_studio.ui.pages.train import cost, pictures
from lora_studio.ui.pages.train.cost import MeasuredPace
from lora_studio.ui.scene import base_look
from lora_studio.ui.scene.base_look import BaseLook

_MOST_SCANNED = 8
_MOST_ESTIMATES = 32
_NO_MEMORY = frozenset(("data", "name", "trigger", "steps", "seed", "preview_prompts"))
"""Settings that change often and take no memory."""


class Outlook:
    """Looks at what the form names. Nothing is read twice that has not changed."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.measured: dict[tuple[object, ...], MeasuredPace] = {}
        """What checks of the memory have measured, by the ``cost.pace`` of their settings."""
        self._scanned: dict[tuple[str, bool], Dataset] = {}
        """What was found in the folders that were looked at last, by their paths and whether nested ones count."""
        self._estimated: dict[str, MemoryEstimate] = {}

    def base_of(self, reading: FormReading) -> tuple[BaseLook | None, FormReading]:
        """What the base model is; and ``reading``, with what is wrong with it."""
        run = (reading.usable or Settings()).run
        base = paths.tidy(reading.values.get("base") or "")
        try:
            found = base_look.look(base, paths.tidy(run.vae), [paths.tidy(path) for path in run.text_encoders])
            return found, reading
        except (StudioError, OSError) as error:
            what = str(error) if base else tr("Choose a base model.")
            return None, reading._replace(
                wrong={**reading.wrong, "base": tr("Base model: {what}", what=what)},
                beside={**reading.beside, "base": what},
            )

    def cost(self, reading: FormReading, base: BaseLook | None) -> str:
        """What the run will take, as HTML; empty while something is wrong."""
        if reading.settings is None or reading.wrong:
            return ""
        settings = reading.settings
        dataset = self._scanned.get((paths.tidy(settings.run.data), settings.dataset.nested))
        if settings.run.epochs and dataset:
            try:
                settings = epochs.settled(settings, dataset.pictures)
            except StudioError:  # which Start tells
                return ""
        measured = self.measured.get(cost.pace(settings))
        return cost.line(settings, dataset, base, measured, self.outputs, None if measured else self.estimate(settings))

    def estimate(self, settings: Settings) -> MemoryEstimate | None:
        """The memory that the run takes; None while that is not known. It stays known while something is at work, when
        nobody estimates.
        """
        known = {name: value for name, value in settings.flat().items() if name not in _NO_MEMORY}
        key = json.dumps([settings.run.has_pairs, known])
        if found := self._estimated.get(key) or warm.estimate(settings):
            self._estimated[key] = found
            while len(self._estimated) > _MOST_ESTIMATES:
                del self._estimated[next(iter(self._estimated))]
        return found

    def report(self, data: str, settings: Settings) -> str:
        """The pictures in the folder ``data``, as HTML."""
        try:
            found = pictures.scan(data, self.outputs, settings.dataset.nested)
            self._scanned[(data, settings.dataset.nested)] = found
            while len(self._scanned) > _MOST_SCANNED:
                del self._scanned[next(iter(self._scanned))]
            return pictures.report(found, settings, self.outputs, self._resolution(settings))
        except (StudioError, OSError) as error:
            return words.notice("wrong", str(error))

    def _resolution(self, settings: Settings) -> int:
        """That the base model was trained at; 0 where that is not known."""
        try:
            return base_look.look(paths.tidy(settings.run.base)).resolution
        except (StudioError, OSError):  # which stands at its field
            return 0
