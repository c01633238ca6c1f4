"""The code keeps the house's style, as ruff sees it; ``pyproject.toml`` has the rules."""

import subprocess
import sys
from pathlib import Path


def test_ruff_has_nothing_to_say():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "."],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
