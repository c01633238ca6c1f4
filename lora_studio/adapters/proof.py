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
from lora_studio.adapters import dora, formats, kohya
from lora_studio.adapters import metadata as meta
from lora_studio.adapters.adapter import Adapter
from lora_studio.adapters.targets import READERS
from lora_studio.errors import AdapterError

TARGETS = tuple(READERS)
LABELS = {"comfyui": "ComfyUI", "forge": "Forge / A1111", "diffusers": "diffusers", "peft": "peft"}


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
                    f"{LABELS[row.target]} would not read the export as it is here: {row.note}",
                    where=row.where,
                    do="Choose another format for it; the table says which targets pass.",
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
            f"There is no export target named {sorted(unknown)[0]!r}.", do=f"There are: {', '.join(TARGETS)}."
        )
    if adapter.kind.needs_base and weights is None:
        raise AdapterError(
            "A DoRA's change depends on the base model, which is not given.",
            do="Load the base model, or export it as plain LoRA.",
        )
    return Proof([_row(target, Path(path), adapter, weights) for target in targets])


def _row(target: str, path: Path, adapter: Adapter, weights: dora.Weights | None) -> Row:
    count = len(adapter.factors)
    try:
        read = READERS[target](path, adapter.family)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        return Row(target, count, 0, 0, math.inf, "", 0.0, False, f"It cannot open the file: {error}")
    matched, worst, where = 0, 0.0, ""
    for module, factors in adapter.factors.items():
        W = None if weights is None else dora.weight_of(weights, module)
        true = factors.delta() if factors.magnitude is None or W is None else dora.change(factors, W)
        theirs = read.change(module, W)
        matched += theirs is not None
        difference = _relative(theirs, true)
        if difference > worst or not where:
            worst, where = difference, module
    return _judged(Row(target, count, matched, len(read.unread), worst, where, read.tolerance, False, ""))


def _relative(theirs: Tensor | None, true: Tensor) -> float:
    if theirs is None or theirs.shape != true.shape:
        return math.inf
    size, off = float(true.norm()), float((theirs - true).norm())
    if not math.isfinite(off):
        return math.inf
    return off / size if size else (0.0 if off == 0 else math.inf)


def _judged(row: Row) -> Row:
    if row.matched < row.modules:
        return row._replace(note=f"It finds {row.matched} of {row.modules} modules.")
    if row.ignored:
        return row._replace(note=f"It would leave out {row.ignored} tensors.")
    if row.worst > row.tolerance:
        return row._replace(note=f"Its change differs by {row.worst:.2g} of its size (allowed {row.tolerance:.2g}).")
    return row._replace(passed=True, note=f"All {row.modules} modules arrive; largest difference {row.worst:.1e}.")


class Export(NamedTuple):
    """A finished export."""

    path: Path
    proof: Proof
    residual: float
    """‖ΔW − ΔW_r‖ / ‖ΔW‖ where a DoRA was made a plain LoRA, else 0."""


DEFAULT_TARGETS: dict[str, tuple[str, ...]] = {
    "kohya": ("comfyui", "forge", "diffusers"),
    "diffusers": ("diffusers",),
    "peft": ("peft",),
}
"""Who is meant to read each dialect."""


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
    keep_dora: bool = False,
) -> Export:
    """Writes the adapter beside ``path``, proves it, and only then gives it its name.

    Args:
        dialect, dtype, privacy: as for ``formats.write``.
        targets: programs to prove it for; empty takes those that are meant to read the dialect.
        weights: the base model's, with which a DoRA becomes a plain LoRA of ``rank`` (0: its own).
        keep_dora: a DoRA stays one, written for ComfyUI and Forge, which then compute its exact change.

    Raises:
        AdapterError: a target would not get it unchanged (nothing is left at ``path``), or a DoRA has no weights to go
        by.
    """
    path = Path(path)
    plain, residual, keep_dora = adapter, 0.0, keep_dora and adapter.kind.needs_base
    if adapter.kind.needs_base:
        if weights is None:
            raise AdapterError(
                "A DoRA's change depends on the base model, which is not given.",
                where=path,
                do="Choose the base model it was trained on.",
            )
        if keep_dora:
            plain, dialect, targets = dora.for_web_uis(adapter, weights), "kohya", targets or ("comfyui", "forge")
        else:
            plain, _, residual = dora.as_lora(adapter, weights, rank or adapter.rank)
    if dialect == "kohya" and not keep_dora:
        plain = kohya.for_every_reader(plain)
    partial = files.partial(path)
    title = {"modelspec.title": adapter.metadata.get("modelspec.title") or path.stem}
    try:
        formats.write(plain, partial, dialect, dtype, title, privacy, raw_dora=keep_dora)
        proof = prove(
            partial,
            adapter if keep_dora else plain,
            targets or DEFAULT_TARGETS[dialect],
            weights if keep_dora else None,
        )
        proof.require()
        files.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink(missing_ok=True)
    return Export(path, proof, residual)
