"""Shows images while they form. On the side of the process that draws; torch is loaded by then."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lora_studio import files
from lora_studio.jobs.image_spec import ImageSpec
from lora_studio.jobs.renderer import Answer, ImageRequest

if TYPE_CHECKING:
    from PIL import Image

    from lora_studio.models import Base
    from lora_studio.sampling.denoise import StepTaken

EVERY = 0.3
"""Seconds between two looks at an image that forms."""


class Forming:
    """Shows the images of a request as they form: after the step ``spec.first`` all of the first batch, decoded; and
    where ``spec.forming`` asks for it the first one again and again, in small rough files that its end removes.

    Args:
        show: saves images that are not final, and says so.
        say: takes the answers about small rough files.
    """

    def __init__(
        self,
        request: ImageRequest,
        spec: ImageSpec,
        base: Base,
        show: Callable[[list[bytes]], object],
        say: Callable[[Answer], None],
    ):
        self._request, self._spec, self._base, self._show, self._say = request, spec, base, show, say
        self._small: list[Path] = []
        self._awaited = 0 < spec.first < spec.steps
        """Whether the step ``spec.first`` is still to come."""
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._small:
            path.unlink(missing_ok=True)

    def seen(self, step: StepTaken) -> None:
        """A step was taken: shows what came of it, unless the last look was just before, or the image is done."""
        from lora_studio.sampling.forming import rough
        from lora_studio.sampling.generate import decoded

        if self._awaited and step.number == self._spec.first:
            self._awaited = False
            self._show([png(image, quick=True) for image in decoded(self._base, step.clean())])
        elif self._spec.forming and step.number < step.count and time.monotonic() - self._last >= EVERY:
            self._show_small(step, png(rough(self._base, step.clean()[:1])[0], quick=True))
            self._last = time.monotonic()

    def _show_small(self, step: StepTaken, data: bytes) -> None:
        first = Path(self._request.to)
        path = first.with_stem(f"{first.stem}-forming-{len(self._small) + 1}")
        files.write(path, data)
        self._small.append(path)
        taken = Answer(id=self._request.id, kind="forming", last=False, step=step.number, steps=step.count)
        self._say(taken.model_copy(update={"path": str(path)}))


def png(image: Image.Image, quick: bool = False) -> bytes:
    """``image`` as a file; a ``quick`` one is larger and takes less time."""
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1 if quick else 6)
    return data.getvalue()
