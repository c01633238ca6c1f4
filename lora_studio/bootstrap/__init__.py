"""From a fresh machine to a working environment, with nothing but the standard library.

On first use ``.venv`` is made and filled from ``requirements.txt``; a stamp in it says what it holds, so that later
starts only compare a few names. A half-made, outdated or broken environment is mended in place.

Variables that a user can set:
    LORA_STUDIO_NO_VENV=1    use the interpreter's own packages (containers, conda)
    LORA_STUDIO_TORCH=NAME   a build of PyTorch's own index (cpu, cu126, cu130, …), or ``default``
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lora_studio import errors
from lora_studio.bootstrap.environment import Environment
from lora_studio.errors import StudioError

ROOT = Path(__file__).resolve().parents[2]


def enter() -> None:
    """Goes on in the studio's environment: returns if this process runs there, else prepares it and starts ``app.py``
    anew in it.
    """
    environment = Environment(ROOT)
    if environment.is_current():
        return
    try:
        if os.environ.get("LORA_STUDIO_NO_VENV"):
            return environment.require_here()
        environment.prepare()
    except StudioError as error:
        sys.exit(errors.report(error, "--json" in sys.argv))
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)
    command = [str(environment.python), str(ROOT / "app.py"), *sys.argv[1:]]
    if os.name == "nt":  # Windows' exec returns to the shell at once
        sys.exit(_wait_for(subprocess.Popen(command)))
    sys.stdout.flush()
    os.execv(command[0], command)


def _wait_for(child: subprocess.Popen) -> int:
    """The child's exit status; Ctrl-C is the child's to answer."""
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue
