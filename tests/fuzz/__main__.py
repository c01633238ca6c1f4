"""``python -m tests.fuzz [TARGET …] [--seconds 60]``: runs a coverage-guided fuzzer (Google's Atheris, ``pip install
atheris``) on each target in turn.

A fault ends its target. It is printed with the bytes that cause it, which are also written to ``crash-TARGET``: add
them to ``test_known.py``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PARSERS = [
    "lora_studio.adapters",
    "lora_studio.dataset",
    "lora_studio.config.presets",
    "lora_studio.config.settings",
    "lora_studio.config.specs",
    "lora_studio.events",
    "lora_studio.jobs",
    "lora_studio.runs.library",
    "lora_studio.runs.checkpoints",
    "lora_studio.sampling.recipe",
    "lora_studio.sampling.axes",
    "lora_studio.sampling.infotext",
    "lora_studio.sampling.picture_file",
    "tomllib",
    "zipfile",
    "json",
    "PIL.PngImagePlugin",
    "PIL.TiffImagePlugin",
    "PIL.JpegImagePlugin",
]
"""The modules whose coverage guides the fuzzer."""
TARGETS = (
    "header",
    "adapter",
    "peft-config",
    "recipe",
    "caption",
    "table",
    "csv-table",
    "json-captions",
    "preset",
    "settings",
    "zip",
    "events",
    "worker",
    "index",
    "scan-memory",
    "saved",
    "run",
    "texts",
    "model",
    "sheet",
    "infotext",
    "drawn",
    "picture",
)


def fuzz(name: str, seconds: int) -> None:
    """Fuzzes one target in this process. Does not return."""
    import atheris

    with atheris.instrument_imports(include=PARSERS, enable_loader_override=False):
        from tests.fuzz import targets

    place, corpus = Path(tempfile.mkdtemp()) / "place", Path(tempfile.mkdtemp())
    for index, seed in enumerate(targets.TARGETS[name].seeds()):
        (corpus / str(index)).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        "-timeout=20",
        "-rss_limit_mb=3000",
        f"-artifact_prefix=crash-{name}-",
        "-print_final_stats=1",
        "-max_len=20000",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: targets.attempt(name, data, place))
    atheris.Fuzz()


def main() -> int:
    """Runs each target in a separate process. Returns the number of targets with a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        fuzz(asked.targets[0], asked.seconds)
        return 0
    found = 0
    for name in asked.targets or TARGETS:
        command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(asked.seconds), "--here"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        executions = next(
            (
                line.split()[-1]
                for line in done.stderr.splitlines()
                if line.startswith("stat::number_of_executed_units")
            ),
            "?",
        )
        print(f"{name}: {executions} executions, {'a fault' if done.returncode else 'no fault'}", flush=True)
        if done.returncode:
            found += 1
            print(done.stderr[-4000:], flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
