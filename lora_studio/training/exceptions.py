"""What PyTorch and the operating system raise, as the studio's own errors: a table, first match wins."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lora_studio import files
from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError, StudioError
from lora_studio.runs import Run
from lora_studio.training import devices, memory

Rule = tuple[Callable[[BaseException], bool], Callable[..., StudioError]]
"""Whether it applies to an exception, and the error to raise in its place."""


def while_training(run: Run, settings: Settings) -> list[Rule]:
    """The table for a run with ``settings``."""

    def refused(error: OSError) -> StudioError:
        return files.refusal(error, "The run cannot continue", Path(error.filename or run.folder))

    return [
        (devices.memory_full, lambda _: _does_not_fit(settings)),
        (devices.lost, devices.device_lost),
        (lambda error: isinstance(error, OSError), refused),
    ]


def while_drawing() -> list[Rule]:
    """The table for a single image."""
    no_room = MachineError(
        "The image does not fit in memory.",
        do="Use fewer adapters or a smaller size, or close other programs that use much memory.",
    )
    return [(devices.memory_full, lambda _: no_room), (devices.lost, devices.device_lost)]


def translated(error: BaseException, rules: Sequence[Rule]) -> StudioError | None:
    """The error to tell in place of ``error``: itself if it is one of the studio's, None if no rule applies."""
    if isinstance(error, StudioError):
        return error
    return next((translate(error) for applies, translate in rules if applies(error)), None)


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
    name = machine.name if machine.device.type == "cuda" else "this computer"
    return devices.out_of_memory(name, settings, memory.suggest(settings, machine.precision, machine.memory))
