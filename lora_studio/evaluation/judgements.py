"""What is known of a run's judged states, as ``bench`` leaves it in the run's folder. Imports no torch.

evaluation/
├── base/       the base model's pictures of the prompts, and features
├── step-N/     adapter.safetensors, with which previews were drawn or which was judged; of a judged one its
│               pictures P-S.png (prompt and seed by number) and caption-N.png (of training captions), and
│               judged.json
└── job/        the judging job (``jobs.judging``)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError

from lora_studio import files, runs
from lora_studio.errors import RunError
from lora_studio.evaluation import subjects
from lora_studio.evaluation.value import SUBJECT_SCALE, Value
from lora_studio.events import Judged
from lora_studio.language import in_row, ntr, tr
from lora_studio.runs import Run, checkpoints

if TYPE_CHECKING:
    from lora_studio.dataset.items import Dataset

PROMPTS, SEEDS = 12, 2
"""How many prompts are drawn if nobody names some, and pictures of each."""
ADAPTER = "adapter.safetensors"
_JUDGED = "judged.json"
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class JudgingPlan:
    """What is drawn: every prompt with ``seeds`` seeds from ``first_seed`` on. Prompts are without the trigger word."""

    prompts: tuple[str, ...]
    seeds: int = SEEDS
    first_seed: int = 1001

    @classmethod
    def of(cls, dataset: Dataset, prompts: Sequence[str] = (), seeds: int = SEEDS) -> JudgingPlan:
        """``prompts``, or subjects that the captions do not name: pictures of those would be learned by heart."""
        captions = [picture.caption for picture in dataset.pictures]
        return cls(tuple(prompts) or subjects.prompts(captions, PROMPTS), seeds)

    @property
    def seed_numbers(self) -> range:
        """The seeds of each prompt."""
        return range(self.first_seed, self.first_seed + self.seeds)


@dataclass(frozen=True)
class Conditions:
    """Under what a state was judged. ``key`` changes with all that a judgement depends on beside the adapter: states
    with the same one can be compared.
    """

    key: str
    plan: JudgingPlan


@dataclass(frozen=True)
class Copy:
    """A drawn picture that is very like a training picture: its prompt and seed by their numbers, and the name and
    likeness of the training picture.
    """

    prompt: NonNegativeInt
    seed: NonNegativeInt
    training: str
    likeness: FiniteFloat


@dataclass(frozen=True)
class Memorized:
    """Pictures drawn from the captions of ``asked`` training pictures: those that are very like a training picture.
    ``prompt`` is the number of the caption.
    """

    asked: int = 0
    pictures: tuple[Copy, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """What was measured of one saved state.

    Attributes:
        style: how much of the style was learned, in per cent (``evaluation.style``).
        subject: how well the pictures show their prompts; below ``level`` subjects fade (``evaluation.subject``).
        level: the training pictures' own.
        drift: how far pictures without the trigger word moved (``evaluation.drift``).
        copies: pictures of new prompts, of ``drawn``, that are very like a training picture (``evaluation.copying``).
        memorized: the same of pictures of training captions.
        samples: ``style``, ``subject`` and ``drift`` in resamplings that all states share: differences are paired.
        extra: further measures by name.
    """

    step: NonNegativeInt
    style: Value
    subject: Value
    level: Value
    drift: Value
    copies: tuple[Copy, ...]
    samples: Mapping[str, tuple[FiniteFloat, ...]]
    extra: Mapping[str, Value] = field(default_factory=dict)
    drawn: int = 0
    memorized: Memorized = Memorized()

    @property
    def fades(self) -> bool:
        """Whether subjects have faded, beyond doubt."""
        return self.subject.high is not None and self.subject.high < self.level.value

    @property
    def told_subjects(self) -> str:
        """Whether subjects hold, for people: half a sentence."""
        if self.subject.vague(SUBJECT_SCALE):
            return tr("too few prompts to tell whether subjects hold")
        return tr("subjects fade") if self.fades else tr("subjects hold")

    @property
    def copied(self) -> bool:
        """Whether it gives training pictures back: for a new prompt, or for half of the captions that were asked."""
        return bool(self.copies) or 0 < self.memorized.asked <= 2 * len(self.memorized.pictures)

    @property
    def told_copies(self) -> str:
        """What was found of copies, for people: half a sentence."""
        found = []
        if self.copies:
            found.append(
                tr(
                    "{copies} of {drawn} pictures of new prompts may be copies",
                    copies=len(self.copies),
                    drawn=self.drawn,
                )
            )
        if count := len(self.memorized.pictures):
            found.append(
                ntr(
                    count,
                    "asked by their captions, {count} of {asked} training pictures comes back",
                    "asked by their captions, {count} of {asked} training pictures come back",
                    asked=self.memorized.asked,
                )
            )
        return in_row(found) if found else tr("no copies")


def folder(run: Run) -> Path:
    """Where what was judged of a run lies."""
    return run.evaluation


def state_folder(place: Path, step: int) -> Path:
    """Where the state of ``step`` lies in ``place``, which is ``folder`` of a run, or another one."""
    return place / f"step-{step}"


def judged(run: Run, key: str = "") -> list[Judgement]:
    """What is known of the run's states, by step, of those that were judged under the conditions ``key``; by default
    under those of the latest one.
    """
    tables: list[tuple[float, dict[str, Any]]] = []
    for path in folder(run).glob(f"step-*/{_JUDGED}"):
        try:
            tables.append((path.stat().st_mtime_ns, dict(_table(path))))
        except _DAMAGED:  # half-written or damaged: it is judged again
            continue
    key = key or str(max(tables, key=lambda one: one[0])[1].get("key") if tables else "")
    found = [judgement for _, table in tables if table.get("key") == key and (judgement := _judgement(table))]
    return sorted({one.step: one for one in found}.values(), key=lambda one: one.step)


def read(place: Path, step: int, key: str) -> Judgement | None:
    """What was judged of ``step`` in ``place`` under the conditions ``key``, if it was."""
    try:
        table = _table(state_folder(place, step) / _JUDGED)
        return _judgement(table) if table["key"] == key else None
    except _DAMAGED:
        return None


def conditions(run: Run, step: int) -> Conditions | None:
    """Under what the state of ``step`` was judged; None if it was not."""
    try:
        table = _table(state_folder(folder(run), step) / _JUDGED)
        plan = table["plan"]
        return Conditions(
            str(table["key"]), JudgingPlan(tuple(plan["prompts"]), int(plan["seeds"]), int(plan["first_seed"]))
        )
    except _DAMAGED:
        return None


def write(judgement: Judgement, under: Conditions, place: Path) -> None:
    """Keeps ``judgement`` in ``place``, the ``folder`` of its run, in place of one of the same step.

    Raises:
        OSError: the disk refuses.
    """
    table = {**asdict(under), **asdict(judgement)}
    files.write(state_folder(place, judgement.step) / _JUDGED, json.dumps(table))


def same_tensors(one: Path, other: Path) -> bool:
    """Whether two safetensors files of one layout hold the same tensors, whatever their texts say. False where one
    cannot be read.
    """
    try:
        return _tensors(one) == _tensors(other)
    except OSError:
        return False


def _tensors(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").digest()


def forget(place: Path, step: int) -> None:
    """Drops what was judged of ``step``, before its pictures are replaced.

    Raises:
        OSError: the disk refuses.
    """
    files.unlink(state_folder(place, step) / _JUDGED)


def keep_unjudged(place: Path, step: int, write: Callable[[Path], object]) -> None:
    """Keeps the adapter that ``write`` writes to a path as the state of ``step``, with which previews were drawn. What
    was judged of another adapter of that step, before a rollback, is dropped.

    Raises:
        OSError: the disk refuses; nothing is left of the adapter.
    """
    own = state_folder(place, step)
    partial = files.partial(own / ADAPTER)
    try:
        files.make_folder(own)
        write(partial)
        if not same_tensors(own / ADAPTER, partial):
            forget(place, step)
            files.replace(partial, own / ADAPTER)
    finally:
        files.unlink(partial)


def prune_unjudged(place: Path, step: int, most: int) -> None:
    """Deletes the adapters that are kept without a judgement, but for the ``most`` of the latest steps up to ``step``:
    those of later steps are what a rollback left behind.

    Raises:
        OSError: the disk refuses.
    """
    known = {known: path for known, path in _kept_adapters(place).items() if not path.with_name(_JUDGED).exists()}
    kept = sorted((one for one in known if one <= step), reverse=True)[:most]
    for one, path in known.items():
        if one not in kept:
            files.remove(path.parent)


def states(run: Run, steps: Iterable[int] = ()) -> dict[int, Path]:
    """The adapter of every state by its step, or of ``steps``: of those that are saved, and of those that are kept
    because previews were drawn with them or they were judged.

    Raises:
        RunError: there is none, or none of a step.
    """
    saved = {one.step: one.folder / ADAPTER for one in checkpoints.listed(run)}
    found = _kept_adapters(folder(run)) | {step: path for step, path in saved.items() if path.is_file()}
    wanted = list(steps)
    if missing := [step for step in wanted if step not in found]:
        raise RunError(
            tr("{name} has no saved state of step {step}.", name=run.name, step=missing[0]),
            where=run.checkpoints,
            do=tr("Choose among {steps}.", steps=[*map(str, sorted(found))] or tr("none")),
        )
    if not found:
        do = tr("Train with checkpoint_every, keep_checkpoints or keep_previewed, so that states are kept.")
        raise RunError(tr("{name} has no saved state to judge.", name=run.name), where=run.checkpoints, do=do)
    return {step: found[step] for step in sorted(wanted or found)}


def _kept_adapters(place: Path) -> dict[int, Path]:
    """The adapters that are kept without all of their state, by step."""
    found: dict[int, Path] = {}
    for entry in runs.entries(place, []):
        step, path = checkpoints.step_of(entry.name), Path(entry.path, ADAPTER)
        if step is not None and path.is_file():
            found[step] = path
    return found


def event(found: Judgement, seconds: float = 0.0) -> Judged:
    """How a log has it. ``seconds`` is what it took."""
    style = found.style
    return Judged(
        step=found.step,
        style=style.value,
        low=style.value if style.low is None else style.low,
        high=style.value if style.high is None else style.high,
        subject=found.subject.value,
        level=found.level.value,
        fades=found.fades,
        drift=found.drift.value,
        copies=len(found.copies),
        memorized=len(found.memorized.pictures),
        asked=found.memorized.asked,
        seconds=seconds,
    )


def _table(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def _judgement(table: dict[str, Any]) -> Judgement | None:
    """None where the table is damaged, or of an earlier version."""
    try:
        found = _VALIDATED.validate_python(table)
    except ValidationError:
        return None
    rows = {len(row) for row in found.samples.values()}
    sound = {"drawn", "memorized"} <= table.keys() and "style" in found.samples and len(rows) == 1 and 0 not in rows
    return found if sound else None


_VALIDATED = TypeAdapter(Judgement)
