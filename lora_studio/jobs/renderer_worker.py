"""The process that draws images on request: ``python -m lora_studio.jobs.renderer_worker OUTPUTS``. See ``renderer``
for its requests and answers.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import ValidationError

from lora_studio import __version__, files
from lora_studio.config.settings import Settings
from lora_studio.config.slices import PreviewSettings
from lora_studio.config.specs import OF_BASE
from lora_studio.dataset.items import Bucket
from lora_studio.errors import AdapterError, StudioError
from lora_studio.events import Warned
from lora_studio.jobs import captioning, runner
from lora_studio.jobs.inbox import Inbox
from lora_studio.jobs.renderer import Answer, Blending, ImageRequest, ImageSpec, Placed, RoundTrip

if TYPE_CHECKING:
    from PIL import Image

    from lora_studio.adapters import Adapter
    from lora_studio.models import Base
    from lora_studio.sampling.round_trip import VaeRoundTrip

IDLE = 300.0
"""Seconds without a request after which it ends and frees the memory."""
LOOK = 1.0
"""Seconds between two looks for a run or a captioning job at work."""
KEPT = 12
"""Adapters in memory."""
_ONE_FOR_ALL = ("negative", "prompt_weights", "guidance_rescale", "sampler", "width", "height")
"""What a sheet's images have in common."""
_LOADED = tuple(key for key in OF_BASE if key != "clip_skip")
"""What decides which base model is in memory; another clip skip needs no other one."""
_Wanted = tuple[Any, ...]


class Studio:
    """The base model and the adapters in memory, and which adapters are on the model."""

    def __init__(self) -> None:
        self._base: tuple[_Wanted, Base] | None = None
        self._vae: tuple[tuple[Any, ...], VaeRoundTrip] | None = None
        self._sums: dict[_Wanted, dict[str, Any]] = {}
        self._adapters: OrderedDict[tuple, Adapter] = OrderedDict()
        self._loaded: tuple[Any, dict[str, Any]] = None, {}
        """Which adapters are on the model, and what was answered about them; they stay while only weights change."""

    def draw(self, request: ImageRequest, cancelled: Callable[[], bool]) -> Iterator[Answer]:
        """Draws the image of ``request``, the rough one first if it asks for that. Answers "loading" before it has to
        load the base model.

        Raises:
            StudioError: the base model or an adapter cannot be loaded, they do not fit each other, or a setting is out
                of its bounds.
        """
        spec, to = request.spec, Path(request.to)
        if isinstance(spec, RoundTrip):
            yield from self._round_trip(request, spec)
            return
        if self._base is None or self._base[0] != _wanted(spec):
            yield Answer(id=request.id, kind="loading", last=False)
        base = self.base(spec)
        spec, about = _suited(base, spec, base.notices + self._read_as_trained(base, spec) + _plain_words(spec))
        began = time.monotonic()
        if spec.across:
            data = self._sheet(spec, cancelled)
            yield self._answer(request, to, data, spec.steps, began, **about)
            return
        told = about | self._load(spec)
        rough = spec.first if 0 < spec.first < spec.steps else 0
        if rough:
            data = self._picture(spec, rough, cancelled)
            yield self._answer(request, to.with_stem(f"{to.stem}-first"), data, rough, began, last=data is None)
            if data is None:
                return
        yield self._answer(request, to, self._picture(spec, spec.steps, cancelled), spec.steps, began, **told)

    def _round_trip(self, request: ImageRequest, spec: RoundTrip) -> Iterator[Answer]:
        from lora_studio.sampling.round_trip import VaeRoundTrip
        from lora_studio.training import devices

        wanted = spec.base, spec.vae, spec.text_encoders
        if self._vae is None or self._vae[0] != wanted:
            yield Answer(id=request.id, kind="loading", last=False)
            self._vae = None
            device = devices.choose(Settings().machine).device
            self._vae = wanted, VaeRoundTrip(spec.base, device, spec.vae, spec.text_encoders)
        began = time.monotonic()
        seen = self._vae[1].seen(spec.as_picture, Bucket(*spec.bucket))
        yield self._answer(request, Path(request.to), _png(seen), 0, began)

    @staticmethod
    def _answer(
        request: ImageRequest, to: Path, data: bytes | None, steps: int, began: float, last: bool = True, **told: Any
    ) -> Answer:
        """Saves the image and makes the answer; None means that it was cancelled."""
        if data is None:
            return Answer(id=request.id, kind="dropped")
        try:
            files.write(to, data)
        except OSError as error:
            raise files.refusal(error, "The image cannot be saved", to.parent) from error
        return Answer(
            id=request.id,
            kind="drawn",
            path=str(to),
            steps=steps,
            seconds=round(time.monotonic() - began, 3),
            last=last,
            **told,
        )

    def _picture(self, spec: ImageSpec, steps: int, cancelled: Callable[[], bool]) -> bytes | None:
        from lora_studio.sampling.generate import generate

        drawn = generate(
            self.base(spec),
            [spec.prompt],
            [spec.seed],
            guidance=spec.guidance,
            steps=steps,
            cancelled=cancelled,
            **{key: getattr(spec, key) for key in _ONE_FOR_ALL},
        )
        return _png(drawn[0]) if drawn else None

    def _sheet(self, spec: ImageSpec, cancelled: Callable[[], bool]) -> bytes | None:
        """The sheet with its recipe; weights that it does not vary are those of the spec."""
        from lora_studio.sampling.axes import Axis
        from lora_studio.sampling.grid import render
        from lora_studio.sampling.recipe import grid, to_png

        base, adapters = self.base(spec), [self._adapter(one) for one in spec.adapters]
        sides = [
            Axis("weight", side.weights, spec.adapters[side.adapter].name) for side in (spec.across, spec.down) if side
        ]
        same = {
            key: getattr(spec, key)
            for key in (*_ONE_FOR_ALL, "prompt", "seed", "guidance", "steps", "prediction", "zero_snr", "flow_shift")
        }
        placed = [
            {"name": one.name, "weight": one.weight, "sha256": files.sha256(Path(one.path))} for one in spec.adapters
        ]
        recipe = grid(
            x=sides[0], y=sides[1] if spec.down else None, adapters=placed, base=base.name, version=__version__, **same
        )
        how = {key: getattr(spec, key) for key in _ONE_FOR_ALL}
        self._loaded = None, {}  # the sheet's own adapters replace them
        pictures = render(base, adapters, [cell for row in recipe.cells for cell in row], cancelled=cancelled, **how)
        if not pictures:
            return None
        if (wanted := _wanted(spec)) not in self._sums:
            self._sums[wanted] = {"base_sha256": base.sha256(), "parts": base.given_sha256()}
        return to_png(recipe.model_copy(update={**self._sums[wanted], "clip_skip": base.clip_skip}), pictures)

    def _load(self, spec: ImageSpec) -> dict[str, Any]:
        """Puts the adapters on the base model; returns what is to be answered about a blend."""
        from lora_studio.models import inject

        base = self.base(spec)
        wanted = (
            spec.blending,
            [(_state(one.path), one.blocks, spec.blending and one.weight) for one in spec.adapters],
        )
        if wanted != self._loaded[0]:
            self._loaded, told = (None, {}), {}
            if spec.blending:
                adapter, told = self._blended(spec, spec.blending)
                inject.load_adapters(base, [(adapter, 1.0)])
            else:
                inject.load_adapters(base, [(self._adapter(one), one.weight) for one in spec.adapters])
            self._loaded = wanted, told
        elif not spec.blending:
            inject.set_weights(base, [one.weight for one in spec.adapters])
        return self._loaded[1]

    def _read_as_trained(self, base: Base, spec: ImageSpec) -> list[Warned]:
        """Gives the base model the clip skip that is wanted, or that of the adapters; returns what is to be said."""
        from lora_studio.models import clip_skip

        return clip_skip.settle(base, spec.clip_skip, [(one.name, self._read(one.path)) for one in spec.adapters])

    def _blended(self, spec: ImageSpec, how: Blending) -> tuple[Adapter, dict[str, Any]]:
        from lora_studio.adapters import blend, formats, recipe

        adapters = [self._read(one.path) for one in spec.adapters]
        ingredients = [
            blend.ingredient(one.name, one.weight, adapter, one.blocks)
            for one, adapter in zip(spec.adapters, adapters, strict=True)
        ]
        chosen = recipe.blend(method=how.method, ingredients=ingredients, rank=how.rank, **how.parameters)
        made = blend.blend(chosen, adapters)
        dtype = next(iter(adapters[0].factors.values())).down.dtype
        return made.adapter, {
            "rank": made.adapter.rank,
            "size": formats.size(made.adapter, dtype),
            "residual": made.residual,
        }

    def base(self, spec: ImageSpec) -> Base:
        """The base model; it is loaded only where another one was in memory, or one with other parts or another
        noise process.
        """
        wanted = _wanted(spec)
        if self._base is None or self._base[0] != wanted:
            import torch

            from lora_studio import models
            from lora_studio.training import devices, threads

            self._base, self._loaded = None, (None, {})  # first free the old one: two may not fit
            machine = devices.choose(Settings().machine)
            how = {key: getattr(spec, key) for key in _LOADED}
            loaded = models.load(how.pop("base"), machine.device, machine.dtype, **how)
            if machine.device.type == "cpu":
                threads.fastest(lambda: _probe(loaded), torch.get_num_threads())
            self._base = wanted, loaded
        return self._base[1]

    def _adapter(self, placed: Placed) -> Adapter:
        """The adapter as it is drawn: each block's update multiplied by its factor."""
        from lora_studio.adapters import keys

        adapter, blocks = (
            self._read(placed.path),
            {block: factor for block, factor in placed.blocks.items() if factor != 1},
        )
        if not blocks:
            return adapter
        if adapter.kind.needs_base:
            raise AdapterError(
                f"{placed.name} is a DoRA, whose blocks cannot be weighted separately.", do="Set its blocks back to 1."
            )
        weighted = {
            path: replace(one, alpha=one.alpha * keys.block_factor(blocks, path))
            for path, one in adapter.factors.items()
        }
        return replace(adapter, factors=weighted)

    def _read(self, path: str) -> Adapter:
        from lora_studio import adapters

        key = _state(path)
        if key not in self._adapters:
            self._adapters[key] = adapters.read(Path(path))
        self._adapters.move_to_end(key)
        while len(self._adapters) > KEPT:
            self._adapters.popitem(last=False)
        return self._adapters[key]


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
    said = tuple(f"{notice.what} {notice.do}" for notice in notices)
    return spec, {"base": base.loaded_event.sentence, "notices": said}


def _plain_words(spec: ImageSpec) -> list[Warned]:
    """What is to be said of the prompts, unless all of them is to be read as it is written."""
    from lora_studio.texts import prompts

    return prompts.unknown([spec.prompt, spec.negative]) if spec.prompt_weights else []


def _wanted(spec: ImageSpec) -> _Wanted:
    """What tells whether the base model in memory is the one of ``spec``."""
    return tuple(getattr(spec, key) for key in _LOADED)


def _state(path: str) -> tuple:
    """A file's path, time of change and size: an adapter that has changed is read again."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise AdapterError(
            f"{Path(path).name} is gone.", where=path, do="Remove it from the mix, or put the file back."
        ) from error
    return path, stat.st_mtime_ns, stat.st_size


def _probe(base: Base) -> None:
    """About one denoising step, to be timed."""
    import torch

    side = base.resolution // base.scale
    with torch.no_grad():
        base.predict(
            torch.zeros(2, base.channels, side, side),
            base.process.evenly(2),
            base.encode_text(["", ""]),
        )


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def answers(studio: Studio, request: ImageRequest, cancelled: Callable[[], bool]) -> Iterator[Answer]:
    """What ``studio`` draws, or what is wrong: no error ends the process."""
    from lora_studio.training import exceptions

    try:
        if cancelled():
            yield Answer(id=request.id, kind="dropped")
        else:
            yield from studio.draw(request, cancelled)
    except Exception as error:
        told = exceptions.translated(error, exceptions.while_drawing())
        if told is None:
            traceback.print_exc()
            told = StudioError(
                f"Internal error: {type(error).__name__}: {error}",
                where="renderer.log",
                do="This is a bug in the studio; what was saved is intact.",
            )
        yield _wrong(request, told)


def _wrong(request: ImageRequest, error: StudioError) -> Answer:
    return Answer(id=request.id, kind="wrong", what=error.what, where=error.where, do=error.do)


def main(outputs: str, source: BinaryIO, voice: BinaryIO) -> int:
    """Answers requests from ``source`` on ``voice`` until there is nothing more to do; returns the exit status."""
    inbox, studio, speaking = Inbox(), Studio(), threading.Lock()

    def say(answer: Answer) -> None:
        with speaking:
            voice.write(answer.model_dump_json().encode() + b"\n")
            voice.flush()

    def listen() -> None:
        for line in source:
            try:
                dropped = inbox.put(ImageRequest.model_validate_json(line))
            except ValidationError:
                traceback.print_exc()
                continue
            if dropped:
                say(Answer(id=dropped.id, kind="dropped"))
        inbox.close()

    def watch() -> None:
        while not inbox.closed:
            if runner.active(Path(outputs)) or captioning.at_work(Path(outputs)):
                inbox.close()
            time.sleep(LOOK)

    threading.Thread(target=listen, daemon=True).start()
    threading.Thread(target=watch, daemon=True).start()
    import lora_studio.sampling.grid  # noqa: F401 - torch takes seconds, while the user still chooses the first image

    while request := inbox.take(IDLE):
        for answer in answers(studio, request, lambda: inbox.superseded(request)):
            if not (inbox.closed and answer.kind == "dropped"):
                say(answer)
    return 0


def _own_voice() -> BinaryIO:
    """Standard output, for answers only: what libraries print goes to standard error."""
    voice = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return voice


if __name__ == "__main__":
    os._exit(main(sys.argv[1], sys.stdin.buffer, _own_voice()))  # at once: a thread still listens
