"""Creates the studio's environment on a fresh machine. Uses the standard library only.

The first start creates ``.venv`` and installs ``requirements.txt`` into it. A stamp in it records what it holds, so
later starts only compare a few names. An incomplete, outdated or broken environment is repaired in place.

Environment variables:
    LORA_STUDIO_NO_VENV=1    use the interpreter's own packages (containers, conda)
    LORA_STUDIO_TORCH=NAME   install this build from PyTorch's own index (cpu, cu126, cu130, …), or ``default``
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
    """Returns if this process runs in the studio's environment. Otherwise prepares that and runs ``app.py`` in it."""
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
        print("\nInterrupted. Run the same command again to continue.", file=sys.stderr)
        sys.exit(130)
    command = [str(environment.python), str(ROOT / "app.py"), *sys.argv[1:]]
    if os.name == "nt":  # Windows' exec returns to the shell at once
        sys.exit(_wait_for(subprocess.Popen(command)))
    sys.stdout.flush()
    os.execv(command[0], command)


def _wait_for(child: subprocess.Popen) -> int:
    """The child's exit status. Ctrl-C is left to the child."""
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue
