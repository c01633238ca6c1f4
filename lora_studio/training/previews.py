"""Images drawn while training: the same prompts and seeds each time, and one of each without the adapter."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

from lora_studio import files
from lora_studio.errors import StudioError
from lora_studio.events import Event, PreviewReady, Warned
from lora_studio.models import Base, inject
from lora_studio.sampling.generate import generate
from lora_studio.training import devices, memory
from lora_studio.training.session import Session


def draw(session: Session, base: bool = False) -> Iterator[Event]:
    """Draws, saves and announces one image a prompt. A preview that fails is a warning; training goes on.

    Args:
        base: draw without the adapter, for comparison.

    Raises:
        RuntimeError: the device was lost, on which nothing goes on.
    """
    try:
        for index, (prompt, image) in enumerate(zip(session.prompts, _images(session, base), strict=True)):
            yield _keep(session, index, prompt, image, base)
    except (StudioError, RuntimeError, OSError) as error:
        if devices.lost(error):
            raise
        yield Warned(what=f"The previews at step {session.step} could not be drawn: {error}", where="previews", do="Training goes on. Fewer or smaller previews need less memory.")


def _keep(session: Session, index: int, prompt: str, image: Image, base: bool) -> PreviewReady:
    path = session.run.preview_file(session.step, index, base)
    seed = session.settings.preview_seed + index
    note = PngInfo()
    note.add_text("parameters", _recipe(session, prompt, seed))
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=note)
    files.write(path, data.getvalue())
    return PreviewReady(step=session.step, index=index, prompt=prompt, seed=seed, path=session.run.relative(path), base=base)


def _images(session: Session, base: bool) -> list:
    settings = session.settings
    prompts = session.prompts
    wanted = {"encode": session.features, "negative": settings.negative, "steps": settings.preview_steps, "guidance": settings.guidance, "sampler": settings.sampler}
    side = settings.resolution or session.base.resolution
    session.engine.make_room(_room(session.base, side))
    seeds = [settings.preview_seed + index for index in range(len(prompts))]
    try:
        with session.settled():
            if base:
                with inject.without_adapter(session.base):
                    return generate(session.base, prompts, seeds, width=side, height=side, **wanted)
            return generate(session.base, prompts, seeds, width=side, height=side, **wanted)
    finally:
        session.base.encoders_to("cpu")


def _room(base: Base, side: int) -> int:
    """Bytes that the VAE takes on the device to decode one whole picture."""
    return round(memory.RESERVED * (sum(parameter.nbytes for parameter in base.vae.parameters()) + side * side * memory.decoded(base.vae.config)))


def _recipe(session: Session, prompt: str, seed: int) -> str:
    """The line that image viewers of this field show, in A1111's order."""
    s = session.settings
    negative = f"\nNegative prompt: {s.negative}" if s.negative else ""
    return f"{prompt}{negative}\nSteps: {s.preview_steps}, Sampler: {s.sampler}, CFG scale: {s.guidance}, Seed: {seed}, Model: {session.base.name}, LoRA step: {session.step}"


class Clock:
    """How long a round of previews takes, for the ETA."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, events: Iterator[Event]) -> Iterator[Event]:
        """Passes ``events`` on and remembers how long they took."""
        began = time.monotonic()
        yield from events
        self.seconds = time.monotonic() - began
