"""Loads models of transformers from folders in the hub's layout. Weights are read from safetensors alone, code that a
model brings along is never run, and what goes wrong is a ModelError that names the folder.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError

from lora_studio.errors import ModelError
from lora_studio.language import tr
from lora_studio.vision import local

LOCAL = {"local_files_only": True, "trust_remote_code": False}
"""What ``from_pretrained`` is always given."""
_REFUSED = (
    OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError, AssertionError,
    SafetensorError,
)  # fmt: skip
"""What transformers raises for a model that is damaged or of an unknown kind."""


def config(folder: Path, role: str) -> dict[str, Any]:
    """What ``config.json`` in ``folder`` says.

    Args:
        role: what the model is wanted for, in the middle of a sentence.

    Raises:
        ModelError: it has no such file or no safetensors weights, or the file is damaged.
    """
    if not local.weights(folder):
        local.find(str(folder))  # says what is wrong with it
        raise ModelError(
            tr("{name} is no {role}.", name=folder.name, role=role),
            where=folder,
            do=tr("Choose a folder with config.json."),
        )
    try:
        return dict(json.loads((folder / local.CONFIG).read_text("utf-8")).items())
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise refused(folder, role, error) from error


def kind(folder: Path, role: str) -> str:
    """The model's type as its configuration names it.

    Raises:
        ModelError: it cannot be used, or transformers does not know that type.
    """
    found = config(folder, role)
    name = str(found.get("model_type", ""))
    if name not in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES:
        parts = {"name": folder.name, "kind": name or tr("unknown")}
        what = tr("{name} is of the kind {kind}, which transformers does not know.", **parts)
        if "auto_map" in found:
            what = tr(
                "{name} is of the kind {kind}, which transformers does not know and needs code of its own, which the "
                "studio never runs.",
                **parts,
            )
        raise ModelError(
            what,
            where=folder,
            do=tr("Choose another model, or the same one converted for transformers."),
        )
    return name


def model(auto: Any, folder: Path, role: str, **how: Any) -> Any:
    """The model in ``folder``, made by ``auto``, a class with ``from_pretrained``.

    Raises:
        ModelError: it is damaged or of another kind, or lacks weights.
    """
    load = auto.from_pretrained
    made, told = quietly(
        folder, role, lambda: load(folder, use_safetensors=True, output_loading_info=True, **LOCAL, **how)
    )
    if told["missing_keys"]:
        named = ", ".join(sorted(told["missing_keys"])[:3])
        raise ModelError(
            tr(
                "{name} lacks {missing} weights: {keys} ….",
                name=folder.name,
                missing=len(told["missing_keys"]),
                keys=named,
            ),
            where=folder,
            do=tr("Download the model again."),
        )
    return made


def quietly(folder: Path, role: str, load: Callable[[], Any]) -> Any:
    """What ``load`` returns; its errors are ModelErrors, and what transformers has to say stays unsaid."""
    told = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return load()
    except _REFUSED as error:
        raise refused(folder, role, error) from error
    finally:
        transformers.logging.set_verbosity(told)


def refused(folder: Path, role: str, error: Exception) -> ModelError:
    """What is to be said of a model that transformers refuses: that a package is missing, or its reason."""
    if isinstance(error, ImportError) and (package := _package(error)):
        return ModelError(
            tr("{name} needs the package {package}, which is not installed.", name=folder.name, package=package),
            where=folder,
            do=tr(
                "Install it in the studio's environment, then start the studio again: {command}. Or choose another "
                "model.",
                command=f"{sys.executable} -m pip install {package}",
            ),
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(
        tr("{name} cannot be loaded as a {role}: {reason}", name=folder.name, role=role, reason=reason),
        where=folder,
        do=tr("Download the model again, or choose another one."),
    )


def _package(error: ImportError) -> str:
    """The package that is missing, as ``pip`` calls it; "" if that is not told, or if the studio never uses it."""
    found = re.search(r"pip install ([\w.-]*\w)|requires the ([\w.-]+) library", str(error))
    named = next(filter(None, found.groups())).lower() if found else ""
    package = (error.name or named).partition(".")[0]
    return "" if package == "kernels" else package  # it fetches code: see lora_studio/__init__.py
