"""The proof of an export: the file read back as each target reads it, and its change compared with the studio's own.

The readers are in ``targets`` and share no code with the writers. An export gets its name only after it has passed.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from lora_studio import files
from lora_studio.adapters import dora, formats, kinds, kohya, resize, word_targets
from lora_studio.adapters import metadata as meta
from lora_studio.adapters.adapter import Adapter
from lora_studio.adapters.kinds import Form, Kind
from lora_studio.adapters.targets import READERS
from lora_studio.errors import AdapterError
from lora_studio.language import ntr, tr

TARGETS = tuple(READERS)
LABELS = {"comfyui": "ComfyUI", "forge": "Forge", "a1111": "A1111", "diffusers": "diffusers", "peft": "peft"}


class Row(NamedTuple):
    """One target's line of the proof's table."""

    target: str
    modules: int
    """Modules of the adapter."""
    matched: int
    """Modules that the target finds in the file."""
    ignored: int
    """Tensors in the file that the target would leave out."""
    worst: float
    """Largest ‖ΔW_theirs − ΔW‖ / ‖ΔW‖ of a module; infinite where one is missing."""
    where: str
    """The module of ``worst``."""
    tolerance: float
    passed: bool
    note: str


class Proof(NamedTuple):
    """The whole table; the export is done only when ``passed``."""

    rows: list[Row]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def lines(self) -> list[str]:
        """The table as text, a target a line."""
        width = max(map(len, LABELS.values()))
        return [f"{LABELS[row.target]:{width}}  {'pass' if row.passed else 'FAIL'}  {row.note}" for row in self.rows]

    def data(self) -> list[dict[str, Any]]:
        """The table as JSON can hold it: ``worst`` is None where it is infinite."""
        return [{**row._asdict(), "worst": row.worst if math.isfinite(row.worst) else None} for row in self.rows]

    def require(self) -> None:
        """Raises AdapterError for the first target that would not get the adapter unchanged; its details hold the whole
        table, its notes the table as text.
        """
        for row in self.rows:
            if not row.passed:
                error = AdapterError(
                    tr(
                        "{program} would not read the export as it is here: {note}",
                        program=LABELS[row.target],
                        note=row.note,
                    ),
                    where=row.where,
                    do=tr("Choose another format for it; the table says which targets pass."),
                    details={"proof": self.data()},
                )
                for line in self.lines():
                    error.add_note(line)
                raise error


def prove(
    path: Path | str,
    adapter: Adapter,
    targets: tuple[str, ...] = ("comfyui", "forge", "diffusers"),
    weights: dora.Weights | None = None,
) -> Proof:
    """Reads the export at ``path`` as each target would and compares ΔW module by module with ``adapter``'s.

    Args:
        adapter: as the studio holds it, before it was rounded to the file's number format.
        targets: of ``TARGETS``.
        weights: the base model's, which a DoRA's change depends on.

    Raises:
        AdapterError: the adapter is a DoRA and no weights are given, or an unknown target is named.
    """
    if unknown := set(targets) - set(TARGETS):
        raise AdapterError(
            tr("There is no export target named {target!r}.", target=sorted(unknown)[0]),
            do=tr("There are: {names}.", names=", ".join(TARGETS)),
        )
    if adapter.kind.needs_base and weights is None:
        raise AdapterError(
            tr("The change of {a_title} depends on the base model, which is not given.", a_title=adapter.kind.a_title),
            do=tr("Load the base model, or export it as plain LoRA."),
        )
    return Proof([_row(target, Path(path), adapter, weights) for target in targets])


def _row(target: str, path: Path, adapter: Adapter, weights: dora.Weights | None) -> Row:
    count = len(adapter.changes)
    try:
        read = READERS[target](path, adapter.family)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        return Row(target, count, 0, 0, math.inf, "", 0.0, False, tr("It cannot open the file: {error}", error=error))
    matched, worst, where = 0, 0.0, ""
    for module, change in adapter.changes.items():
        W = dora.weight_of(weights, module) if weights is not None and dora.depends(change) else None
        true = dora.change(change, W)
        theirs = read.change(module, W)
        matched += theirs is not None
        difference = _relative(theirs, true)
        if difference > worst or not where:
            worst, where = difference, module
    ignored = len(read.unread) - (word_targets.bundled(path) if adapter.embeddings else 0)
    row = Row(target, count, matched, ignored, worst, where, read.tolerance, False, "")
    return _with_words(_judged(row, adapter.kind), path, adapter)


def _with_words(row: Row, path: Path, adapter: Adapter) -> Row:
    """``row`` with what becomes of the adapter's learned words."""
    if not adapter.embeddings or not row.passed:
        return row
    lost, told = word_targets.heard(path, row.target, adapter.embeddings)
    if lost:
        return row._replace(passed=False, note=lost, where=next(iter(adapter.embeddings)))
    return row._replace(note=f"{row.note} {told}" if row.modules else told)


def _relative(theirs: Tensor | None, true: Tensor) -> float:
    if theirs is None or theirs.shape != true.shape:
        return math.inf
    size, off = float(true.norm()), float((theirs - true).norm())
    if not math.isfinite(off):
        return math.inf
    return off / size if size else (0.0 if off == 0 else math.inf)


def _judged(row: Row, kind: Kind) -> Row:
    if not row.matched and kind.readers and row.target not in kind.readers:
        return row._replace(note=tr("It does not read {a_title}.", a_title=kind.a_title))
    if row.matched < row.modules:
        return row._replace(
            note=tr("It finds {matched} of {modules} modules.", matched=row.matched, modules=row.modules)
        )
    if row.ignored:
        return row._replace(
            note=ntr(row.ignored, "It would leave out {count} tensor.", "It would leave out {count} tensors.")
        )
    if row.worst > row.tolerance:
        differs = tr(
            "Its change differs by {difference:.2g} of its size (allowed {tolerance:.2g}).",
            difference=row.worst,
            tolerance=row.tolerance,
        )
        return row._replace(note=differs)
    arrived = tr(
        "All {modules} modules arrive; largest difference {difference:.1e}.", modules=row.modules, difference=row.worst
    )
    return row._replace(passed=True, note=arrived)


class Export(NamedTuple):
    """A finished export."""

    path: Path
    proof: Proof
    residual: float
    """‖ΔW − ΔW_r‖ / ‖ΔW‖ where another kind was made a plain LoRA, else 0."""


_RANK = 64
"""Of the plain LoRA that is made of a change without a rank."""


def _readers(adapter: Adapter, dialect: str, form: Form) -> tuple[str, ...]:
    """Who is meant to read it: diffusers refuses a LoRA's file with bundled words."""
    bundled = adapter.embeddings and adapter.changes
    return tuple(one for one in kinds.readers_of(adapter.kind, dialect, form) if not (bundled and one == "diffusers"))


def export(
    adapter: Adapter,
    path: Path | str,
    dialect: formats.Dialect = "kohya",
    *,
    dtype: torch.dtype | None = None,
    targets: tuple[str, ...] = (),
    privacy: meta.Privacy = meta.Privacy.FULL,
    weights: dora.Weights | None = None,
    rank: int = 0,
    form: Form | None = None,
) -> Export:
    """Writes the adapter beside ``path``, proves it, and only then gives it its name.

    Args:
        dialect, dtype, privacy: as for ``formats.write``.
        targets: programs to prove it for; empty takes those that are meant to read the dialect and the form.
        weights: the base model's, which some kinds' changes depend on.
        rank: of the plain LoRA that another kind becomes; 0 takes twice a DoRA's, all that is in a LoHa or LoKr, and 64
            otherwise.
        form: None takes ``kinds.usual_form``. Only a kohya file holds others than "lora".

    Raises:
        AdapterError: a target would not get it unchanged (nothing is left at ``path``), it is no change of weights, or
            it depends on weights that are not given.
    """
    path, form = Path(path), form or kinds.usual_form(adapter.kind, dialect)
    _require_exportable(adapter, path, weights)
    written = _in_form(adapter, dialect, form, weights, rank)
    partial = files.partial(path)
    title = {"modelspec.title": adapter.metadata.get("modelspec.title") or path.stem}
    try:
        formats.write(written.adapter, partial, dialect, dtype, title, privacy, raw_dora=form == "own")
        proof = prove(partial, written.true, targets or _readers(adapter, dialect, form), weights)
        proof.require()
        files.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink(missing_ok=True)
    return Export(path, proof, written.residual)


def _require_exportable(adapter: Adapter, path: Path, weights: dora.Weights | None) -> None:
    adapter.require_weight_changes(tr("exported for other programs"))
    if adapter.kind.needs_base and weights is None:
        raise AdapterError(
            tr("The change of {a_title} depends on the base model, which is not given.", a_title=adapter.kind.a_title),
            where=path,
            do=tr("Choose the base model it was trained on."),
        )


class _Written(NamedTuple):
    adapter: Adapter
    true: Adapter
    """What its readers must compute."""
    residual: float = 0.0


def _in_form(adapter: Adapter, dialect: str, form: Form, weights: dora.Weights | None, rank: int) -> _Written:
    """The adapter as it is written in that form."""
    if dialect != "kohya" and form != "lora":
        raise AdapterError(
            tr("A file for {program} holds a plain LoRA.", program=dialect), do=tr("Choose kohya, or the form lora.")
        )
    if form == "full":
        full = dora.as_full(adapter, weights or {})
        return _Written(full, full)
    if form == "own" and adapter.kind.readers:
        return _Written(dora.for_web_uis(adapter, weights or {}), adapter)
    if adapter.kind.needs_base:
        usual = _RANK if adapter.outputs else 2 * adapter.rank
        made, _, residual = dora.as_lora(adapter, weights or {}, rank or usual)
    else:
        made, residual = adapter, 0.0
        if rank and adapter.kind.readers:
            made, residual, _ = resize.to_rank(adapter, rank)
    if dialect == "kohya":
        made = kohya.for_every_reader(made)
    return _Written(made, made, residual)
