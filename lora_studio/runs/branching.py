"""Resuming from a saved state: what has changed since it was saved, and new runs that branch from it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lora_studio import adapters, files, runs
from lora_studio.adapters import recipe
from lora_studio.adapters.container import PEFT_MODEL, PICKLES, refuse_pickle_name
from lora_studio.adapters.kinds import EMBEDDING, KINDS
from lora_studio.adapters.listing import Summary
from lora_studio.config import by_block
from lora_studio.config.declaration import Group
from lora_studio.config.presets import save_settings
from lora_studio.config.settings import Settings, check
from lora_studio.config.specs import SPECS
from lora_studio.dataset import epochs, manifest, sources
from lora_studio.errors import DatasetError, ModelError, RunError, SettingsError, StudioError
from lora_studio.families import registry, weights
from lora_studio.language import ENGLISH, both, current, tr
from lora_studio.methods.registry import METHODS
from lora_studio.runs import Run, base_model, checkpoints, keeping, notes
from lora_studio.runs.creating import or_nothing

_SHAPING = (
    "base",
    "vae",
    "text_encoders",
    "method",
    "rank",
    "alpha",
    "rslora",
    "lokr_factor",
    "oft_block_size",
    "targets",
    "blocks",
    "by_block",
    "optimizer",
    "lora_plus",
    "train_text",
    "learned_tokens",
    "init_word",
    "keep_norm",
)
"""Settings that a saved state depends on: with others its tensors do not fit, or mean something else."""
_MODEL_FILES = ("base", "vae", "text_encoders")
"""Of those, the settings that are paths. Their content is compared, not their place."""
_UNASKED = {"name", "data", "device", "gpus"}
"""Settings that may change when a run is resumed without changing what it learns, besides those for previews and
saving. Of the pictures their content is compared, not their place.
"""


class BranchPoint(NamedTuple):
    """The saved state of a run that another run branches from."""

    run: Run
    step: int


def branch_point(text: str, outputs: Path) -> BranchPoint:
    """The saved state that ``RUN@STEP`` names, or ``RUN`` for its newest.

    Raises:
        RunError: there is no such run or state.
    """
    name, _, step = text.rpartition("@") if text.rpartition("@")[2].isdecimal() else (text, "", "")
    run = runs.find(name, outputs)
    if step:
        return BranchPoint(run, require_state(run, int(step)))
    newest = checkpoints.latest(run)
    if newest is None:
        raise RunError(
            tr("The run {name} has no saved state to branch from.", name=run.name),
            where=run.checkpoints,
            do=tr("Let it train longer, or save a state from the page."),
        )
    return BranchPoint(run, int(newest.name.removeprefix("step-")))


def require_state(run: Run, step: int) -> int:
    """``step``, if a run can branch from it: all of its state was saved, or its adapter was kept with a preview or a
    judgement.

    Raises:
        RunError: there is no such state, or it is damaged or cannot be read.
    """
    if is_whole(run, step) or step not in keeping.states(run):
        checkpoints.find(run, step)
    return step


def is_whole(run: Run, step: int) -> bool:
    """Whether there is more of the state of ``step`` than its adapter, damaged or not."""
    return run.checkpoint(step).is_dir()


def is_adapter(text: str) -> bool:
    """Whether ``text`` names an adapter to start from, and not a run: a file by its ending, or a folder of peft's."""
    path = Path(text).expanduser()
    if path.suffix.lower() in (".safetensors", *PICKLES):
        return True
    return (path / PEFT_MODEL).is_file() or any((path / part / PEFT_MODEL).is_file() for part in registry.components())


Check = Callable[[Settings, Path | None], None]
"""What is checked before a run's folder is made, besides what is checked here: of its settings, and the adapter that it
begins with, if any. ``training.creating`` has one.
"""


def _nothing(settings: Settings, adapter: Path | None) -> None:
    """Checks nothing."""


def create(settings: Settings, outputs: Path, check: Check = _nothing) -> Run:
    """A new run. Where its settings name an adapter to start from, it gets a copy of that, and never needs the original
    again.

    Raises:
        AdapterError: the adapter is damaged, or of a kind that the studio does not read.
        ModelError: the base model, or a file that completes it, is not there or no model.
        SettingsError: the method cannot start from an adapter, or what a run needs is not named.
        MachineError: the disk refuses it; nothing is left behind.
    """
    _require_model(settings)
    settings = with_steps(settings, outputs)
    if not settings.run.start_from:
        check(settings, None)
        return runs.create(settings, outputs)
    path = Path(settings.run.start_from).expanduser().absolute()
    refuse_pickle_name(path)
    _require_startable(settings, path)
    adapter = adapters.read(path)
    if adapter.kind is EMBEDDING and not settings.adapter.tokens:
        word = both(adapter.embeddings)
        what = tr("{name} holds the learned word {word} alone, and this run learns none.", name=path.name, word=word)
        raise SettingsError(what, where="learned_tokens", do=tr("Set learned_tokens, or method to textual-inversion."))
    check(settings, path)
    run = runs.create(settings.changed(start_from=str(path)), outputs)
    with _or_nothing(run):
        if path.is_dir() or path.name == PEFT_MODEL:  # whose alphas are in another file
            adapters.write(adapter, run.start_file, "diffusers", raw_dora=True)
        else:
            files.make_folder(run.start_file.parent)
            files.copy(path, run.start_file)
    return run


def _require_model(settings: Settings) -> None:
    """Raises SettingsError where a run of these settings needs a name that is not there, and ModelError where its base
    model, or a file that completes it, is not there or no model.
    """
    settings.require_named()
    if settings.run.base != "starter":
        path = weights.located(settings.run.base)
        base_model.of_file(path) if path.is_file() else base_model.of_folder(path)
    weights.require_given(settings.run.vae, settings.run.text_encoders)


def with_steps(settings: Settings, outputs: Path) -> Settings:
    """The settings with the steps that their epochs come to. Pictures that cannot be trained on are left to the run."""
    if not settings.run.epochs:
        return settings
    found = sources.scan(settings, runs.cache_folder(outputs))
    return settings if found.blocking else epochs.settled(settings, found.pictures)


def _require_startable(settings: Settings, file: Path) -> None:
    """Raises SettingsError where the method cannot start from an adapter of the kind that is in ``file``."""
    chosen = METHODS[settings.adapter.method]
    if not chosen.own_start:
        return
    able = [name for name, method in METHODS.items() if not method.own_start]
    if chosen.own_kind:
        found = adapters.summary(file)
        kind = KINDS[found.method]
        if kind.name == chosen.own_kind:
            return _require_rank(settings, found)
        if not kind.changes_weights:
            able = [name for name, method in METHODS.items() if method.own_kind == kind.name]
    raise SettingsError(chosen.own_start, where="method", do=tr("Set method to one of: {methods}.", methods=able))


def _require_rank(settings: Settings, given: Summary) -> None:
    """Raises SettingsError where the method takes an adapter of its kind at that one's rank alone, which is not had."""
    chosen, own = METHODS[settings.adapter.method], settings.adapter
    if not chosen.keeps_rank or given.mixed_ranks or given.rank in (own.rank, *by_block.ranks(own.by_block)):
        return
    what = tr(
        "{why} The adapter is of rank {rank}, and this run's rank is {own}.",
        why=chosen.own_start,
        rank=given.rank,
        own=own.rank,
    )
    raise SettingsError(what, where="rank", do=tr("Set rank to {rank}.", rank=given.rank))


def hindrances(before: Settings, after: Settings) -> list[str]:
    """The settings that keep a state saved with ``before`` from being resumed with ``after``. Its adapter can still be
    the start of a new run.
    """
    found = [key for key in _SHAPING if before[key] != after[key]]
    found += ["trigger"] * (before.adapter.tokens > 0 and before.run.trigger != after.run.trigger)
    return found + ["ema"] * (bool(before.optimizer.ema) != bool(after.optimizer.ema))


def branch(parent: Run, step: int, settings: Settings, outputs: Path, check: Check = _nothing) -> Run:
    """A new run that starts at a saved state of ``parent``, which does not change.

    If the settings allow it, and all of the state was saved, the run continues at ``step``. Otherwise it starts at step
    0 with the state's adapter.

    Raises:
        RunError: there is no such state.
        ModelError: the base model, or a file that completes it, is not there or no model.
        SettingsError: there are no steps left to train, the method cannot start from such an adapter, or another
            adapter to start from is named.
        MachineError: the disk refuses it; nothing is left behind.
    """
    _require_model(settings)
    require_state(parent, step)
    saved = checkpoints.find(parent, step) if is_whole(parent, step) else None
    adapter = saved.folder / "adapter.safetensors" if saved else keeping.state_file(parent, step)
    settings = with_steps(settings, outputs)
    if settings.run.start_from not in ("", parent.settings().run.start_from):
        raise SettingsError(
            tr("A branch starts from the saved state of its run, not from another adapter."),
            where="start_from",
            do=tr("Leave one of the two out."),
        )
    goes_on = saved is not None and not state_hindrances(saved.folder, settings_of(saved.folder, parent), settings)
    if goes_on and settings.run.steps <= step:
        raise SettingsError(
            tr(
                "The saved state is at step {step}, and the run would end at step {steps}.",
                step=step,
                steps=settings.run.steps,
            ),
            where="steps",
            do=tr("Set steps to more than {step}.", step=step),
        )
    if not goes_on:
        _require_startable(settings, adapter)
    check(settings, None if goes_on else adapter)
    run = runs.create(
        settings.changed(name=settings.run.name if settings.run.name != parent.name else f"{parent.name}-from-{step}"),
        outputs,
    )
    with _or_nothing(run):
        if saved and goes_on:
            checkpoints.copy(saved, run)
        else:
            files.write(run.start_file, adapter.read_bytes())
        notes.write(run.parent_file, {"run": parent.name, "step": step, "goes_on": goes_on})
    return run


@contextmanager
def _or_nothing(run: Run) -> Generator[None]:
    """As ``creating.or_nothing``. Raises MachineError where the disk refuses."""
    try:
        with or_nothing(run.folder):
            yield
    except OSError as error:
        raise files.refusal(error, tr("The new run cannot be created"), run.folder) from error


def taken_over(run: Run) -> str:
    """What a branch takes over from its parent, as a sentence; empty for a run that is none."""
    parent = run.parent()
    if not parent:
        return ""
    if parent["goes_on"]:
        return tr(
            "It continues from {run}, step {step:,}, with the whole saved state: adapter, optimizer and step.",
            run=parent["run"],
            step=parent["step"],
        )
    return tr(
        "It starts at step 0 from the adapter of {run}, step {step:,}; the optimizer and the learning rate's schedule "
        "start anew.",
        run=parent["run"],
        step=parent["step"],
    )


def with_changes(run: Run, changes: dict[str, object], check: Check = _nothing) -> Run:
    """The run with ``changes`` to its settings: itself, or, if its newest state does not fit them, a branch for the
    remaining steps.

    Raises:
        SettingsError, RunError, MachineError: see ``branch``.
    """
    before, newest = run.settings(), checkpoints.latest(run)
    after = before.changed(**changes) if changes else before
    if newest is not None and state_hindrances(newest, settings_of(newest, run), after):
        step = int(newest.name.removeprefix("step-"))
        return branch(run, step, after.changed(steps=max(1, before.run.steps - step)), run.folder.parent, check)
    if after != before:
        save_settings(after, run.settings_file)
    return run


def require_places(run: Run, settings: Settings) -> None:
    """Raises DatasetError or ModelError where the run's pictures or base model are not where ``settings`` say, with the
    way to name their new place.
    """
    command = f"python3 app.py resume {shlex.quote(run.name)}"
    if not settings.run.data:
        what = tr("The settings of {name} name no folder of pictures.", name=run.name)
        raise DatasetError(what, where=run.settings_file, do=tr("Name it: {command} --data FOLDER", command=command))
    if settings.run.has_pairs and not os.path.isfile(settings.run.data):
        what = tr(
            "There is no file {data}, where the pairs of {name} should be.", data=settings.run.data, name=run.name
        )
        raise DatasetError(
            what, where="data", do=tr("If it moved, name the new place: {command} --data FILE", command=command)
        )
    if not settings.run.has_pairs and not os.path.isdir(settings.run.data):
        what = tr(
            "There is no folder {data}, where the pictures of {name} should be.", data=settings.run.data, name=run.name
        )
        raise DatasetError(
            what, where="data", do=tr("If they moved, name the new place: {command} --data FOLDER", command=command)
        )
    if os.path.isabs(settings.run.base) and not os.path.exists(settings.run.base):
        what = tr(
            "There is no base model at {base}, where that of {name} should be.", base=settings.run.base, name=run.name
        )
        raise ModelError(
            what, where="base", do=tr("If it moved, name the new place: {command} --base PATH", command=command)
        )
    for key, paths in {"vae": [settings.run.vae], "text_encoders": settings.run.text_encoders}.items():
        for path in paths:
            if path and not os.path.isfile(path):
                what = tr(
                    "There is no file at {path}, where {name} has a part of its base model.", path=path, name=run.name
                )
                option = f"--{key.replace('_', '-')} FILE"
                raise ModelError(
                    what,
                    where=key,
                    do=tr(
                        "If it moved, name the new place: {command}",
                        command=" ".join([command, *[option] * len(paths)]),
                    ),
                )


def changes(run: Run, settings: Settings | None = None) -> list[str]:
    """What has changed since the newest state was saved, one sentence each: states that are damaged, settings that
    matter, pictures, captions. A folder or a base model that only moved is no change. Empty for a run without a saved
    state.

    Args:
        settings: those that the run is to resume with, where they are not its own.

    Raises:
        DatasetError, ModelError: the pictures can no longer be trained on, or the base model is gone.
        SettingsError: the run's settings are damaged.
    """
    settings = settings or run.settings()
    require_places(run, settings)
    newest = checkpoints.latest(run)
    found = damages(run, newest)
    if newest is None:
        return found
    about = checkpoints.about(newest)
    found += [
        tr(
            "{label} was {before} and is now {now}.",
            label=SPECS[key].label,
            before=SPECS[key].title(old),
            now=SPECS[key].title(new),
        )
        for key, (old, new) in _differences(about.get("settings", {}), settings).items()
        if key not in _MODEL_FILES or not _same_files(newest, key, old, new)
    ]
    if hindering := state_hindrances(newest, settings_of(newest, run), settings):
        found.append(
            tr(
                "With another {settings} the saved state does not fit: a new run would begin at step 0, from the "
                "adapter of step {step:,}.",
                settings=both(_within(SPECS[key].label) for key in hindering),
                step=checkpoints.step_of(newest.name),
            )
        )
    if "pictures" in about:
        dataset = sources.scan(settings, run.cache)
        if dataset.blocking:
            raise DatasetError(
                dataset.blocking[0].what, where=dataset.blocking[0].file or settings.run.data, do=dataset.blocking[0].do
            )
        found += manifest.changes_since(about["pictures"], dataset)
    return found


def damages(run: Run, newest: Path | None) -> list[str]:
    """The damaged states above the ``newest`` good one, and from where the run resumes; empty if there are none."""
    step = (checkpoints.step_of(newest.name) or 0) if newest else None
    damaged = checkpoints.damaged(run, above=-1 if step is None else step)
    if not damaged:
        return []
    told = [tr("The saved state of step {step:,} is damaged: {why}.", step=one.step, why=one.why) for one in damaged]
    if step is None:
        return [*told, tr("The run begins again at step 0.")]
    return [*told, tr("The run goes back to step {step:,}.", step=step)]


def _within(label: str) -> str:
    """A setting's label within a sentence. German nouns begin with a capital there too."""
    return label.lower() if current() == ENGLISH else str(label)


def state_hindrances(saved: Path, before: Settings, after: Settings) -> list[str]:
    """As ``hindrances``, for the state in the folder ``saved``; model files that only moved are none."""
    found = hindrances(before, after)
    return [key for key in found if key not in _MODEL_FILES or not _same_files(saved, key, before[key], after[key])]


def _same_files(saved: Path, key: str, before: str | list[str], after: str | list[str]) -> bool:
    """Whether the model files that the setting ``key`` now names are those that the state in ``saved`` was trained on,
    by the hashes in its adapter's recipe.
    """
    if before == after:
        return True
    old, new = ([value] * bool(value) if isinstance(value, str) else value for value in (before, after))
    try:
        made = recipe.read(adapters.header(saved / "adapter.safetensors").metadata)
        if not isinstance(made, recipe.Training):
            return False
        known = {made.base_sha256} if key == "base" else set(made.parts.values())
        # a part's place follows from what it holds, not from its name
        return len(old) == len(new) and all(
            os.path.exists(path) and weights.sha256_of(Path(path)) in known for path in new
        )
    except (OSError, StudioError):
        return False


def _differences(before: dict, now: Settings) -> dict[str, tuple]:
    after = now.flat()
    compared = [
        key
        for key, spec in SPECS.items()
        if spec.group not in (Group.PREVIEWS, Group.EVALUATION, Group.SAVING) and key not in _UNASKED
    ]
    return {key: (before[key], after[key]) for key in compared if key in before and before[key] != after[key]}


def settings_of(saved: Path, run: Run) -> Settings:
    """The settings that the state in the folder ``saved`` was saved with."""
    known = checkpoints.about(saved).get("settings")
    return check({key: value for key, value in known.items() if key in SPECS}) if known else run.settings()
