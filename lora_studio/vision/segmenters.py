"""Segmenters of the U²-Net kind (Qin et al. 2020, https://github.com/xuebinqin/U-2-Net): what stands out in a picture,
or its people, as a mask.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lora_studio.errors import ModelError
from lora_studio.language import tr
from lora_studio.vision.onnx import Graph

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
"""Of ImageNet's pictures, with which the models were trained."""
_SIDE = 320
"""Pixels, where the model takes any size."""


class U2Net:
    """A segmenter in memory: a ``curation.masks.Segmenter``."""

    def __init__(self, path: Path):
        """Loads the ``.onnx`` file at ``path``.

        Raises:
            ModelError: it is damaged, or no segmenter of this kind.
            MachineError: onnxruntime is not installed.
        """
        self._graph = Graph(path)
        _, channels, height, width = self._graph.shape
        if channels not in (3, 0):
            raise ModelError(
                tr(
                    "{name} is no segmenter of the U²-Net kind: it takes {shape}, not three channels first.",
                    name=path.name,
                    shape=str(self._graph.shape),
                ),
                where=path,
                do=tr("Choose one of the U²-Net family, such as u2net.onnx or u2netp.onnx."),
            )
        self._size = width or _SIDE, height or _SIDE

    def mask(self, picture: Image.Image) -> Image.Image:
        """A mask of the picture's size in mode L: white is what was found, grey its soft edges, black the rest. The
        strongest place is always white: a model of this kind says where something is rather than whether.

        Raises:
            ModelError: the model's output is no map.
        """
        found = self._graph.run(prepare(picture, self._size)[None])[0]
        if found.ndim < 2 or not np.isfinite(found).all():
            raise ModelError(
                tr("{name} gives no map of the picture.", name=self._graph.path.name),
                where=self._graph.path,
                do=tr("Choose one of the U²-Net family, such as u2net.onnx or u2netp.onnx."),
            )
        plane = found.reshape(-1, *found.shape[-2:])[0]
        low, high = float(plane.min()), float(plane.max())
        levels = np.zeros_like(plane) if high == low else (plane - low) / (high - low)
        mask = Image.fromarray(np.rint(255 * levels).astype(np.uint8), "L")
        return mask.resize(picture.size, Image.Resampling.LANCZOS)


def prepare(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The picture as the models were trained on it: stretched to ``size`` (width, height), divided by its brightest
    value, then normalized; float32 of shape (3, height, width).
    """
    pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), np.float32)
    return ((pixels / max(float(pixels.max()), 1.0) - _MEAN) / _DEVIATION).transpose(2, 0, 1)
