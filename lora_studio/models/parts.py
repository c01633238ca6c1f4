"""The parts of a model, empty: from a configuration to modules without weights."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import nn
from transformers.initialization import no_init_weights

from lora_studio.errors import ModelError
from lora_studio.families.family import Family, part_title
from lora_studio.language import tr

AGAIN = tr("Download it again, or choose another base model.")


def build(family: Family, part: str, config: dict[str, Any], where: Path) -> nn.Module:
    """The part of a model of ``family`` that ``config`` describes; its weights take no memory yet.

    Raises:
        ModelError: the configuration makes no sense.
    """
    module, _, name = family.classes[part].rpartition(".")
    made: Any = getattr(importlib.import_module(module), name)
    try:
        with init_empty_weights(), no_init_weights():
            return (
                made.from_config(config) if hasattr(made, "from_config") else made(made.config_class.from_dict(config))
            )
    except Exception as error:  # the libraries raise nearly every kind
        raise ModelError(
            tr("The configuration of {part} cannot be used: {error}.", part=part_title(part), error=error),
            where=where,
            do=AGAIN,
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The table in a JSON file.

    Raises:
        ModelError: it is missing, or holds no table.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ModelError(
            tr(
                "{name} lacks {file}.",
                name=path.parent.parent.name,
                file=f"{path.parent.name}/{path.name}",
            ),
            where=path,
            do=AGAIN,
        ) from None
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise ModelError(tr("{name} is damaged: it is not a JSON table.", name=path.name), where=path, do=AGAIN)
    return table
