"""The process that draws images on request: ``python -m lora_studio.jobs.renderer_worker OUTPUTS``. See ``renderer``
for its requests and answers.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import TypeAdapter, ValidationError

from lora_studio import __version__, files, libraries
from lora_studio.config.settings import Settings
from lora_studio.config.slices import PreviewSettings
from lora_studio.dataset.items import Bucket
from lora_studio.events import Warned
from lora_studio.jobs import turns
from lora_studio.jobs.answering import Drawer, end_first
from lora_studio.jobs.forming import Forming, png
from lora_studio.jobs.image_spec import ImageSpec, RoundTrip
from lora_studio.jobs.inbox import Inbox
from lora_studio.jobs.models_in_memory import ModelsInMemory, base_of
from lora_studio.jobs.renderer import Answer, Cancellation, ImageRequest, targets
from lora_studio.language import in_sequence, tr
from lora_studio.sampling.image_settings import ImageSettings

if TYPE_CHECKING:
    from lora_studio.models import Base
    from lora_studio.sampling.axes import Grid
    from lora_studio.sampling.denoise import StepTaken
    from lora_studio.sampling.round_trip import VaeRoundTrip

IDLE = 300.0
"""Seconds without a request after which it ends and frees the memory."""
LOOK = 1.0
"""Seconds between two looks for a run or a job at work."""
_LINE: TypeAdapter[ImageRequest | Cancellation] = TypeAdapter(ImageRequest | Cancellation)


class Studio:
    """Draws what is asked for, with the models in memory.

    Args:
        say: takes the answers to a request, as they come.
    """

    def __init__(self, say: Callable[[Answer], None]) -> None:
        self.say, self.models = say, ModelsInMemory()
        self._vae: tuple[tuple[Any, ...], VaeRoundTrip] | None = None
        self._sums: dict[tuple[Any, ...], dict[str, Any]] = {}

    def draw(self, request: ImageRequest, cancelled: Callable[[], bool]) -> None:
        """Draws the images of ``request``, shown early if it asks for that. Says "loading" before it has to load
        the base model.

        Raises:
            StudioError: the base model or an adapter cannot be loaded, they do not fit each other, or a setting is out
                of its bounds.
        """
        spec = request.spec
        if isinstance(spec, RoundTrip):
            self._round_trip(request, spec)
            return
        if not self.models.holds(spec):
            self.say(Answer(id=request.id, kind="loading", last=False))
        base = self.models.base(spec)
        spec, about = _suited(base, spec, base.notices + self.models.read_as_trained(base, spec) + _plain_words(spec))
        began = time.monotonic()
        if spec.across:
            sheet = self._sheet(spec, cancelled)
            self._save(request, sheet, began, steps=spec.steps, **_with_failure(base, about))
            return
        about |= self.models.load(spec)
        show = partial(self._save, request, began=began, suffix="-first", last=False, steps=spec.first)
        with Forming(request, spec, base, show, self.say) as forming:
            images = self._pictures(spec, cancelled, forming.seen)
            self._save(request, images, began, steps=spec.steps, **_with_failure(base, about))

    def share(self, alone: bool) -> None:
        """As ``ModelsInMemory.share``."""
        self.models.share(alone)

    def _round_trip(self, request: ImageRequest, spec: RoundTrip) -> None:
        from lora_studio.sampling.round_trip import VaeRoundTrip
        from lora_studio.training import devices

        wanted = spec.base, spec.vae, spec.text_encoders
        if self._vae is None or self._vae[0] != wanted:
            self.say(Answer(id=request.id, kind="loading", last=False))
            self._vae = None
            device = devices.choose(Settings().machine).device
            self._vae = wanted, VaeRoundTrip(spec.base, device, spec.vae, spec.text_encoders)
        began = time.monotonic()
        seen = self._vae[1].seen(spec.as_picture, Bucket(*spec.bucket))
        self._save(request, [png(seen)], began)

    def _save(
        self, request: ImageRequest, images: Sequence[bytes], began: float, suffix: str = "", **told: Any
    ) -> bool:
        """Saves the images and says so; none means that the work was cancelled. Whether there were any."""
        if not images:
            self.say(Answer(id=request.id, kind="dropped"))
            return False
        first = Path(request.to)
        paths = targets(first.with_stem(f"{first.stem}{suffix}"), len(images))
        for path, data in zip(paths, images, strict=True):
            _write(path, data)
        seconds = round(time.monotonic() - began, 3)
        drawn = Answer(id=request.id, kind="drawn", seconds=seconds, **told)
        self.say(drawn.model_copy(update={"path": str(paths[0]), "paths": tuple(map(str, paths))}))
        return True

    def _pictures(
        self, spec: ImageSpec, cancelled: Callable[[], bool], seen: Callable[[StepTaken], None]
    ) -> list[bytes]:
        """All images as files; none where it was cancelled."""
        from lora_studio.sampling.generate import generate, sampling
        from lora_studio.sampling.start import from_image, opened

        base, seeds = self.models.base(spec), range(spec.seed, spec.seed + spec.count)
        settings, start = ImageSettings.of(spec), None
        if spec.start:
            start = from_image(base, opened(spec.start), sampling(base, settings), spec.start.strength)
        prompts = [spec.prompt] * spec.count
        drawn = generate(base, prompts, seeds, settings, start=start, cancelled=cancelled, seen=seen)
        return [png(image) for image in drawn] if len(drawn) == spec.count else []

    def _sheet(self, spec: ImageSpec, cancelled: Callable[[], bool]) -> list[bytes]:
        """The sheet with its recipe, or nothing where it was cancelled; weights that it does not vary are those of the
        spec.
        """
        from lora_studio.sampling.grid import render
        from lora_studio.sampling.recipe import to_png

        base, adapters = self.models.base(spec), [self.models.adapter(one) for one in spec.adapters]
        recipe = _recipe(spec, base.name)
        self.models.forget_loaded()  # the sheet's own adapters replace them
        cells = [cell for row in recipe.cells for cell in row]
        pictures = render(base, adapters, cells, ImageSettings.of(spec), cancelled=cancelled)
        if not pictures:
            return []
        if (wanted := base_of(spec)) not in self._sums:
            self._sums[wanted] = {"base_sha256": base.sha256(), "parts": base.given_sha256()}
        known = {**self._sums[wanted], "clip_skip": base.clip_skip}
        return [to_png(recipe.model_copy(update=known), pictures)]


def _recipe(spec: ImageSpec, base: str) -> Grid:
    """The sheet's recipe, without what is known of the base model once it is loaded."""
    from lora_studio.sampling.recipe import grid

    placed = [{"name": one.name, "weight": one.weight, "sha256": files.sha256(Path(one.path))} for one in spec.adapters]
    same = {key: getattr(spec, key) for key in ("prompt", "seed", "prediction", "zero_snr", "flow_shift")}
    same |= ImageSettings.of(spec).model_dump()
    return grid(x=spec.across, y=spec.down, adapters=placed, base=base, version=__version__, **same)


def _write(path: Path, data: bytes) -> None:
    try:
        files.write(path, data)
    except OSError as error:
        raise files.refusal(error, tr("The image cannot be saved"), path.parent) from error


def _suited(base: Base, spec: ImageSpec, notices: Sequence[Warned]) -> tuple[ImageSpec, dict[str, Any]]:
    """``spec`` with the steps and guidance of a distilled base model where the defaults were left, and what is to be
    answered about the base model besides ``notices``.
    """
    notices = list(notices)
    if distilled := base.distilled:
        asked = PreviewSettings(preview_steps=spec.steps, guidance=spec.guidance)
        wanted = distilled.suited(asked)
        spec = spec.model_copy(update={"steps": wanted.preview_steps, "guidance": wanted.guidance})
        if notice := distilled.overruling(asked):
            notices.append(notice)
    said = tuple(in_sequence((notice.what, notice.do)) for notice in notices)
    return spec, {"base": base.loaded_event.sentence, "notices": said}


def _with_failure(base: Base, about: dict[str, Any]) -> dict[str, Any]:
    """``about``, with what drawing could not do as fast as it might."""
    from lora_studio.sampling import shortcuts

    warned = shortcuts.warning(base)
    return about if warned is None else {**about, "notices": (*about["notices"], in_sequence((warned.what, warned.do)))}


def _plain_words(spec: ImageSpec) -> list[Warned]:
    """What is to be said of the prompts, unless all of them is to be read as it is written."""
    from lora_studio.texts import prompts

    return prompts.unknown([spec.prompt, spec.negative]) if spec.prompt_weights else []


def main(outputs: str, source: BinaryIO, voice: BinaryIO) -> int:
    """Answers requests from ``source`` on ``voice`` until there is nothing more to do; returns the exit status."""
    inbox, speaking = Inbox(), threading.Lock()

    def say(answer: Answer) -> None:
        if inbox.closed and answer.kind == "dropped":
            return
        with speaking:
            voice.write(answer.model_dump_json().encode() + b"\n")
            voice.flush()

    def listen() -> None:
        for line in source:
            try:
                order = _LINE.validate_json(line)
            except ValidationError:
                traceback.print_exc()
                continue
            if dropped := inbox.put(order) if isinstance(order, ImageRequest) else inbox.cancel(order.cancel):
                say(Answer(id=dropped.id, kind="dropped"))
        inbox.close()

    began = turns.company(Path(outputs))

    def watch() -> None:
        while not inbox.closed:
            if turns.company(Path(outputs)) not in ("", began):
                inbox.close()
            time.sleep(LOOK)

    threading.Thread(target=listen, daemon=True).start()
    threading.Thread(target=watch, daemon=True).start()
    with libraries.importing():  # takes seconds, while the user still chooses the first image
        import lora_studio.sampling.grid  # noqa: F401

    drawer = Drawer(Path(outputs), Studio(say))
    while request := inbox.take(IDLE):
        drawer.answer(request, partial(inbox.superseded, request))
    return 0


def _own_voice() -> BinaryIO:
    """Standard output, for answers only: what libraries print goes to standard error."""
    voice = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return voice


if __name__ == "__main__":
    end_first()
    os._exit(main(sys.argv[1], sys.stdin.buffer, _own_voice()))  # at once: a thread still listens
