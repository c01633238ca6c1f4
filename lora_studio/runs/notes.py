"""Small JSON files in which a run or a job notes something: its parent, its place in the queue, its worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lora_studio import files


def read(path: Path) -> Any:
    """What the file says; None if it is missing, damaged or cannot be read. Others may replace it meanwhile."""
    try:
        return json.loads(files.patiently(lambda: path.read_text("utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def write(path: Path, content: Any) -> None:
    """Replaces the file at once, so that nobody reads half of it. Raises OSError where the disk refuses."""
    files.write(path, json.dumps(content))
