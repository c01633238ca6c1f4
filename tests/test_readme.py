"""The README cannot rot: its commands parse, and every preset, setting, file and link that it names is there."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from lora_studio import cli
from lora_studio.config import presets
from lora_studio.config.specs import from_text

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [ROOT / name for name in ("README.md", "THIRD_PARTY.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
TEXT = "\n".join(document.read_text("utf-8") for document in DOCUMENTS)
IN_LINES = [line.partition("#")[0].strip() for line in re.findall(r"^(python3 app\.py.*)$", TEXT, re.MULTILINE)]
IN_CELLS = [
    line.strip()
    for cell in json.loads((ROOT / "docs" / "rented-gpu.ipynb").read_text("utf-8"))["cells"]
    if cell["cell_type"] == "code"
    for line in "".join(cell["source"]).replace("!python3", "python3").splitlines()
    if line.startswith("python3 app.py")
]
IN_SENTENCES = [command for command in re.findall(r"`(python3 app\.py[^`]*)`", TEXT) if "key=value" not in command]
COMMANDS = sorted({*IN_LINES, *IN_SENTENCES, *IN_CELLS})


def parsed(words: list[str]) -> dict:
    """The options that a command line means; raises if it is wrong. Nothing is run."""
    group = typer.main.get_command(cli.app)
    context = group.make_context("app.py", list(words), resilient_parsing=False)
    if not words or words[0].startswith("-"):
        return context.params
    name, command, rest = group.resolve_command(context, words)
    return command.make_context(name, rest, parent=context).params


def test_it_opens_with_a_picture_and_the_two_commands():
    assert README.startswith("![") and "docs/studio.png" in README.splitlines()[0]
    assert (
        README.index("python3 app.py")
        < README.index("python3 app.py quickstart")
        < README.index("## From your folder to ComfyUI")
    )


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line):
    words = shlex.split(line)[2:]
    if "--help" in words:
        assert words[0] in cli.COMMANDS or words == ["--help"]
        return
    params = parsed(words)
    if params.get("preset"):
        presets.find(params["preset"])
    for assignment in params.get("assignments") or ():
        key, _, text = assignment.partition("=")
        from_text(key, text)


def test_the_commands_that_are_promised_are_all_shown():
    assert {shlex.split(line)[2] for line in COMMANDS if len(shlex.split(line)) > 2} >= set(cli.COMMANDS)


def test_a_wrong_command_would_be_found():
    with pytest.raises(typer.TyperException):
        parsed(["train", "--colour", "red"])
    with pytest.raises(typer.TyperException):
        parsed(["trian"])


def test_every_preset_is_listed_and_no_other():
    table = README.split("## Presets")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == {one.name for one in presets.available()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
        assert target.startswith("https://") or (document.parent / target).exists(), (
            f"{document.name} links to {target}"
        )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_that_are_named_exist(document):
    for path in re.findall(r"`((?:lora_studio|tests|presets|docs)/[\w./-]*)`", document.read_text("utf-8")):
        assert (ROOT / path).exists(), f"{document.name} names {path}"


def test_the_licence_is_apache_2_in_full():
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_every_required_package_is_credited():
    credits = (ROOT / "THIRD_PARTY.md").read_text("utf-8").lower()
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines():
        if "==" in line and not line.startswith("#"):
            name = line.partition("==")[0]
            assert {"torch": "pytorch"}.get(name, name).lower() in credits, f"{name} is not in THIRD_PARTY.md"


def test_ci_calls_what_a_person_calls():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert [line for line in script.splitlines() if "python" in line] == ['exec python3 app.py test "$@"']
