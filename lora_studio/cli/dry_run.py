"""``train --dry-run``: the memory that a run takes, estimated and measured, and what to change if it is too much."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_studio.cli import options
from lora_studio.cli.watch import Display
from lora_studio.config.settings import Settings
from lora_studio.errors import StudioError
from lora_studio.jobs import environment
from lora_studio.jobs.view import RunView

_ROWS = {
    "weights": "base model",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "working": "temporary buffers",
    "step": "a step",
    "encoding": "encoding pictures",
    "preview": "drawing a preview",
}
"""How the parts of the estimate are shown."""


def tell(settings: Settings, outputs: Path, as_json: bool) -> None:
    """Estimates, measures, and prints both.

    Args:
        as_json: print a line with the estimate, one for each event of the trial, and at the end one object with all.
    """
    for name, value in environment.CARD.items():  # read when a card is first used
        os.environ.setdefault(name, value)
    from lora_studio.models import shapes
    from lora_studio.training import devices, memory, preflight

    machine = devices.choose(settings.machine)
    base = shapes.read(settings.run.base, settings.run.vae, settings.run.text_encoders)
    limit = preflight.limit(machine.device)
    estimate = memory.estimate(settings, base, machine.precision, limit) if memory.can_estimate(base) else None

    def ways(needed: float) -> list[dict[str, Any]]:
        return [
            {"changes": saving.changes, "peak": saving.peak}
            for saving in memory.savings(settings, base, machine.precision, needed)
        ]

    told: dict[str, Any] = {
        "device": machine.name,
        "precision": machine.precision,
        "limit": limit,
        "family": base.family,
        "estimate": estimate and estimate.table(),
    }
    fits = estimate and estimate.peak <= limit
    options.tell(
        {"estimated": {**told, "fits": fits, "would_fit": ways(0.9 * limit) if fits is False else []}},
        list(_estimated(told)),
        as_json,
    )
    measured, seen = _try(settings, outputs, as_json)
    warnings = {(one.what, one.where): one for one in seen.warnings}
    told["warnings"] = [{"what": one.what, "where": one.where, "do": one.do} for one in warnings.values()]
    told["predicts"] = seen.base.finding if seen.base else ""
    told["measured"] = (
        None
        if measured is None
        else {
            "peak": measured.peak,
            "step_seconds": measured.step_seconds,
            "previews": measured.previews,
            "copies": measured.copies,
            "encoding_seconds": measured.encoding_seconds,
            "cached": measured.copies * memory.cached(settings, base),
        }
    )
    told["fits"] = measured is not None and measured.previews and measured.peak <= limit
    told["would_fit"] = []
    if estimate and not told["fits"]:
        scale = max(1.0, measured.peak / estimate.peak) if measured and machine.device.type == "cuda" else 1.0
        told["would_fit"] = ways(0.9 * min(limit, estimate.peak) / scale)
    options.tell(told, list(_verdict(told)), as_json)


def _try(settings: Settings, outputs: Path, as_json: bool) -> tuple[Any, RunView]:
    """Runs the trial and shows its progress; returns what was measured, and the view of its events."""
    from lora_studio.training import preflight

    trial, seen = preflight.measure(settings, outputs), RunView()
    with Display() as display:
        display.say("Trying a few steps and a preview…")
        while True:
            try:
                event = next(trial)
            except StopIteration as end:
                return end.value, seen
            seen.apply(event)
            display.show(event, seen)
            if as_json:
                print(event.printed(), flush=True)


def _estimated(told: dict[str, Any]) -> Iterator[str]:
    if told["estimate"] is None:
        yield "How much memory this kind of base model takes cannot be estimated. It is measured instead."
        return
    yield f"Estimated for {told['device']}, {told['precision']}:"
    for key, name in _ROWS.items():
        yield f"  {name:22} {_size(told['estimate'][key]):>9}" + ("   (the sum of these)" if key == "step" else "")


def _verdict(told: dict[str, Any]) -> Iterator[str]:
    measured, limit = told["measured"], _size(told["limit"])
    if measured is None:
        yield f"It does not fit into the {limit} of {told['device']}."
    else:
        yield f"Measured: {_size(measured['peak'])} of {limit}; a step takes {measured['step_seconds']:.2f} s."
        if measured["copies"]:
            yield (
                f"Encoded: {measured['copies']:,} pictures, mirrored and altered copies counted, in "
                f"{measured['encoding_seconds']:.0f} s; about {_size(measured['cached'])} in the cache."
            )
        yield (
            "It fits." if told["fits"] else "A preview did not fit." if not measured["previews"] else "It does not fit."
        )
    if told["warnings"]:
        yield "But note:" if told["fits"] else "Note also:"
        yield from (f"  {StudioError(**warning)}" for warning in told["warnings"])
    if not told["fits"] and told["estimate"]:
        yield (
            "These settings need less:"
            if told["would_fit"]
            else "No setting saves enough memory. Choose a smaller base model."
        )
    for way in told["would_fit"]:
        changes = " ".join(f"--set {key}={value}" for key, value in way["changes"].items())
        yield f"  {changes}   (about {_size(way['peak'])})"


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GB" if count >= 0.1 * 2**30 else f"{count / 2**20:.1f} MB"
