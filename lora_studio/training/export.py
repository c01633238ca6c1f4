"""The trained adapter as a file: kohya's layout, which ComfyUI, Forge and A1111 load, with the run's recipe in its header."""

from __future__ import annotations

from pathlib import Path

from lora_studio import adapters
from lora_studio.errors import AdapterError
from lora_studio.training.session import Session


def write(session: Session, path: Path) -> None:
    """Writes the adapter as of now to ``path`` and reads it back.

    Raises:
        AdapterError: the file does not hold what was trained.
        OSError: the disk refuses; no half-written file is left.
    """
    adapter = session.adapter()
    adapters.write(adapter, path, dialect="kohya", metadata=metadata(session))
    again = adapters.read(path)
    if set(again.factors) != set(adapter.factors):
        raise AdapterError(f"The file holds {len(again.factors)} of {len(adapter.factors)} modules after writing.", where=path, do="Check the disk and export again.")
