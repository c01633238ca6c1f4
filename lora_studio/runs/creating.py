"""New folders for runs, captioning jobs and uploaded pictures. An existing one is never touched."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lora_studio import files
from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.config.slices import RunSettings
from lora_studio.errors import RunError
from lora_studio.language import tr
from lora_studio.runs.layout import OUTPUTS, OWN_FOLDERS, Run, captioning_folder, pictures_folder


def new_captioning(name: str, outputs: Path = OUTPUTS) -> Path:
    """A new folder for a captioning job. An existing one is never touched: the name gets a number.

    Raises:
        OSError: the folder cannot be made.
    """
    files.make_folder(captioning_folder(outputs))
    return _claim(captioning_folder(outputs), files.safe_name(name))


def new_pictures(name: str, outputs: Path = OUTPUTS) -> Path:
    """A new folder for an uploaded dataset, with single spaces in its name. An existing one is never touched: the name
    gets a number.

    Raises:
        OSError: the folder cannot be made.
    """
    files.make_folder(pictures_folder(outputs))
    return _claim(pictures_folder(outputs), files.safe_name(name, spaces=True))


def wanted_name(settings: RunSettings) -> str:
    """The name of a run with these settings, before it gets a number if the name is taken."""
    data = Path(settings.data)
    name = files.safe_name(settings.name or (data.stem if settings.has_pairs else data.name) or "style")
    return f"run-{name}" if name.casefold() in OWN_FOLDERS else name


def create(settings: Settings, outputs: Path = OUTPUTS) -> Run:
    """Creates a run's folder with its settings. An existing run is never touched: the name gets a number.

    Raises:
        RunError: the name of the outputs folder is not valid Unicode.
        MachineError: the outputs folder cannot be written; nothing is left behind.
    """
    require_text(outputs)
    wanted = wanted_name(settings.run)
    try:
        files.make_folder(outputs)
        run = Run(_claim(outputs, wanted))
        with or_nothing(run.folder):
            for sub in (run.control, run.previews, run.checkpoints):
                sub.mkdir()
            presets.save_settings(settings.changed(name=run.name), run.settings_file)
            files.sync_folder(outputs)
    except OSError as error:
        raise files.refusal(error, tr("The run's folder cannot be created"), outputs) from error
    return run


@contextmanager
def or_nothing(folder: Path) -> Generator[None]:
    """Within it a new folder is filled; whatever prevents that, the folder is gone."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def require_text(outputs: Path) -> None:
    """Raises RunError where the name of the outputs folder is not valid Unicode: settings and logs name files in it."""
    if not files.is_text(outputs.absolute()):
        raise RunError(
            tr("The path of the outputs folder is not valid Unicode."),
            where=files.printable(outputs.absolute()),
            do=tr("Rename that folder, or choose another one with --outputs."),
        )


def _claim(parent: Path, wanted: str) -> Path:
    """Makes a new folder in ``parent``: ``wanted``, or with a number if there is one."""
    number = 1
    while True:
        folder = parent / (wanted if number == 1 else f"{wanted}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
