"""Imports go down the floors only, heavy libraries stay in their rooms, and surfaces start without torch."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lora_studio"

FLOORS = (
    ("__init__", "language", "locks"),
    ("errors",),
    ("bootstrap", "diffusion", "events", "files", "libraries"),
    ("families", "hub", "texts"),
    ("adapters", "optim"),
    ("methods",),
    ("config",),
    ("dataset", "runs"),
    ("models", "starter", "vision"),
    ("sampling",),
    ("curation", "evaluation", "training"),
    ("sweeps",),
    ("jobs",),
    ("ui",),
    ("__main__", "cli"),
)
"""From the ground."""
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}

ROOMS = {
    "babel": ("language",),
    "gradio": ("ui",),
    "diffusers": ("diffusion", "models", "sampling", "starter.make"),
    "transformers": ("models", "sampling", "starter.make", "texts", "vision"),
    "peft": ("methods", "models"),
    "onnxruntime": ("vision",),
    "optuna": ("sweeps.storage", "sweeps.store"),
    "typer": ("cli",),
    "rich": ("cli",),
}
"""Library -> the only rooms that may import it."""

SIBLINGS = {"dataset": "models", "models": "dataset"}
"""Rooms of one floor that do not know each other."""


def name_of(path: Path) -> str:
    """``families.stable_diffusion`` for ``lora_studio/families/stable_diffusion.py``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


GROUND = ("bootstrap", "errors", "events", "files", "libraries", "locks")
"""What needs the standard library and pydantic alone."""
WORKERS = (
    "jobs.worker", "jobs.rank_worker", "jobs.renderer_worker", "jobs.captioner", "jobs.trial_worker",
    "jobs.judging_worker", "jobs.warm_worker",
)  # fmt: skip
"""Processes of their own, where the work is done."""
_CACHE = ("dataset.cache", "dataset.encoding", "dataset.entry_files", "dataset.fitted")
"""What training alone imports of the dataset's room."""
_LOOKING = ("vision.captioners", "vision.loading", "vision.scorers")
"""What processes that look at pictures, and the command that downloads, import of the room of models that do."""

_LAYERS = "_layer"
"""How modules of methods that hold layers of their own end: methods import them where they need them."""

MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TORCH_FREE = [
    *(name for name in MODULES if name.split(".")[0] in ("", *GROUND, "config", "curation", "diffusion", "families")),
    *(name for name in MODULES if name.split(".")[0] in ("runs", "sweeps")),
    *(name for name in MODULES if name.startswith("methods") and not name.endswith(_LAYERS)),
    *(name for name in MODULES if name.startswith("jobs.") and name not in WORKERS),
    *(name for name in MODULES if name.startswith("dataset.") and name not in _CACHE),
    *(name for name in MODULES if name.startswith("vision") and name not in _LOOKING),
    "evaluation.judgements", "evaluation.advice", "optim.registry", "starter", "cli", "ui.studio",
]  # fmt: skip
"""What a surface may import while it starts."""


@cache
def imports(name: str) -> frozenset[str]:
    """All that the module imports, ours as ``lora_studio.x.y``; within functions and for types too."""
    tree, found = ast.parse(MODULES[name].read_text("utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(name, node)
            found.update(_whole(module, alias.name) for alias in node.names)
    return frozenset(found)


def _absolute(name: str, node: ast.ImportFrom) -> str:
    """The module that ``from … import`` speaks of, its leading dots resolved."""
    if not node.level:
        return node.module
    parts = ["lora_studio", *name.split("."), *(["__init__"] if MODULES[name].name == "__init__.py" else [])]
    return ".".join([*parts[: -node.level], *([node.module] if node.module else [])])


def _whole(module: str, name: str) -> str:
    """``from lora_studio.jobs import view`` imports the module ``lora_studio.jobs.view``."""
    inner = f"{module}.{name}".removeprefix("lora_studio").removeprefix(".")
    return f"{module}.{name}" if module.split(".")[0] == "lora_studio" and inner in MODULES else module


def ours(name: str) -> list[str]:
    """The modules of the studio that ``name`` imports, without the package's name."""
    return [
        one.removeprefix("lora_studio").removeprefix(".") or "__init__"
        for one in imports(name)
        if one.split(".")[0] == "lora_studio"
    ]


def test_every_room_stands_on_a_floor():
    assert {name.split(".")[0] or "__init__" for name in MODULES} <= set(FLOOR), (
        "a new room needs a floor in this test's table"
    )


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name):
    own = name.split(".")[0]
    for other in ours(name):
        room = other.split(".")[0]
        assert FLOOR[room] <= FLOOR[own], f"{name} (floor {FLOOR[own]}) imports {other} (floor {FLOOR[room]})"
        assert SIBLINGS.get(own) != room, f"{name} imports {other}: siblings do not know each other"


@pytest.mark.parametrize("name", MODULES)
def test_heavy_libraries_stay_in_their_rooms(name):
    libraries = {one.split(".")[0] for one in imports(name)}
    for library, rooms in ROOMS.items():
        allowed = any(name == room or name.startswith(f"{room}.") for room in rooms)
        assert allowed or library not in libraries, f"{name} imports {library}, which belongs to {', '.join(rooms)}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] in GROUND])
def test_the_ground_floor_never_needs_torch(name):
    assert not {"torch", "numpy", "PIL"} & {one.split(".")[0] for one in imports(name)}


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("bootstrap")])
def test_the_bootstrap_needs_nothing_but_the_standard_library(name):
    """It runs before anything is installed."""
    allowed = {"bootstrap", "errors", "__init__"}
    for one in imports(name):
        assert one.split(".")[0] in sys.stdlib_module_names or one.split(".")[1] in allowed, f"{name} imports {one}"


def test_no_modules_import_each_other():
    """A cycle works or breaks by which module is imported first. One within functions or for types alone works, but
    shows that something belongs in a module of its own.
    """
    graph = {name: {other for other in ours(name) if other != name} for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


def test_surfaces_start_without_torch():
    """The page must be up before torch is: it takes seconds to import."""
    names = [f"lora_studio.{name}" if name else "lora_studio" for name in TORCH_FREE if name in MODULES]
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
    heavy = {{"torch", "diffusers", "transformers", "peft"}} & set(sys.modules)
    assert not heavy, f"{{name}} loads {{', '.join(sorted(heavy))}}"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
    assert len(names) > 15


def test_tokens_are_counted_without_torch():
    """The page counts the tokens of captions while a folder is looked at."""
    code = "import sys, lora_studio.texts.chunks; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "False\n"
