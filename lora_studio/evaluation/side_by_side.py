"""States of several runs, drawn and judged under the same conditions: the prompts, seeds and sampler of the first run.

What a run's own folder already holds of that is taken from there. The rest lies in the cache, so that what a run was
judged as stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_studio import adapters, runs
from lora_studio.adapters import recipe
from lora_studio.config.settings import Settings
from lora_studio.dataset import manifest
from lora_studio.dataset.items import Dataset
from lora_studio.errors import AdapterError, RunError
from lora_studio.evaluation import columns, judgements, judging, subjects
from lora_studio.evaluation.advice import advise
from lora_studio.evaluation.bench import Bench
from lora_studio.evaluation.columns import Columns
from lora_studio.evaluation.judgements import Judgement, JudgingPlan
from lora_studio.evaluation.value import Value
from lora_studio.events import Event, Preparing, Warned
from lora_studio.language import tr
from lora_studio.models import Base
from lora_studio.runs import Run
from lora_studio.training import devices, encoding, prepare

_OF_BASE = ("prediction", "zero_snr", "flow_shift", "vae", "text_encoders", "clip_skip")
"""Settings that make another model of the same file."""


@dataclass(frozen=True)
class ComparedState:
    """An adapter of ``run`` at ``step``, which is to be compared."""

    run: Run
    step: int
    adapter: Path

    @property
    def name(self) -> str:
        return f"{self.run.name}@{self.step}"


@dataclass(frozen=True)
class JudgedState:
    """A state, what was judged of it, and the folder of its pictures ``P-S.png``."""

    state: ComparedState
    judgement: Judgement
    pictures: Path


@dataclass(frozen=True)
class SideBySide:
    """All states, judged under the same conditions.

    Attributes:
        groups: as they were given.
        plan: what was drawn.
        base: the folder of the base model's pictures ``P-S.png``.
        dataset: the first run's training pictures.
        shared: whether all styles were measured against those; else each against its own run's.
        of_base: what the further columns measure of the base model's pictures.
        of_training: what they measure of the training pictures.
    """

    groups: tuple[tuple[JudgedState, ...], ...]
    plan: JudgingPlan
    base: Path
    dataset: Dataset
    shared: bool
    of_base: dict[str, Value]
    of_training: dict[str, float | None]


def find(text: str, outputs: Path = runs.OUTPUTS) -> ComparedState:
    """The state that ``RUN`` or ``RUN@STEP`` names. Without a step it is the one that is advised where the run was
    judged, else the last.

    Raises:
        RunError: there is no such run or state.
    """
    name, at, step = text.rpartition("@")
    if not (at and step.isdecimal()):
        name, step = text, ""
    run = runs.find(name, outputs)
    if step:
        return ComparedState(run, int(step), judgements.states(run, [int(step)])[int(step)])
    known = judgements.states(run)
    advice = advise(judgements.judged(run))
    chosen = advice.step if advice and advice.step in known else max(known)
    return ComparedState(run, chosen, known[chosen])


def judge(
    groups: Sequence[Sequence[ComparedState]],
    prompts: Sequence[str] = (),
    seeds: int = 0,
    folders: Sequence[Path] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, SideBySide]:
    """Judges all states, those of the first run first; yields what happens.

    Args:
        prompts, seeds: without them, as the first run was judged, or as its settings say.
        folders: of scorers (``columns``).
        cancelled: asked before every denoising step.

    Raises:
        Cancelled: ``cancelled`` said so; the states that were judged are kept.
        RunError: the runs do not share their base model.
        DatasetError, ModelError, MachineError: pictures or a model cannot be used.
    """
    states = list(dict.fromkeys(state for group in groups for state in group))
    first = states[0]
    for state in states[1:]:
        _require_same_base(first.run, state.run)
    yardsticks = yield from Yardsticks.of(states, prompts, seeds, folders)
    yardsticks.cancelled = cancelled
    judged: dict[ComparedState, JudgedState] = {}
    for done, state in enumerate(states):
        yardstick = yield from yardsticks.yardstick(state.run)
        yield Preparing(stage=state.name, done=done, total=len(states))
        judged[state] = yardstick.judged(state)
    whole = yield from yardsticks.yardstick(first.run)
    return SideBySide(
        groups=tuple(tuple(judged[state] for state in group) for group in groups),
        plan=whole.bench.plan,
        base=whole.bench.place / "base",
        dataset=yardsticks.datasets[first.run],
        shared=yardsticks.shared,
        of_base=whole.of_base(),
        of_training=whole.columns.training if whole.columns else {},
    )


@dataclass(frozen=True)
class Yardstick:
    """What the states of one run are measured with."""

    bench: Bench
    columns: Columns | None

    def judged(self, state: ComparedState) -> JudgedState:
        """``state`` with what is known of it or is measured now, and the further columns."""
        own = self.bench.elsewhere(judgements.folder(state.run))
        found, place = own.known(state.step, state.adapter), own.place
        if found is None:
            found, place = self.bench.known(state.step, state.adapter), self.bench.place
        found = found or self.bench.judge(state.step, state.adapter)
        pictures = judgements.state_folder(place, state.step)
        if self.columns:
            found = self.columns.add(found, columns.kept(pictures, self.bench.plan), self.bench.plan)
        return JudgedState(state, found, pictures)

    def of_base(self) -> dict[str, Value]:
        """What the further columns measure of the base model's pictures."""
        plan = self.bench.plan
        return self.columns.values(columns.kept(self.bench.place / "base", plan), plan) if self.columns else {}


class Yardsticks:
    """A yardstick for each run, which all draw alike. Runs of the same pictures share the first run's.

    Attributes:
        datasets: the runs' training pictures, as they are now.
        shared: whether all of them are the same.
    """

    def __init__(self, settings: Settings, base: Base, datasets: dict[Run, Dataset], folders: Sequence[Path]):
        self.settings, self.base, self.datasets, self.folders = settings, base, datasets, folders
        self.shared = len({_contents(dataset) for dataset in datasets.values()}) == 1
        self.first = next(iter(datasets))
        self.plan = JudgingPlan(())
        self.cancelled: Callable[[], bool] = lambda: False
        self._made: dict[Run, Yardstick] = {}

    @classmethod
    def of(
        cls, states: Sequence[ComparedState], prompts: Sequence[str], seeds: int, folders: Sequence[Path]
    ) -> Generator[Event, None, Yardsticks]:
        """Looks at the runs' pictures and loads the base model as the first run has it."""
        first, settings = states[0], devices.settled(states[0].run.settings())
        datasets: dict[Run, Dataset] = {}
        for run in dict.fromkeys(state.run for state in states):
            datasets[run] = yield from judging.progress(prepare.pictures_of(run, run.settings()))
        machine = devices.choose(settings.machine)
        base = yield from judging.progress(prepare.load(settings, machine, datasets[first.run]))
        judging.record(base, settings.machine)
        made = cls(settings, base, datasets, folders)
        made.plan = _plan(first, datasets, made.shared, prompts, seeds)
        yield from made._changes()
        return made

    def yardstick(self, run: Run) -> Generator[Event, None, Yardstick]:
        """That of ``run``; it draws what the base model makes of the prompts where that is not known yet."""
        if run not in self._made:
            if self.shared and run != self.first:
                first = yield from self.yardstick(self.first)
                bench = first.bench.elsewhere(first.bench.place, run.settings().run.trigger)
                bench.place = self._place(run, bench)
                self._made[run] = Yardstick(bench, first.columns)
            else:
                self._made[run] = yield from self._own(run)
        return self._made[run]

    def _own(self, run: Run) -> Generator[Event, None, Yardstick]:
        dataset, first = self.datasets[run], self.settings
        alike = {**first.previews.model_dump(), "resolution": first.dataset.resolution}
        settings = first if run == self.first else run.settings().changed(**alike)
        cache = yield from judging.progress(encoding.encode(run, settings, dataset, self.base))
        bench = Bench(settings, self.base, cache, dataset, self.plan, Path(), self.cancelled)
        bench.place = self._place(run, bench)
        yield from bench.prepare()
        return Yardstick(bench, Columns(self.folders, dataset, self.base.device) if self.folders else None)

    def _place(self, run: Run, bench: Bench) -> Path:
        """Where the bench keeps what it draws: with what the run was judged as under the same conditions, if the base
        model's pictures are there; else in the cache.
        """
        if run == self.first and judgements.judged(run, bench.key):
            return judgements.folder(run)
        return runs.cache_folder(run.folder.parent) / "comparisons" / bench.key[:16] / run.name

    def _changes(self) -> Iterator[Event]:
        """A warning for each run that was trained on other pictures than its folder has now."""
        for run, dataset in self.datasets.items():
            before = manifest.noted(run.manifest_file)
            if before and {entry["sha256"] for entry in before.values()} != {one.sha256 for one in dataset.pictures}:
                yield Warned(
                    what=tr(
                        "The pictures of {name} have changed since it was trained. Its style is measured against "
                        "those that are there now.",
                        name=run.name,
                    ),
                    where=str(dataset.folder),
                )


def _plan(
    first: ComparedState, datasets: dict[Run, Dataset], shared: bool, prompts: Sequence[str], seeds: int
) -> JudgingPlan:
    """What was drawn of the first state, if it suits the pictures of all; else what no caption of them names."""
    known, own = judgements.conditions(first.run, first.step), first.run.settings().evaluation
    if known and shared and not prompts and seeds in (0, known.plan.seeds):
        return known.plan
    captions = [picture.caption for dataset in datasets.values() for picture in dataset.pictures]
    chosen = tuple(prompts or own.evaluation_prompts) or subjects.prompts(captions, judgements.PROMPTS)
    return JudgingPlan(chosen, seeds or own.evaluation_seeds)


def _contents(dataset: Dataset) -> frozenset[str]:
    return frozenset(picture.sha256 for picture in dataset.pictures if not picture.regularisation)


def _require_same_base(first: Run, other: Run) -> None:
    """Raises RunError where two runs were trained on different base models."""
    one, two = first.settings(), other.settings()
    differing = [key for key in _OF_BASE if one[key] != two[key]]
    if one.run.base != two.run.base and not (_base_sum(first) and _base_sum(first) == _base_sum(other)):
        differing = ["base"]
    if differing:
        key = differing[0]
        raise RunError(
            tr(
                "{first} and {other} were trained on different base models: {key} is {one} and {two}.",
                first=first.name,
                other=other.name,
                key=key,
                one=one[key] or tr("not set"),
                two=two[key] or tr("not set"),
            ),
            where=other.settings_file,
            do=tr("Compare runs of one base model: measures of different ones have different scales."),
        )


def _base_sum(run: Run) -> str:
    """The hash of a run's base model, as its adapter says; empty if that is not known."""
    try:
        found = recipe.read(adapters.header(run.adapter_file).metadata)
    except (AdapterError, OSError):
        return ""
    return found.base_sha256 if isinstance(found, recipe.Training) else ""
