"""What PyTorch and the operating system raise, as the studio's own errors: a table, first match wins."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lora_studio import files
from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError, StudioError
from lora_studio.events import Warned
from lora_studio.language import tr
from lora_studio.runs import Run
from lora_studio.training import devices, memory

Rule = tuple[Callable[[BaseException], bool], Callable[..., StudioError]]
"""Whether it applies to an exception, and the error to raise in its place."""


def while_training(run: Run, settings: Settings) -> list[Rule]:
    """The table for a run with ``settings``."""

    def refused(error: OSError) -> StudioError:
        return files.refusal(error, tr("The run cannot continue"), Path(error.filename or run.folder))

    return [
        (devices.memory_full, lambda _: _does_not_fit(settings)),
        (devices.lost, devices.device_lost),
        (lambda error: isinstance(error, OSError), refused),
    ]


def while_drawing() -> list[Rule]:
    """The table for a single image."""
    no_room = MachineError(
        tr("The image does not fit in memory."),
        do=tr("Use fewer adapters or a smaller size, or close other programs that use much memory."),
    )
    return [(devices.memory_full, lambda _: no_room), (devices.lost, devices.device_lost)]


def translated(error: BaseException, rules: Sequence[Rule]) -> StudioError | None:
    """The error to tell in place of ``error``: itself if it is one of the studio's, None if no rule applies."""
    if isinstance(error, StudioError):
        return error
    return next((translate(error) for applies, translate in rules if applies(error)), None)


def skipped(error: Exception, what: str, where: str, folder: Path) -> Warned:
    """The warning that ``what`` could not be done, and that the run continues without it. The traceback of an error
    that nobody expected goes to standard error, which is the worker's log.

    Args:
        what: a sentence without its end.
        where: what it is part of.
        folder: where it is kept.
    """
    if devices.memory_full(error):
        do = tr("The run continues. Fewer or smaller {where} need less memory.", where=where)
        return Warned(what=tr("{what}: there is not enough memory.", what=what), where=where, do=do)
    if isinstance(error, OSError):
        refused = files.refusal(error, what, folder)
        return Warned(what=refused.what, where=refused.where, do=tr("The run continues. {do}", do=refused.do))
    if isinstance(error, StudioError):
        do = tr("The run continues. {do}", do=error.do) if error.do else tr("The run continues.")
        return Warned(what=tr("{what}: {why}", what=what, why=error.what), where=error.where, do=do)
    traceback.print_exception(error)
    do = tr("The run continues. This may be a bug in the studio: the run's worker.log has the details.")
    return Warned(
        what=tr("{what}: {name}: {error}", what=what, name=type(error).__name__, error=error), where=where, do=do
    )


@contextmanager
def translating(rules: Sequence[Rule]) -> Generator[None]:
    """Within it exceptions are raised as ``rules`` translate them; those without a rule pass."""
    try:
        yield
    except Exception as error:
        told = translated(error, rules)
        if told is None or told is error:
            raise
        raise told from error


def _does_not_fit(settings: Settings) -> MachineError:
    machine = devices.choose(settings.machine)
    name = machine.name if machine.device.type == "cuda" else tr("this computer")
    return devices.out_of_memory(name, settings, memory.suggest(settings, machine.precision, machine.memory))
