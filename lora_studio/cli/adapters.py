"""What the commands on adapter files share: their arguments, where results go, and the proof of what was saved. Only
the functions that need torch import it.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_studio import starter
from lora_studio.adapters import container
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.language import tr

if TYPE_CHECKING:
    import torch

    from lora_studio.adapters import Adapter
    from lora_studio.adapters.proof import Export

_SUFFIX = ".safetensors"
WEB_UIS = ("comfyui", "forge")
"""Programs that a blend or a resized adapter is proved for; ``convert`` can prove for others too."""


class Number(StrEnum):
    """Number formats of a file's weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


Source = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="An adapter: a .safetensors file, or a folder that peft wrote.", show_default=False
    ),
]
Saved = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="FILE", help="Where to save it. Without it nothing is saved, only reported."),
]
DType = Annotated[Number | None, typer.Option(help="Number format of the weights.", show_default="unchanged")]


def torch_dtype(number: Number | None) -> torch.dtype | None:
    """The torch dtype of ``number``."""
    import torch

    return {Number.FP32: torch.float32, Number.FP16: torch.float16, Number.BF16: torch.bfloat16, None: None}[number]


def existing(path: Path) -> Path:
    """``path`` made absolute.

    Raises:
        AdapterError: there is no such file, or it is a pickle.
    """
    path = path.expanduser()
    if not path.exists():
        what = tr("There is no adapter {path}.", path=path)
        raise AdapterError(what, where="FILE", do=tr("Give the path of a .safetensors file."))
    container.refuse_pickle_name(path)
    return path.resolve()


def destination(out: Path, folder: bool = False) -> Path:
    """Where a result goes, as an absolute path; a file gets the ending .safetensors.

    Raises:
        SettingsError: it exists already.
    """
    path = out.expanduser()
    if not folder and path.suffix.lower() != _SUFFIX:
        path = path.with_name(path.name + _SUFFIX)
    if path.exists():
        raise SettingsError(
            f"{path} exists already.", where="-o", do="Choose another name: no command overwrites a file."
        )
    return path.resolve()


def base_path(base: str) -> Path:
    """The base model's folder or file; ``starter`` is the built-in one.

    Raises:
        ModelError: it does not exist.
    """
    path = Path(base).expanduser()
    if base == "starter":
        return starter.MODEL
    if path.exists():
        return path.resolve()
    from lora_studio.models.load import locate

    return locate(base)[0]


def save(adapter: Adapter, path: Path, number: Number | None) -> Export:
    """Writes ``adapter`` as the file that web UIs load. Before it gets its name it is read back as they read it.

    Raises:
        AdapterError: one of them would not read it unchanged, or a value does not fit the number format.
    """
    from lora_studio.adapters import proof

    return proof.export(adapter, path, "kohya", dtype=torch_dtype(number), targets=WEB_UIS)


def bytes_of(adapter: Adapter, number: Number | None) -> int:
    """Size of the file that ``save`` would make."""
    from lora_studio.adapters import formats

    return formats.size(adapter, torch_dtype(number))


def megabytes(size: int) -> str:
    """``3.1 MB``, or ``12.5 kB`` for small files."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def percent(share: float) -> str:
    """``99.1 %``, with more digits for a share near 1."""
    return f"{100 * share:.{1 if share < 0.999 else 4}f} %"
