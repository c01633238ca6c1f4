"""``merge``: folds adapters into a base model, or takes them out again."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from lora_studio.cli import adapters as shared
from lora_studio.cli.generate import parse_adapter
from lora_studio.cli.options import AsJson, duration, tell
from lora_studio.errors import SettingsError


def merge(
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE",
            help="A diffusers folder, a .safetensors checkpoint, the starter, or a hub name that was downloaded.",
        ),
    ],
    named: Annotated[
        list[str], typer.Argument(metavar="FILE[:WEIGHT]...", help="Adapters, each with its weight if it is not 1.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="PATH",
            help="Where to save the whole model: a file for a file, a folder for a folder.",
            show_default=False,
        ),
    ],
    unmerge: Annotated[bool, typer.Option("--unmerge", help="Take the adapters out of BASE again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fold adapters into a base model: a whole model that needs no adapter."""
    pairs = [parse_adapter(text, "FILE") for text in named]
    source = shared.base_path(base)
    path = shared.destination(out, folder=source.is_dir())
    began = time.monotonic()
    tensors = _work(source, path, pairs, unmerge)
    result = {
        "file": path,
        "tensors": tensors,
        "seconds": round(time.monotonic() - began, 2),
        "unmerged": unmerge,
        "adapters": [{"file": file, "weight": weight} for file, weight in pairs],
    }
    what, adapters = "Taken out" if unmerge else "Merged", f"{len(pairs)} adapter{'s' * (len(pairs) > 1)}"
    summary = f"{what}: {adapters}, {tensors} tensors, in {duration(result['seconds'])}."
    tell(result, [summary, f"Saved: {path}"], as_json)


def _work(source: Path, path: Path, pairs: list[tuple[Path, float]], unmerge: bool) -> int:
    """Merges, with progress on a terminal; returns the number of tensors."""
    from lora_studio import adapters
    from lora_studio.adapters import merge as algebra

    if not any(weight for _, weight in pairs):
        raise SettingsError(
            "Every weight is 0: nothing would change.", where="FILE", do="Give at least one adapter a weight."
        )
    read = [(adapters.read(file), weight) for file, weight in pairs]
    done = 0
    for progress in (algebra.unmerge if unmerge else algebra.merge)(source, path, read):
        done = progress.done
        if sys.stderr.isatty():
            print(
                f"\r{progress.done} of {progress.total} tensors",
                end="\n" if progress.done == progress.total else "",
                file=sys.stderr,
                flush=True,
            )
    return done
