"""What a run's setting ``data`` names: a folder of pictures, or a file of pairs."""

from __future__ import annotations

from pathlib import Path

from lora_studio.config.settings import Settings
from lora_studio.dataset import folder, slider_pairs
from lora_studio.dataset.examination import Progress
from lora_studio.dataset.items import Dataset


def scan(
    settings: Settings, cache: Path | None = None, progress: Progress | None = None, *, by_content: bool = False
) -> Dataset:
    """What a run with ``settings`` trains on. Problems of a folder are in the result, see ``folder.scan``.

    Raises:
        SettingsError, DatasetError: of a file of pairs, as ``slider_pairs.scan``.
    """
    data = Path(settings.run.data)
    if settings.run.has_pairs:
        return slider_pairs.scan(data, cache, by_content=by_content)
    return folder.scan(data, cache, progress, nested=settings.dataset.nested, by_content=by_content)
