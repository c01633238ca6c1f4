"""The code keeps its style, its format and its types: ``pyproject.toml`` has the rules, and here are two more."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lora_studio"


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--output-format", "concise", "."],
        ["ruff", "format", "--check", "."],
        ["ty", "check", "--output-format", "concise", "--python", sys.prefix],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_checkers_find_nothing(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_public_classes_share_a_name():
    """A reader who meets a name knows which class it is."""
    places = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path.relative_to(PACKAGE).as_posix())
    assert len(places) > 100
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_one_spelling():
    """Oxford's, in which optimizer, tokenizer and quantize are spelled as the field does: colour, grey, and -ize."""
    wrong = re.compile(
        "(capital|categor|custom|general|initial|maxim|minim|normal|optim|organ|parametr|quant|random|real|recogn|"
        "serial|special|stabil|summar|synchron|token|util|visual)is(e|ed|es|er|ing|ation)(?![a-z])"
    )
    assert wrong.search("Quantise".lower()) and not wrong.search("regularisation")  # a key of preparation.json
    texts = [*PACKAGE.rglob("*.py"), *ROOT.glob("docs/*.md"), *ROOT.glob("*.md"), *ROOT.glob("presets/*.toml")]
    found = {path.name: match[0] for path in texts if (match := wrong.search(path.read_text("utf-8").lower()))}
    assert found == {}
