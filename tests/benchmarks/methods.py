"""``docs/methods.md``: what each training method costs, and who reads what it leaves behind.

``python -m tests.benchmarks.methods`` writes it anew from the code and from the measured times in ``methods.json``;
``--measure`` measures those on this machine first, on the starter. Readers are proved, not declared: a small adapter of
each method is written, and read back as each program would.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_studio import files, runs
from lora_studio.adapters import Adapter, Factors, proof, write
from lora_studio.config.settings import Settings, layer
from lora_studio.errors import AdapterError
from lora_studio.families import registry as families
from lora_studio.families.family import CONFIGS
from lora_studio.families.shapes import Shapes, Text
from lora_studio.methods.method import Layer, Method
from lora_studio.methods.registry import METHODS
from lora_studio.models import inject
from lora_studio.models.parts import read_json
from lora_studio.training import devices, memory, prepare, unet_activations
from lora_studio.training.activations import Step
from lora_studio.training.distributed import World
from lora_studio.training.train_step import train_step
from tests.benchmarks import memory as known
from tests.training.saved import card

PATH = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
TIMES = Path(__file__).with_suffix(".json")
ROUNDS, STEPS = 5, 2
"""Measured rounds, in each of which every method takes so many steps in turn."""
_BLOCK = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
_PROVED = [f"{_BLOCK}.{name}" for name in ("attn2.to_k", "attn2.to_v", "attn1.to_out.0", "ff.net.2")]
_HEAD = """# Training methods

What `method` can be, what each costs on attention layers at its usual settings, and which programs read its file.
`python3 app.py sweep methods --data my-pictures` tries them on your pictures, each at its usual learning rate, and
`python3 app.py compare methods-my-pictures` puts them side by side ([compare.md](compare.md)).

This file is made by `python -m tests.benchmarks.methods`.
"""
_NOTES = """
- **Parameters and memory**: `targets=attention`, bf16, batch 1, AdamW, no checkpointing, as estimated for a card
  ([memory.md](memory.md)). All of SD 1.5's attention, feed-forward and convolutions take {full:.1f} GB under full
  fine-tuning with `optimizer=adamw8bit` and `checkpointing=all`.
- **Read by**: proved when this table is made, by reading a file of each method as the program does. What a method
  cannot leave as it is leaves as a plain LoRA, with its residual said.
- **Full fine-tuning** trains float32 copies of the weights of the layers that `targets` and `blocks` choose, not their
  biases. `python3 app.py merge BASE RUN.safetensors -o MODEL` makes a checkpoint of it, and
  `python3 app.py resize RUN.safetensors --rank 32 -o LORA.safetensors` the nearest LoRA, with the share of the change
  that it keeps. `rank`, `alpha` and LoRA+ have no effect on it.
- **Starts**: `lora` and `dora` start their first factor at random, or with `init=eva` along the main directions of
  what their layers take in (Paischer et al. 2024). All layers keep their rank, which EVA's authors also shift between
  layers.
  `pissa` and `lora-ga` start with both factors, along the weights (Meng et al. 2024) or the loss's gradients (Wang et
  al. 2024); their product is subtracted while they train, so that step 0 is the base model itself, and the file is a
  LoRA of twice the rank. For EVA and LoRA-GA a new run passes at least 16 of its pictures through the model, twice,
  before its first step: forward for EVA, forward and backward for LoRA-GA, whose start is part of every saved state.
- **Adapter layers** are behind the last projection of each attention and, with `targets=attention+ff`, of each
  feed-forward; `rank` is their width. They are no change of weights, so they are drawn with in the studio alone.
"""


# What is in the table


_TIME = """- **Time**: of a step relative to LoRA's, on the starter with batch 4, {machine}. A card differs.
"""


def markdown() -> str:
    """The whole document; without times where none were measured."""
    times = json.loads(TIMES.read_text("utf-8")) if TIMES.exists() else {}
    rows = [_row(method, times.get("steps", {})) for method in METHODS.values()]
    heads = ["Method", "What it is", "Parameters, SD 1.5 · SDXL", "Memory, SD 1.5 · SDXL", "Read by"]
    heads += ["Time a step"] * bool(times)
    table = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |", *rows]
    with card():
        changes = {"targets": "attention+ff+conv", "optimizer": "adamw8bit", "checkpointing": "all"}
        full = memory.estimate(_settings("full", **changes), shapes("sd1"), "bf16").peak / 2**30
    told = [_TIME.format(machine=times["machine"]), *_drawing(times)] if times else []
    return "\n".join([_HEAD, *table, _NOTES.format(full=full), *told])


def shapes(family: str) -> Shapes:
    """The exact shapes, text encoders included."""
    found = known.shapes(family)
    configs = (read_json(CONFIGS / family / f"{part}.json") for part in found.known.encoders)
    text = tuple(Text(one["num_hidden_layers"], one["hidden_size"], one["intermediate_size"]) for one in configs)
    return replace(found, text=text)


def _settings(method: str, **changes: Any) -> Settings:
    """The defaults with what a choice of ``method`` brings."""
    return Settings(**layer({}, {"method": method, **changes}))


def _row(method: Method, times: dict[str, float]) -> str:
    settings = _settings(method.name)
    trained, held = [], []
    with card():
        for family in ("sd1", "sdxl"):
            step = Step.of(settings, shapes(family), memory.BYTES["bf16"])
            trained.append(f"{unet_activations.walk(shapes(family), step).trained:,}")
            held.append(f"{memory.estimate(settings, shapes(family), 'bf16').step / 2**30:.1f} GB")
    cells = [f"`{method.name}`", f"{method.help}.", " · ".join(trained), " · ".join(held), readers(method)]
    if times:
        cells.append(f"{times[method.name]:.2f}" if method.name in times else "not measured")
    return f"| {' | '.join(cells)} |"


def _drawing(times: dict[str, Any]) -> list[str]:
    """What an adapter costs where it is used."""
    rows = [f"| {name} | {value:.2f} |" for name, value in times["forward"].items()]
    return [
        "## Drawing\n",
        "A forward pass of the starter, relative to the base model without an adapter, on the same machine:\n",
        "| Adapter | Time |",
        "| --- | --- |",
        *rows,
        "",
        "A LoRA can be folded into the weights and costs nothing then; adapter layers are computed in every pass.",
        "",
    ]


# Who reads it


def readers(method: Method) -> str:
    """The programs that get the whole change of a small adapter of ``method`` from a kohya file, for people."""
    if not method.changes_layers:
        return "programs that read embeddings ([adapters.md](adapters.md))"
    adapter, weights = sample(method)
    plain = method.plain(adapter, weights, _settings(method.name).adapter)
    with tempfile.TemporaryDirectory() as folder:
        try:
            passed = [
                proof.LABELS[target]
                for target in ("comfyui", "forge", "a1111", "diffusers")
                if _passes(plain.adapter, Path(folder) / f"{target}.safetensors", target, weights)
            ]
        except AdapterError:
            passed = []
    suffix = ", as a plain LoRA" if plain.residual else ""
    return (", ".join(passed) or "the studio alone") + suffix


def _passes(adapter: Adapter, path: Path, target: str, weights: dict[str, torch.Tensor]) -> bool:
    adapter.require_weight_changes("read by other programs")
    write(adapter, path, "kohya", raw_dora=True)
    return proof.prove(path, adapter, (target,), weights).passed


@torch.no_grad()
def sample(method: Method) -> tuple[Adapter, dict[str, torch.Tensor]]:
    """An adapter of ``method`` on a few layers of SD 1.5 that has learned something, and those layers' weights."""
    known, source = families.named("sd1"), torch.Generator().manual_seed(0)
    assert known is not None
    paths = {path.partition(".")[2]: path for path in _PROVED if method.takes(path)}
    model, weights = nn.Module(), {}
    for name, path in paths.items():
        layer = nn.Linear(*known.modules[path][::-1])
        weights[path] = layer.weight.normal_(std=0.05, generator=source).clone()
        _put(model, name, layer)
    model.requires_grad_(False)
    options = _settings(method.name, rank=4, alpha=4).adapter
    method.inject(model, list(paths), options)
    layers = {path: Layer(model.get_submodule(name), lambda path=path: weights[path]) for name, path in paths.items()}
    subtracted = method.start(layers, options, source) or {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.empty(parameter.shape).normal_(std=0.02, generator=source))
    read = {path: method.read(one, subtracted.get(path)) for path, one in layers.items()}
    factors = {path: one for path, one in read.items() if isinstance(one, Factors)}
    outputs = {path: one for path, one in read.items() if not isinstance(one, Factors)}
    return Adapter(factors, {"ss_base_model_version": "sd_v1"}, outputs=outputs), weights


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Adds ``layer`` at a dotted name."""
    *parents, last = name.split(".")
    for parent in parents:
        if parent not in model._modules:
            model.add_module(parent, nn.Module())
        model = model.get_submodule(parent)
    model.add_module(last, layer)


# Measuring


def measure() -> None:
    """Measures all methods in turn, round by round, and writes ``methods.json``."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        data = Path(folder) / "pictures"
        stack.enter_context(_pictures(data))
        settings = Settings(data=str(data), steps=1000, batch=4, targets="attention", device="cpu", trigger="anastyle")
        outputs = Path(folder) / "outputs"
        taken: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for name in METHODS:
                taken.setdefault(name, []).append(_steps(Settings(**layer(settings.flat(), {"method": name})), outputs))
        steps = {name: statistics.median(values) for name, values in taken.items()}
        forward = _forward(settings, outputs)
    load = os.getloadavg()[0]
    machine = f"{torch.get_num_threads()} CPU threads, a load of {load:.0f} by other work"
    relative = {name: round(value / steps["lora"], 3) for name, value in steps.items()}
    files.write(TIMES, json.dumps({"machine": machine, "steps": relative, "forward": forward}, indent=1) + "\n")


@contextmanager
def _pictures(folder: Path) -> Iterator[None]:
    from PIL import Image

    folder.mkdir()
    for index in range(4):
        Image.new("RGB", (128, 128), (40 * index, 90, 200)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"a square, number {index}")
    yield


def _steps(settings: Settings, outputs: Path) -> float:
    """Seconds of a step, the first one left out."""
    session = _session(settings, outputs)
    train_step(session)
    session.step += 1
    began = time.perf_counter()
    for _ in range(STEPS):
        train_step(session)
        session.step += 1
    return (time.perf_counter() - began) / STEPS


_LOADED: dict[str, Any] = {}
"""The base model and its dataset, loaded once."""


def _session(settings: Settings, outputs: Path) -> Any:
    world, machine = World(), devices.choose(settings.machine)
    if not _LOADED:
        run = runs.create(settings, outputs)
        dataset = _returned(prepare.look(run, settings, world))
        _LOADED.update(run=run, dataset=dataset, base=_returned(prepare.load(settings, machine, dataset)))
    inject.remove(_LOADED["base"])
    run, dataset, base = (_LOADED[name] for name in ("run", "dataset", "base"))
    return _returned(prepare.assemble(run, settings, machine, world, dataset, base))


def _returned(events: Any) -> Any:
    """What a generator of events returns."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


@torch.no_grad()
def _forward(settings: Settings, outputs: Path) -> dict[str, float]:
    """Times of a forward pass, relative to the base model's."""
    made = {}
    for name in ("lora", "adapter-layers"):
        changed = settings.changed(method=name, targets="attention+ff")
        session = _session(changed, outputs)
        for parameter in session.parameters.values():
            parameter.add_(0.01 * torch.randn_like(parameter))
        made[name] = session.adapter()
    base = _LOADED["base"]
    inject.remove(base)
    side = base.resolution // base.scale
    noisy, text = torch.randn(4, base.channels, side, side), base.encode_text(["a cat"] * 4)
    base.unet.eval()

    def ask() -> None:
        base.predict(noisy, torch.tensor(500), text)

    def folded() -> None:
        with inject.folded(base):
            _timed(ask, kept, "LoRA, folded into the weights")

    kept: dict[str, list[float]] = {}
    for _ in range(2 * ROUNDS):
        inject.unload_adapters(base)
        _timed(ask, kept, "none")
        inject.load_adapters(base, [(made["lora"], 1.0)])
        folded()
        _timed(ask, kept, "LoRA, as two thin products")
        inject.load_adapters(base, [(made["adapter-layers"], 1.0)])
        _timed(ask, kept, "adapter layers")
    found = {name: statistics.median(values) for name, values in kept.items()}
    return {name: round(value / found["none"], 3) for name, value in found.items()}


def _timed(act: Callable[[], None], kept: dict[str, list[float]], name: str) -> None:
    began = time.perf_counter()
    act()
    kept.setdefault(name, []).append(time.perf_counter() - began)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        measure()
    files.write(PATH, markdown())
