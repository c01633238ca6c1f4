"""``test``: installs what the tests need and runs the whole suite."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import typer

from lora_studio import bootstrap
from lora_studio.bootstrap.environment import Environment
from lora_studio.cli import chromium
from lora_studio.errors import MachineError

REQUIREMENTS = bootstrap.ROOT / "requirements-test.txt"


def test(context: typer.Context) -> int:
    """Install what the tests need, including a Chromium, and run them. Further arguments go to pytest."""
    _require_packages()
    variables = {
        **os.environ,
        chromium.VARIABLE: chromium.require(),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "pytest", *_workers(context.args), *context.args]
    return subprocess.run(command, cwd=bootstrap.ROOT, env=variables).returncode


def _require_packages() -> None:
    """Installs the tests' packages into the studio's environment; in another environment it only checks for them."""
    environment = Environment(bootstrap.ROOT)
    if environment.is_current():
        environment.prepare(REQUIREMENTS)
    elif not importlib.util.find_spec("pytest"):
        raise MachineError(
            "The packages that the tests need are not installed.",
            where=sys.prefix,
            do=f"pip install -r {REQUIREMENTS.name}",
        )


def _workers(arguments: list[str]) -> list[str]:
    """One test process per core, unless the caller chooses a number or names single tests. With one more on two cores
    the whole took as long, and its pages twice.
    """
    if any(argument.startswith("-n") or not argument.startswith("-") for argument in arguments):
        return []
    return ["-n", str(os.cpu_count() or 1), "--dist", "loadfile", "--no-loadscope-reorder"]
