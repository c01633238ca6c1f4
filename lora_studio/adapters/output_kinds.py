"""The kinds of output changes, and how they are found in a file."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lora_studio.adapters.bottleneck import Bottleneck
from lora_studio.adapters.ia3 import Ia3Change
from lora_studio.adapters.oft import OftChange
from lora_studio.adapters.output_change import OutputChange
from lora_studio.adapters.prefix import Prefix
from lora_studio.errors import AdapterError
from lora_studio.language import declared, tr

CLASSES: list[type[OutputChange]] = [Bottleneck, Ia3Change, OftChange, Prefix]
"""A row each. Another one may be added while the studio runs."""
Modules = Mapping[str, Mapping[str, Tensor]]


def parted(modules: Modules) -> tuple[dict[str, Mapping[str, Tensor]], dict[str, OutputChange]]:
    """A file's tensors by path and role, as those that are factors, and the output changes.

    Raises:
        AdapterError: an output change is incomplete, or a module has one and more.
    """
    factors: dict[str, Mapping[str, Tensor]] = {}
    outputs: dict[str, OutputChange] = {}
    for path, module in modules.items():
        owner = next((one for one in CLASSES if one.kind.roles & module.keys()), None)
        if owner is None:
            factors[path] = module
        else:
            outputs[path] = _read(owner, module, path)
    return factors, outputs


def _read(owner: type[OutputChange], module: Mapping[str, Tensor], path: str) -> OutputChange:
    title, do = declared(owner.kind.title), tr("The file is damaged or incomplete: get it again.")
    if more := module.keys() - owner.kind.roles - {"alpha"}:
        raise AdapterError(
            tr(
                "{path} has {a_title} and {other} as well.",
                path=path,
                a_title=owner.kind.a_title,
                other=sorted(more)[0],
            ),
            where=path,
            do=do,
        )
    try:
        return owner.read(module)
    except KeyError as missing:
        raise AdapterError(
            tr("The {title} of {path} lacks its part {part!r}.", title=title, path=path, part=missing.args[0]),
            where=path,
            do=do,
        ) from None
    except (ValueError, RuntimeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise AdapterError(
            tr("The {title} of {path} does not fit together: {reason}.", title=title, path=path, reason=reason),
            where=path,
            do=do,
        ) from None
