"""One command of the studio in a process of its own: work on tensors for a page that never loads torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from lora_studio import files
from lora_studio.errors import MachineError, StudioError
from lora_studio.jobs import environment
from lora_studio.language import handover, tr

LONGEST = 900.0
"""Seconds after which a command is ended."""


def run(command: str, *arguments: object, timeout: float = LONGEST, online: bool = False) -> dict[str, Any]:
    """Runs ``python -m lora_studio COMMAND … --json``, without a shell, and returns the object on its last line.

    Args:
        arguments: each becomes one argument of the process. A name that begins with a dash would be read as an option:
            give whole paths.
        online: it may use the network.

    Raises:
        StudioError: the command's own error, with its ``details``.
        MachineError: it took longer than ``timeout`` seconds and was ended, or it ended without a result.
    """
    try:
        done = subprocess.run(
            _line(command, arguments), timeout=timeout, capture_output=True, check=False, **_how(online)
        )
    except subprocess.TimeoutExpired as error:
        what = tr("The command took longer than {timeout:g} seconds and was ended.", timeout=timeout)
        raise MachineError(
            what, where=command, do=tr("Try it when the machine has less to do; nothing was changed.")
        ) from error
    except OSError as error:
        raise _refused(command, error) from error
    return result(command, done.stdout, done.stderr)


def result(command: str, out: str, err: str = "") -> dict[str, Any]:
    """The object on the last line of ``out``; where there is none, ``err`` goes to the studio's terminal.

    Raises:
        StudioError, MachineError: as ``run`` does.
    """
    found = _object(out.rstrip().rpartition("\n")[2])
    if found is None:
        raise _vanished(command, err)
    return _checked(found)


def _checked(found: dict[str, Any]) -> dict[str, Any]:
    """A result with its messages, unless it is an error."""
    found = handover.taken(found)
    if isinstance(told := found.get("error"), dict):
        raise StudioError(
            told.get("what", ""), where=told.get("where", ""), do=told.get("do", ""), details=told.get("details")
        )
    return found


class CommandProcess:
    """A running command: gives the objects that it prints as they come, and can be ended early."""

    def __init__(self, command: str, *arguments: object, online: bool = False):
        """Starts it. ``arguments`` and ``online`` as in ``run``.

        Raises:
            MachineError: no process can be started.
        """
        self.command, self._ended = command, False
        self._errors = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                _line(command, arguments), stdout=subprocess.PIPE, stderr=self._errors, **_how(online)
            )
        except OSError as error:
            raise _refused(command, error) from error

    def objects(self) -> Iterator[dict[str, Any]]:
        """Each object as it comes, the result last; events as they stand in a log. After ``end`` there are no more.

        Raises:
            StudioError, MachineError: as ``run`` does.
        """
        found: dict[str, Any] | None = None
        assert self._process.stdout is not None, "a pipe"
        with self._process.stdout as out:
            for line in out:
                found = _object(line)
                if found is not None and "error" not in found:
                    yield found if "kind" in found else handover.taken(found)
        failed = self._process.wait()
        if self._ended:
            return
        if found is None or (failed and "error" not in found):
            raise _vanished(self.command, self._said())
        _checked(found)

    def end(self) -> None:
        """Ends it, if it is still running."""
        if self._process.poll() is None:
            self._ended = True
            self._process.kill()
        self._process.wait()

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace")


def _line(command: str, arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "lora_studio", command, *map(str, arguments), "--json"]


def _how(online: bool) -> dict[str, Any]:
    variables = {**environment.environment(), handover.ASKED: "1"}
    if online:  # unless she forbade that herself
        variables["HF_HUB_OFFLINE"] = os.environ.get("HF_HUB_OFFLINE", "0")
    return {"stdin": subprocess.DEVNULL, "encoding": "utf-8", "errors": "replace", "env": variables}


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _refused(command: str, error: OSError) -> MachineError:
    return MachineError(
        tr("The command could not be started: {reason}.", reason=files.reason(error)),
        where=command,
        do=tr("Close other programs, then try again."),
    )


def _vanished(command: str, err: str) -> MachineError:
    """The error for a missing result; what its libraries printed goes to the studio's terminal."""
    print(err, file=sys.stderr, flush=True)
    advice = tr(
        "The computer may have run out of memory: close other programs and try again. The studio's terminal shows "
        "what the command printed."
    )
    return MachineError(tr("The command ended without a result."), where=command, do=advice)
