"""Keeps a state of a run: its adapter as a file of its own in the run's folder, ``<run>-step-N.safetensors``. No torch.

The state may have been judged or saved; its adapter is enough, so it can be kept after its checkpoint was deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lora_studio import adapters, files
from lora_studio.adapters.head import relabel
from lora_studio.errors import AdapterError, RunError
from lora_studio.language import tr
from lora_studio.runs import Run, checkpoints

_ADAPTER = "adapter.safetensors"
"""Of a saved or judged state, in its folder."""
_HASH = "sshs_model_hash"


def kept(run: Run, step: int) -> Path | None:
    """The file of the kept state of ``step``; None if it was not kept."""
    return file if (file := run.kept_file(step)).is_file() else None


def keep(run: Run, step: int) -> Path:
    """Keeps the state of ``step`` and stars its checkpoint, so that it is not deleted either; one that is another state
    of the same step, before or after a rollback, is left as it is. Doing it twice changes nothing.

    Returns:
        The file.

    Raises:
        RunError: there is no such state, or another file has the name.
        AdapterError: its adapter cannot be read.
        MachineError: the disk refuses.
    """
    source, target = state_file(run, step), run.kept_file(step)
    try:
        if not target.exists():
            relabel(source, {"modelspec.title": target.stem, "ss_output_name": target.stem}, target)
        elif not _same(source, target):
            what = tr("{name} is there already and holds another adapter.", name=target.name)
            raise RunError(what, where=target, do=tr("Rename or delete that file, then keep the state again."))
        if _checkpointed(run.checkpoint(step), target):
            (run.checkpoint(step) / checkpoints.STAR).touch()
    except OSError as error:
        raise files.refusal(error, tr("Step {step} could not be kept", step=step), target) from error
    return target


def _checkpointed(folder: Path, adapter: Path) -> bool:
    """Whether the checkpoint in ``folder`` is sound, on the run's way, and of the same state as ``adapter``."""
    if not folder.is_dir() or checkpoints.abandoned(folder) or checkpoints.damage(folder, quick=True):
        return False
    return _same(folder / _ADAPTER, adapter)


def label(run: Run, step: int, texts: Mapping[str, str]) -> list[Path]:
    """Lays ``texts`` over the headers of the adapters in the run's folder that are the judged state of ``step``: its
    own, the kept file, the run's adapter. Those of checkpoints stay as they were saved.

    Returns:
        The files.

    Raises:
        AdapterError: the judged state's adapter cannot be read.
        MachineError: the disk refuses.
    """
    own = run.judged_adapter(step)
    found = [own, *(path for path in sorted(run.folder.glob("*.safetensors")) if _same(own, path))]
    try:
        for path in found:
            relabel(path, texts)
    except OSError as error:
        raise files.refusal(error, tr("The recommended strength could not be written"), run.folder) from error
    return found


def state_file(run: Run, step: int) -> Path:
    """The adapter of the state: the judged one, else the saved one.

    Raises:
        RunError: there is no such state.
    """
    places = run.judged_adapter(step), run.checkpoint(step) / _ADAPTER
    if found := next((path for path in places if path.is_file()), None):
        return found
    known = [*map(str, sorted(states(run)))]
    raise RunError(
        tr("The run {name} has no state of step {step} to keep.", name=run.name, step=step),
        where=run.folder,
        do=tr("Its states: {steps}.", steps=known)
        if known
        else tr("Set checkpoint_every and keep_checkpoints before training."),
    )


def states(run: Run) -> set[int]:
    """The steps whose adapter was saved or judged."""
    folders = (run.checkpoints, run.evaluation)
    found = [path for folder in folders for path in folder.glob(f"step-*/{_ADAPTER}")]
    return {step for path in found if (step := checkpoints.step_of(path.parent.name)) is not None}


def _same(one: Path, other: Path) -> bool:
    """Whether two adapters hold the same tensors, by the hashes in their headers."""
    try:
        first, second = (adapters.header(path).metadata.get(_HASH) for path in (one, other))
    except AdapterError:
        return False
    return bool(first) and first == second
