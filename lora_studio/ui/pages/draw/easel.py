"""Draws in the background: a tab that is closed or loaded again loses nothing, and each picture is kept once it is
there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from lora_studio import files
from lora_studio.errors import MachineError, StudioError
from lora_studio.jobs import turns
from lora_studio.jobs.image_spec import ImageSpec
from lora_studio.jobs.renderer import Answer, Renderer
from lora_studio.language import tr
from lora_studio.runs import gallery
from lora_studio.sampling import picture_file
from lora_studio.sampling.picture_recipe import PictureRecipe
from lora_studio.ui.pages.draw.order import DrawOrder

_PATIENCE = 1.0
"""Seconds that ``follow`` waits at most before it looks whether its reader is still there."""


@dataclass(frozen=True)
class DrawingProgress:
    """What is known of a lane's drawing.

    Attributes:
        version: changes with everything else.
        at_work: whether something is drawn.
        waiting: orders that are still to be drawn.
        total: pictures of the order that is drawn.
        shape: their width over their height.
        kept: the names of those that are drawn, in the gallery.
        together: how many are drawn at once now.
        step, steps: of these; 0 before their first step.
        rough: the file of the first of them as it forms, which is removed some time later; empty while there is none.
        doing: what is done before the first step, in words.
        answer: of the last pictures.
        cancelled: whether it was ended early.
        error: why nothing more is drawn.
    """

    version: int = 0
    at_work: bool = False
    waiting: int = 0
    total: int = 0
    shape: float = 1.0
    kept: tuple[str, ...] = ()
    together: int = 1
    step: int = 0
    steps: int = 0
    rough: str = ""
    doing: str = tr("Getting ready…")
    answer: Answer | None = None
    cancelled: bool = False
    error: StudioError | None = None

    @property
    def share(self) -> float:
        """Of the pictures' steps, how many were taken."""
        part = self.step / self.steps if self.steps else 0.0
        return (len(self.kept) + part * self.together) / self.total if self.total else 0.0


@dataclass
class _Lane:
    orders: deque[DrawOrder] = field(default_factory=deque)
    drawing: DrawingProgress = field(default_factory=DrawingProgress)


class Easel:
    """Draws the orders of each lane one after the other, in a thread of its own."""

    def __init__(self, outputs: Path, renderer: Renderer):
        self.outputs, self.renderer = outputs, renderer
        self._lanes: dict[str, _Lane] = {}
        self._changed = threading.Condition()
        self._hashing = ThreadPoolExecutor(1, "hashes")
        self._kept: dict[str, tuple[str, ...]] = {}
        """Key of a spec -> the names of its pictures in the gallery."""

    def begin(self, lane: str, order: DrawOrder) -> None:
        """Draws ``order``, after those of its lane that wait."""
        with self._changed:
            known = self._lanes.setdefault(lane, _Lane())
            known.orders.append(order)
            known.drawing = replace(known.drawing, version=known.drawing.version + 1, waiting=len(known.orders))
            if not known.drawing.at_work:
                known.drawing = DrawingProgress(known.drawing.version + 1, at_work=True, waiting=len(known.orders))
                threading.Thread(target=self._work, args=(lane,), daemon=True).start()
            self._changed.notify_all()

    def cancel(self, lane: str) -> None:
        """Ends what is drawn and what waits; what is drawn already stays."""
        with self._changed:
            known = self._lanes.get(lane)
            if known is None or not known.drawing.at_work:
                return
            known.orders.clear()
            self._tell(lane, cancelled=True, waiting=0)
        self.renderer.cancel(f"{lane} draw")

    def drawing(self, lane: str) -> DrawingProgress:
        """What is known now."""
        with self._changed:
            known = self._lanes.get(lane)
            return known.drawing if known else DrawingProgress()

    def follow(self, lane: str) -> Iterator[DrawingProgress | None]:
        """What is known, whenever it changes, until nothing is drawn any more; None where nothing changed for a
        while.
        """
        now = self.drawing(lane)
        yield now
        while now.at_work:
            with self._changed:
                self._changed.wait_for(lambda before=now: self._lanes[lane].drawing != before, _PATIENCE)
                after = self._lanes[lane].drawing
            yield after if after != now else None
            now = after

    def _tell(self, lane: str, **changes: object) -> None:
        with self._changed:
            known = self._lanes[lane]
            known.drawing = replace(known.drawing, version=known.drawing.version + 1, **changes)
            self._changed.notify_all()

    def _next(self, lane: str) -> DrawOrder | None:
        """The next order; None ends the work."""
        with self._changed:
            known = self._lanes[lane]
            if not known.orders:
                self._tell(lane, at_work=False, waiting=0, step=0, steps=0, rough="", doing="")
                return None
            order, version = known.orders.popleft(), known.drawing.version + 1
            spec = order.spec
            shape = spec.width / spec.height
            known.drawing = DrawingProgress(version, True, len(known.orders), spec.count, shape)
            self._changed.notify_all()
            return order

    def _work(self, lane: str) -> None:
        while order := self._next(lane):
            try:
                self._draw(lane, order)
            except StudioError as error:
                self._fail(lane, error)
            except OSError as error:
                self._fail(lane, files.refusal(error, tr("The picture cannot be kept"), self.outputs))
            except Exception as error:  # a thread that ends silently would leave the page waiting
                told = tr("Internal error: {name}: {error}", name=type(error).__name__, error=error)
                self._fail(lane, MachineError(told, do=tr("This is a bug in the studio; what was saved is intact.")))
                raise

    def _fail(self, lane: str, error: StudioError) -> None:
        with self._changed:
            self._lanes[lane].orders.clear()
            self._tell(lane, error=error, at_work=False, waiting=0, step=0, steps=0, rough="", doing="")

    def _draw(self, lane: str, order: DrawOrder) -> None:
        recipe = self._hashing.submit(order.recipe)  # a large model's hash takes seconds, while it is drawn
        for part in order.parts():
            if self.drawing(lane).cancelled:
                return
            doing = {"doing": tr("Drawing the sheet…")} if part.across else {}  # which is not shown as it forms
            self._tell(lane, together=part.count, **doing)
            for answer in self.renderer.draw(part, f"{lane} draw"):
                if self.drawing(lane).cancelled:  # before the process that draws had heard of it
                    self.renderer.cancel(f"{lane} draw")
                self._take(lane, part, answer, recipe)

    def _take(self, lane: str, spec: ImageSpec, answer: Answer, recipe: Future[PictureRecipe]) -> None:
        match answer.kind:
            case "waiting":
                self._tell(lane, doing=turns.told(self.outputs, tr("Waiting for a turn")))
            case "loading":
                plain, sheet = tr("Loading the base model"), tr("Loading the base model, then drawing the sheet")
                self._tell(lane, doing=turns.told(self.outputs, sheet if spec.across else plain))
            case "forming":
                self._tell(lane, doing="", step=answer.step, steps=answer.steps, rough=answer.path)
            case "drawn":
                kept = self._keep(spec, answer, recipe.result())
                before = self.drawing(lane).kept
                told = {"kept": before + kept, "answer": answer}
                self._tell(lane, doing="", step=0, steps=0, rough="", **told)
            case "dropped":
                self._tell(lane, cancelled=True)

    def _keep(self, spec: ImageSpec, answer: Answer, recipe: PictureRecipe) -> tuple[str, ...]:
        """Keeps the pictures in the gallery, unless they are there; returns their names."""
        known = self._kept.get(spec.key(), ())
        if known and all(gallery.find(name, self.outputs) for name in known):
            return known
        made = tuple(self._sheet(spec, answer) if spec.across else self._pictures(spec, answer, recipe))
        self._kept[spec.key()] = made
        return made

    def _sheet(self, spec: ImageSpec, answer: Answer) -> Iterator[str]:
        """A sheet has its recipe in it already."""
        shared = spec.prompt or "prompts"
        name = f"sheet-{picture_file.file_name(shared, spec.seed)}"
        yield gallery.keep(Path(answer.path).read_bytes(), name, self.outputs).name

    def _pictures(self, spec: ImageSpec, answer: Answer, recipe: PictureRecipe) -> Iterator[str]:
        for index, path in enumerate(answer.paths or (answer.path,)):
            own = recipe.model_copy(update={"seed": spec.seed + index, "steps": answer.steps or spec.steps})
            with Image.open(path) as image:
                content = picture_file.to_png(image, own)
            yield gallery.keep(content, picture_file.file_name(spec.prompt, own.seed), self.outputs).name
