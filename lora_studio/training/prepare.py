"""How a run gets into memory, in four parts: look at the pictures, load the base model, assemble what trains, take up
what was saved.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import torch

from lora_studio import adapters, files, models
from lora_studio.adapters import detect, foreign
from lora_studio.config.settings import Settings
from lora_studio.config.slices import OptimizerSettings
from lora_studio.dataset import buckets, caption_notices, folder, manifest, sources
from lora_studio.dataset.batch_sampler import split
from lora_studio.dataset.items import Dataset
from lora_studio.dataset.problems import Problem
from lora_studio.errors import DatasetError, RunError
from lora_studio.events import Event, Preparing, Warned
from lora_studio.language import few, in_sequence, tr
from lora_studio.models import gradient_checkpointing, inject
from lora_studio.optim import build
from lora_studio.optim import registry as optimizers
from lora_studio.optim.ema import Average
from lora_studio.runs import Run, branching, checkpoints
from lora_studio.sampling.generate import known_sampler, nearest_side
from lora_studio.training import (
    beginning,
    checkpoint,
    devices,
    encoding,
    measured_start,
    noise_levels,
    reading,
    stepper,
    threads,
)
from lora_studio.training.distributed import World
from lora_studio.training.session import Session, TrainingData

LARGE = 10**9
"""Bytes of an adapter's file that are said before a run begins."""


def prepare(run: Run, settings: Settings, world: World | None = None) -> Generator[Event, None, Session]:
    """Brings a run into memory; yields what happens and returns the Session. A process that follows gets its state from
    the leader.

    Raises:
        DatasetError, ModelError, MachineError, SettingsError: as the four parts say.
    """
    world = world or World()
    dataset = yield from look(run, settings, world)
    machine = devices.choose(settings.machine, world.place)
    base = yield from load(settings, machine, dataset)
    session = yield from assemble(run, settings, machine, world, dataset, base)
    if world.leads:
        yield from take_up(session)
    return session


def look(run: Run, settings: Settings, world: World) -> Generator[Event, None, Dataset]:
    """Scans the folder of pictures, or reads the pairs, warns of problems, and notes the pictures or says
    which have changed.

    Raises:
        SettingsError, DatasetError: the folder or the file cannot be trained on, differs from the leader's, or a part
            of the folder has no noise level in common with the run.
    """
    settings.require_named()
    dataset = sources.scan(settings, run.cache, by_content=True)
    for problem in dataset.blocking:
        raise DatasetError(problem.what, where=problem.file or dataset.folder, do=problem.do)
    noise_levels.require(dataset, settings.noise)
    yield from (Warned(what=one.what, where=one.key, do=one.do) for one in (*settings.ignored(), *settings.repeated()))
    noticed = [] if dataset.pairs else caption_notices.problems(dataset, settings.dataset)
    yield from _warnings(dataset, dataset.problems + noticed)
    yield from _warnings(dataset, caption_notices.of_sides(dataset, settings.augmentation))
    if world.leads:
        yield from _compare(run, dataset)
    _require_same(dataset, world)
    return dataset


def pictures_of(run: Run, settings: Settings) -> Generator[Event, None, Dataset]:
    """The pictures of a run as they are now, for other work than training.

    Raises:
        DatasetError: the folder cannot be trained on, or the run has none.
    """
    if settings.run.has_pairs:
        what = tr("{name} was trained on pairs, and there are no pictures of a style to judge it by.", name=run.name)
        do = tr("Draw with it at several weights, and look: python3 app.py grid --help")
        raise DatasetError(what, where=settings.run.data, do=do)
    yield Preparing(stage=tr("pictures"), done=0, total=1)
    found = folder.scan(Path(settings.run.data), run.cache, nested=settings.dataset.nested)
    for problem in found.blocking:
        raise DatasetError(problem.what, where=problem.file or found.folder, do=problem.do)
    return found


def load(settings: Settings, machine: devices.Machine, dataset: Dataset) -> Generator[Event, None, models.Base]:
    """Loads the base model, and warns of pictures that do not suit its resolution.

    Raises:
        ModelError: the base model is missing or damaged, or there is none of that name.
        SettingsError: the sampler of the previews cannot remove its noise.
        MachineError: it cannot be quantized on this machine.
    """
    yield Preparing(stage=tr("base model"), done=0, total=1)
    base = models.load(
        settings.run.base,
        machine.device,
        machine.dtype,
        prediction=settings.loss.prediction,
        zero_snr=settings.loss.zero_snr,
        flow_shift=settings.loss.flow_shift,
        vae=settings.run.vae,
        text_encoders=settings.run.text_encoders,
        clip_skip=settings.dataset.clip_skip,
        quantize=settings.machine.quantize,
        in_turn=True,  # all encoders of a large model at once would need more memory than a step
    )
    base.tiled = settings.machine.tiled_vae
    yield Preparing(stage=tr("base model"), done=1, total=1)
    known_sampler(base, settings.previews.sampler)  # else every preview would fail, and the run train blind
    yield base.loaded_event
    yield from base.notices
    if base.distilled and (overruled := base.distilled.overruling(settings.previews)):
        yield overruled
    yield from _warnings(dataset, buckets.problems(dataset, *encoding.bucketing(settings.dataset, base)))
    yield from rounded(settings.dataset.resolution, base)
    yield from _coarse(dataset, *encoding.bucketing(settings.dataset, base)[:2])
    yield from _warnings(dataset, reading.cut_captions(dataset, settings, base.tokenizers))
    return base


def rounded(resolution: int, base: models.Base) -> Iterator[Event]:
    """A warning where previews cannot have the ``resolution`` in pixels that was asked for (0: the base model's)."""
    side = nearest_side(base, resolution or base.resolution)
    if resolution and side != resolution:
        yield Warned(
            what=tr(
                "{resolution} is not a multiple of {scale}: previews are drawn at {side} × {side} pixels.",
                resolution=resolution,
                scale=base.scale,
                side=side,
            ),
            where="resolution",
            do=tr("Set it to {side}, or ignore this: pictures train at the sizes of their buckets.", side=side),
        )


def _coarse(dataset: Dataset, resolution: int, step: int) -> Iterator[Event]:
    """A warning where there are no buckets but a square, and pictures lose by that."""
    loses = dataset.pictures and (step > resolution or any(one.width != one.height for one in dataset.pictures))
    if loses and (what := buckets.coarse(resolution, step)):
        yield Warned(what=what, where="bucket_step", do=tr("Set bucket_step to {step}.", step=_step(resolution)))


def _step(resolution: int) -> int:
    """A usual bucket step for a resolution: an eighth of it, at most 64."""
    return max(8, min(64, resolution // 64 * 8))


def assemble(
    run: Run,
    settings: Settings,
    machine: devices.Machine,
    world: World,
    dataset: Dataset,
    base: models.Base,
) -> Generator[Event, None, Session]:
    """Encodes pictures and captions, adds a new adapter to the base model, and builds what trains it.

    Raises:
        DatasetError: a picture can no longer be read.
        ModelError: the base model has no layers of the kind that ``targets`` names, or encodes to NaN.
        SettingsError: settings that exclude each other, as the optimizer says.
        MachineError: the optimizer does not work on this machine.
    """
    share = 0 if dataset.pairs else settings.dataset.validation_share
    train, validation = split(dataset.pictures, share, settings.run.seed)
    with world.leader_first():
        cache = yield from encoding.encode(run, settings, dataset, base, train)
    inject.add_adapter(base, settings.adapter, settings.run.seed, settings.run.trigger.strip())
    gradient_checkpointing.enable(
        base.unet,
        settings.machine.checkpointing,
        base.text_encoders.values() if settings.adapter.reads_text else (),
        random=settings.adapter.dropout > 0,
    )
    for model in base.models.values():
        model.train()  # for the adapter's dropout; the base model itself has none
    built = build.flat_optimizer(
        inject.trainable(base).items(),
        settings.optimizer,
        settings.run.steps,
        machine.copies(settings.adapter),
        inject.rates(base, settings.adapter),
    )
    yield from _large_files(sum(parameter.numel() for parameter in built.parameters.values()), settings.optimizer)
    pinned = machine.device.type == "cuda"
    batches = encoding.batches(settings, dataset, cache, base, train, world.part, pinned)
    session = Session(
        run=run,
        settings=settings,
        machine=machine,
        world=world,
        base=base,
        data=TrainingData(dataset, cache, train, validation, batches),
        parameters=built.parameters,
        stepper=stepper.choose(base, settings, machine, built),
        average=Average(built.parameters, settings.optimizer.ema),
    )
    build.mode(built.optimizer, training=True)
    if world.size > 1:
        world.connect(machine.device)
        session.stepper.average_over_processes = world.average
    return session


def _large_files(trained: int, settings: OptimizerSettings) -> Iterator[Event]:
    """Says how large the files become where so many parameters are ``trained`` that disks may not have the room."""
    adapter = 4 * trained
    if adapter >= LARGE:
        state = 2 * adapter + (optimizers.get(settings.optimizer).state_bytes + (4 if settings.ema else 0)) * trained
        yield Warned(
            what=tr(
                "The adapter's file will take about {size:.1f} GB, and each saved state {state:.1f} GB.",
                size=adapter / 1e9,
                state=state / 1e9,
            ),
            where="targets",
            do=tr("Make sure that the disk has room for that, or train fewer layers."),
        )


def take_up(session: Session) -> Iterator[Event]:
    """Resumes from the newest saved state. A new run instead chooses its number of threads, looks at its layers where
    its start goes by them, and begins from an adapter where it was given one.

    Raises:
        AdapterError: that adapter is damaged, belongs to another family of models, or changes other layers.
        RunError: the state does not fit the run's settings, or what a start goes by is NaN or infinite.
    """
    newest = checkpoints.latest(session.run)
    yield from _damages(session.run, newest)
    if newest is None:
        _choose_threads(session)
        yield from measured_start.take(session)
        if session.run.start_file.exists():
            yield from beginning.from_adapter(session)
        return
    _require_fitting(session, newest)
    state = checkpoint.load(newest, session.machine.device)
    session.restore(state)
    session.saved_step = session.step
    if not session.same_layout(state):
        yield Warned(
            what=tr(
                "This state was saved by an earlier version of the studio, which stored the optimizer's moments in "
                "another order: the optimizer starts anew."
            ),
            where=newest.name,
            do=tr("Nothing needs to be done: what was learned is kept, and the run resumes from there."),
        )


def _damages(run: Run, newest: Path | None) -> Iterator[Event]:
    """Warns of the damaged states that would have been resumed from before ``newest``."""
    if found := branching.damages(run, newest):
        yield Warned(what=in_sequence(found), where=str(run.checkpoints), do=tr("Training continues. Check the disk."))


def _require_fitting(session: Session, newest: Path) -> None:
    """Raises RunError where the run's settings were changed so that the state's tensors do not fit them. Whoever
    resumes a run through the page or the command line is asked before, and gets a new run. AdapterError where the
    state is of a base model that another took the place of.
    """
    if (adapter := newest / "adapter.safetensors").is_file():
        made_for = detect.claimed(adapters.header(adapter).metadata)
        foreign.require_not_apart(made_for, session.base.family.name, newest)
    changed = branching.state_hindrances(newest, branching.settings_of(newest, session.run), session.settings)
    if changed := [key for key in changed if key != "base"]:  # it may have moved
        raise RunError(
            tr(
                "The saved state {name} does not fit the run's settings, which were changed since: {settings}.",
                name=newest.name,
                settings=few(changed, len(changed)),
            ),
            where=session.run.settings_file,
            do=tr(
                "Put them back, or begin a new run from it: python3 app.py train --from {name}", name=session.run.name
            ),
        )


def _choose_threads(session: Session) -> None:
    """The fastest number on a CPU. Where the result must repeat to the bit it stays as it is, since other threads add
    up in another order.
    """
    if session.machine.device.type == "cpu" and not session.settings.machine.deterministic:
        threads.fastest(session.probe, max(1, torch.get_num_threads() // session.world.size))


def _warnings(dataset: Dataset, problems: Sequence[Problem]) -> Iterator[Event]:
    for problem in problems:
        yield Warned(what=problem.what, where=problem.file or str(dataset.folder), do=problem.do)


def _compare(run: Run, dataset: Dataset) -> Iterator[Event]:
    """Notes what the run trains on; where that was noted before, says what has changed since."""
    before = manifest.noted(run.manifest_file)
    if before is None:
        files.write(run.manifest_file, json.dumps(manifest.manifest(dataset), indent=1))
        return
    if changes := manifest.changes_since(before, dataset):
        told = changes[:3]
        if more := len(changes[3:]):
            told.append(tr("And {count} more changes.", count=more))
        listed = in_sequence(told)
        yield Warned(
            what=tr("The pairs changed since this run began: {changes}", changes=listed)
            if dataset.pairs
            else tr("The pictures changed since this run began: {changes}", changes=listed),
            where=str(dataset.folder),
            do=tr(
                "Training continues with them as they are now, so the result will differ from that of an "
                "uninterrupted run. To avoid that, put them back and resume from an earlier state."
            ),
        )


def _require_same(dataset: Dataset, world: World) -> None:
    """Raises DatasetError where this process reads other pictures than the leader: it would train on other batches."""
    own = manifest.manifest(dataset)
    if world.broadcast(own) != own:
        do = tr("Put copies of one folder at the same path on every machine, or share it between them.")
        raise DatasetError(
            tr("The pictures or captions differ from those on the machine that leads the run."),
            where=dataset.folder,
            do=do,
        )
