"""The soak in small: a run that is killed ten times is the run that nobody killed. ``python -m tests.benchmarks.soak``
does it 200 times.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.fault(38, 39, 43, 44, 45)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the soak forks its workers")
def test_a_run_killed_five_times_is_the_run_that_was_never_stopped():
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.soak", "--kills", "5", "--steps", "12"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["equal"] and sum(told["while"].values()) == 5
