"""What of a model on the hub would be downloaded: of a captioner, a tagger or a segmenter the files that the studio
reads, of anything else what a base model needs.
"""

from __future__ import annotations

from lora_studio import hub
from lora_studio.errors import ModelError
from lora_studio.hub import Offer
from lora_studio.language import tr
from lora_studio.vision import catalogue
from lora_studio.vision.local import CONFIG, TAGS_FILE

_BESIDE = (".json", ".txt", ".jinja", ".model")
"""Endings of what a captioner's texts and pictures are prepared with."""
_DATA = ("_data", ".data")
"""Endings of the file that holds the weights of a large ONNX model."""


def look(name: str) -> Offer:
    """What the hub says of a model, by its name there or by its key in the catalogue.

    Raises:
        ModelError: the hub has no such model, wants a login for it, or it cannot be used here.
        MachineError: the hub cannot be reached.
    """
    offered = catalogue.named(name)
    return hub.look(offered.hub if offered else name, _either)


def _either(name: str, sizes: dict[str, int]) -> dict[str, int]:
    """A model that looks at pictures keeps its configuration or its graph at the top, a base model in parts."""
    looks = CONFIG in sizes or any(path.endswith(".onnx") for path in sizes)
    return wanted(name, sizes) if looks and "model_index.json" not in sizes else hub.base_model(name, sizes)


def wanted(name: str, sizes: dict[str, int]) -> dict[str, int]:
    """The files to fetch of a model that looks at pictures.

    Raises:
        ModelError: it has no safetensors and no ONNX file.
    """
    if TAGS_FILE in sizes:
        return {TAGS_FILE: sizes[TAGS_FILE], **_graph(name, sizes)}
    top = {path: size for path, size in sizes.items() if "/" not in path}
    if weights := hub.weights(top, "model"):
        beside = {
            path: size for path, size in top.items() if path.endswith(_BESIDE) and not path.endswith(".index.json")
        }
        return {**beside, **weights}
    return {**{path: size for path, size in top.items() if path.endswith(".json")}, **_graph(name, sizes)}


def _graph(name: str, sizes: dict[str, int]) -> dict[str, int]:
    """The ONNX file that ``local`` would take, with its weights."""
    graphs = [path for path in sizes if path.endswith(".onnx")]
    usual = [path for path in ("model.onnx", "onnx/model.onnx") if path in graphs]
    if not usual and len(graphs) != 1:
        raise ModelError(
            tr("{name} has several ONNX files.", name=name)
            if graphs
            else tr("{name} has no safetensors weights and no ONNX file.", name=name),
            where=name,
            do=tr("Download the one that you want in the browser, and give its path.")
            if graphs
            else tr("Choose a model that has them: pickled weights can run code."),
        )
    graph = (usual or graphs)[0]
    return {path: size for path, size in sizes.items() if path == graph or path in [graph + end for end in _DATA]}
