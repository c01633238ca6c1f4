"""Starts that go by what the layers see: before the first step of a new run, a few of its batches pass through the
model.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

import torch

from lora_studio.errors import RunError
from lora_studio.events import Event, LayersSeen, Preparing
from lora_studio.language import tr
from lora_studio.methods import registry as methods
from lora_studio.models import inject
from lora_studio.models.sketch import PASSES, Sketch, watching
from lora_studio.optim.ema import Average
from lora_studio.training import seeds
from lora_studio.training.session import Session

SAMPLES = 16
"""At least so many, each at its own noise level, in the run's first batches."""
_LOWER = 16.0
"""What fp16's loss scale is divided by, where a gradient does not fit it."""


def take(session: Session) -> Iterator[Event]:
    """Has a new run's adapter start along its layers' inputs or gradients, where its method wants that. The same seed
    and pictures give the same start; random numbers of the run's steps stay as they are.

    A sketch of gradients takes about as much memory as Adam's moments, which are not there yet.

    Raises:
        RunError: a gradient is NaN or infinite.
    """
    method, settings = methods.get(session.settings.adapter.method), session.settings.adapter
    what = method.looks_at(settings)
    if not what:
        return
    began, scaling = time.monotonic(), session.stepper.scaler.state_dict()
    sketches = yield from _sketches(session, what == "gradients")
    session.stepper.scaler.load_state_dict(scaling)
    session.stepper.forget()  # the gradients of the parameters, which nothing was learned from
    seen = {path: sketch.directions() for path, sketch in sketches.items()}
    with session.stepper.flat.full_precision():
        inject.start_along(session.base, settings, seen)
    session.average = Average(session.parameters, session.settings.optimizer.ema)
    yield LayersSeen(
        what=what,
        layers=sum(len(one.strengths) > 0 for one in seen.values()),
        of=len(seen),
        samples=_batches(session) * session.settings.optimizer.batch,
        seconds=time.monotonic() - began,
        memory=sum(sketch.size for sketch in sketches.values()),
    )


def _batches(session: Session) -> int:
    return -(-SAMPLES // session.settings.optimizer.batch)


def _sketches(session: Session, gradients: bool) -> Generator[Event, None, dict[str, Sketch]]:
    """Sketches of all layers after both passes. In fp16 at a lower scale of the loss, where one is too high."""
    scaler = session.stepper.scaler
    while True:
        sketches = yield from _looked(session, gradients)
        if all(sketch.finite() for sketch in sketches.values()):
            return sketches
        if scaler.get_scale() <= 1:
            raise RunError(
                tr("The layers' inputs or gradients are NaN or infinite before anything was learned."),
                where="base",
                do=tr("Choose another copy of the base model, or set precision to fp32."),
            )
        scaler.update(max(1.0, scaler.get_scale() / _LOWER))


def _looked(session: Session, gradients: bool) -> Generator[Event, None, dict[str, Sketch]]:
    settings = session.settings.adapter.of_family(session.base.family)
    layers, source = inject.layers(session.base), seeds.generator(session.settings.run.seed, seeds.START)
    sketches = {
        path: Sketch(layer.module.get_base_layer(), gradients, settings.at(path).rank * (1 + gradients), source)
        for path, layer in layers.items()
    }
    count = _batches(session)
    stage = tr("looking at the layers' gradients") if gradients else tr("looking at the layers' inputs")
    with watching({path: layer.module for path, layer in layers.items()}, sketches):
        for number in range(PASSES * count):
            yield Preparing(stage=stage, done=number, total=PASSES * count)
            batch = session.data.batches.draw(number % count)
            with torch.set_grad_enabled(gradients):
                session.stepper.show(batch)
            if number == count - 1:
                for sketch in sketches.values():
                    sketch.turn()
    return sketches
