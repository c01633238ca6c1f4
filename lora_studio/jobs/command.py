"""One command of the studio in a process of its own: work on tensors for a page that never loads torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from lora_studio.errors import MachineError, StudioError
from lora_studio.jobs import child

LONGEST = 900.0
"""Seconds after which a command is ended."""


def run(command: str, *arguments: object, timeout: float = LONGEST) -> dict[str, Any]:
    """Runs ``python -m lora_studio COMMAND … --json``, with no shell between, and gives the object that it ends with.

    Args:
        arguments: each one argument of the process, as text. A name that begins with a dash is an option to the command: give whole paths.

    Raises:
        StudioError: what the command itself told of its mistake, with its ``details``.
        MachineError: it took longer than ``timeout`` seconds (it is ended then), or ended without a word.
    """
    line = [sys.executable, "-m", "lora_studio", command, *map(str, arguments), "--json"]
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "encoding": "utf-8", "errors": "replace"}
    try:
        done = subprocess.run(line, timeout=timeout, env=child.environment(), check=False, **how)
    except subprocess.TimeoutExpired as error:
        what = f"It took longer than {timeout:g} seconds and was ended."
        raise MachineError(what, where=command, do="Try it when the machine has less to do; nothing was changed.") from error
    except OSError as error:
        raise MachineError(f"It could not be started: {error.strerror or error}.", where=command, do="Close other programs, then try again.") from error
    return result(command, done.stdout, done.stderr)


def result(command: str, out: str, err: str = "") -> dict[str, Any]:
    """The object in the last line of ``out``; where there is none, ``err`` goes to the studio's own window.

    Raises:
        StudioError, MachineError: as ``run`` does.
    """
    try:
        found = json.loads(out.rstrip().rpartition("\n")[2])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        print(err, file=sys.stderr, flush=True)
        advice = "The machine may have run out of memory: close other programs and try again. The studio's window shows what else was said."
        raise MachineError("It ended before it had a result.", where=command, do=advice)
    if isinstance(told := found.get("error"), dict):
        raise StudioError(str(told.get("what", "")), where=told.get("where", ""), do=str(told.get("do", "")), details=told.get("details"))
    return found
