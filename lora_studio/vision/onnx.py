"""Running a model in ONNX format, on the graphics card where the installed onnxruntime can use it, else on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_studio.errors import MachineError, ModelError
from lora_studio.language import tr

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_ERRORS_ONLY = 3


class Graph:
    """One ONNX file in memory, with one input.

    Attributes:
        shape: of the input; 0 for an axis of any length.
        device: what it runs on, for people.
    """

    def __init__(self, path: Path):
        """Loads the file. One whose weights lie in a file beside it needs that too.

        Raises:
            ModelError: it is damaged, or no model of pictures.
            MachineError: onnxruntime is not installed.
        """
        self.path, self._session = path, _session(path)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ModelError(
                tr(
                    "{name} does not take one picture: its inputs are {inputs}.",
                    name=path.name,
                    inputs=", ".join(f"{one.name} {one.shape}" for one in inputs),
                ),
                where=path,
                do=tr("Choose a tagger of the WD14 kind or a segmenter of the U²-Net kind."),
            )
        self._input = inputs[0].name
        self.shape = tuple(side if isinstance(side, int) else 0 for side in inputs[0].shape)
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        self.device = tr("{provider}, by onnxruntime", provider=provider)

    def run(self, pictures: np.ndarray) -> Sequence[np.ndarray]:
        """All outputs for ``pictures``, float32 of the input's shape.

        Raises:
            ModelError: the model fails on them.
        """
        try:
            return [np.asarray(one) for one in self._session.run(None, {self._input: pictures})]
        except Exception as error:  # onnxruntime's errors share no base class but Exception
            raise ModelError(
                tr("{name} failed on a picture: {reason}", name=self.path.name, reason=_first_line(error)),
                where=self.path,
                do=tr("Choose another one."),
            ) from error


def _session(path: Path) -> InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise MachineError(
            tr("onnxruntime cannot be used here: {error}.", error=error),
            where="onnxruntime",
            do=tr(
                "Install it with: {command}. Captioners such as Florence-2 work without it.",
                command="python3 -m pip install onnxruntime",
            ),
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    there = onnxruntime.get_available_providers()
    try:
        return onnxruntime.InferenceSession(path, options, providers=[one for one in _PROVIDERS if one in there])
    except Exception as error:  # as in Graph.run
        raise ModelError(
            tr("{name} cannot be loaded: {reason}", name=path.name, reason=_first_line(error)),
            where=path,
            do=tr("Download it again; a model in several files needs all of them."),
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
