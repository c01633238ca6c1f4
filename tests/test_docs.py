"""The documents tell what is so: rooms, events, files of a run, pins."""

import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import get_args

import pytest

from lora_studio import events, runs
from lora_studio.bootstrap import environment
from lora_studio.config.settings import Settings
from tests import screenshots
from tests.benchmarks import methods

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def test_every_room_is_in_the_architecture():
    rooms = {path.name for path in (ROOT / "lora_studio").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert {room for room in rooms if f"`{room}/`" not in ARCHITECTURE} == set()


def test_every_kind_of_event_is_explained():
    kinds = {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(get_args(events.AnyEvent)[0])}
    table = ARCHITECTURE.split("## Events")[1].split("\n## ")[0]
    assert {kind for kind in kinds if f"`{kind}`" not in table} == set()


def test_every_file_of_a_run_is_shown(tmp_path):
    run = runs.create(Settings(data="x", name="ink"), tmp_path)
    shown = ARCHITECTURE.split("## A run's folder")[1].split("\n## ")[0]
    for path in (
        run.settings_file,
        run.events_file,
        run.worker_file,
        run.log_file,
        run.control,
        run.previews,
        run.checkpoints,
    ):
        assert path.name in shown, path.name


def test_every_picture_can_be_made_again():
    """A screenshot shows a page that is no more, and nobody knows how it was taken."""
    pictures = {path.name for ending in ("png", "webp") for path in (ROOT / "docs").glob(f"*.{ending}")}
    assert pictures == {*screenshots.SHOTS, *screenshots.DRAWN}
    for name, document in screenshots.DRAWN.items():
        assert name in (ROOT / document).read_text("utf-8")


def test_the_table_of_methods_is_the_one_that_the_code_makes():
    """With readers proved anew."""
    assert methods.PATH.read_text("utf-8") == methods.markdown(), "run: python -m tests.benchmarks.methods"


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-test.txt"])
def test_every_requirement_is_pinned_exactly(name):
    lines = [
        line for line in (ROOT / name).read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), lines


def test_torch_is_required_first():
    """Anything before it would pull in a build of its own choice."""
    assert next(iter(environment.pins(ROOT / "requirements.txt"))) == "torch"


def test_what_the_requirements_bring_along_is_held_too():
    """Else an install next year gets versions that nobody tried."""
    wanted = {**environment.pins(ROOT / "requirements.txt"), **environment.pins(ROOT / "requirements-test.txt")}
    held, seen, todo = {**environment.pins(ROOT / "constraints.txt"), **wanted}, set(), list(wanted)
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        todo += [needed for needed in _needs(name) if needed not in seen]
    assert seen - set(held) == set(), "write their versions into constraints.txt"


def _needs(name: str) -> list[str]:
    """What an installed package requires here, without its extras; nothing for one that is not installed."""
    from packaging.requirements import Requirement

    try:
        found = [Requirement(text) for text in requires(name) or []]
    except PackageNotFoundError:
        return []
    return [
        re.sub(r"[-_.]+", "-", one.name).lower()
        for one in found
        if not one.marker or one.marker.evaluate({"extra": ""})
    ]


@pytest.mark.skipif(
    not environment.Environment(ROOT).is_current(), reason="only the studio's own environment is held to its pins"
)
def test_the_tests_run_on_what_is_pinned():
    """Green tests on other versions would prove nothing."""
    for name, pin in {
        **environment.pins(ROOT / "requirements.txt"),
        **environment.pins(ROOT / "requirements-test.txt"),
    }.items():
        assert version(name).partition("+")[0] == pin, name
