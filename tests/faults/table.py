"""Rows of faults and the tests that show what is promised for them -> ``docs/reliability.md``.

Tests are found by reading their source: nothing is imported, so the table can be made in a moment and without torch.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]
DOCUMENT = TESTS.parent / "docs" / "reliability.md"
_MARKER = "pytest.mark.fault"
_NAMES = (
    "Adobe RGB",
    "AVIF",
    "CMYK",
    "CSV",
    "Display P3",
    "EXIF",
    "HDR",
    "JPEG",
    "NaN",
    "PNG",
    "sRGB",
    "VAE",
    "ZIP",
)
"""Names that a sentence does not write in small letters."""
_HEAD = """\
# What may go wrong

A row is a fault, what the studio promises then, and the tests that show it. Every promise has at least one; all run \
with `python3 app.py test`.
This page is made from `tests/faults/rows.toml` and from the tests' marks by `python -m tests.faults`, and a test \
holds it to them.
"""


class Row(NamedTuple):
    """One fault."""

    number: int
    fault: str
    promise: str


class Shown(NamedTuple):
    """A test that is marked with a row's number; ``file`` relative to the tests' folder."""

    file: str
    test: str


def areas() -> dict[str, list[Row]]:
    """All rows by the titles of their areas."""
    text = Path(__file__).with_name("rows.toml").read_text("utf-8")
    return {area["title"]: [Row(**row) for row in area["rows"]] for area in tomllib.loads(text)["area"]}


def marks(tests: Path = TESTS) -> dict[int, list[Shown]]:
    """The tests that show each row, in the order of their files.

    Raises:
        ValueError: a mark stands where pytest would not see it, or holds something other than numbers.
    """
    found: dict[int, list[Shown]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        text = path.read_text("utf-8")
        for number, test in _marked(ast.parse(text), path.name) if _MARKER in text else ():
            shown = found.setdefault(number, [])
            if (one := Shown(path.relative_to(tests).as_posix(), test)) not in shown:
                shown.append(one)
    return found


def _marked(tree: ast.Module, file: str) -> Iterator[tuple[int, str]]:
    """(row, test) of every mark: a decorator's own, or one of a parametrized case within a decorator."""
    placed: set[ast.AST] = set()
    for test in tree.body:
        if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
            for mark in _marks(*test.decorator_list):
                placed.add(mark)
                for number in mark.args:
                    if not (isinstance(number, ast.Constant) and type(number.value) is int):
                        raise ValueError(f"{file}: the mark of {test.name} holds something other than rows' numbers.")
                    yield number.value, test.name
    if astray := [mark.lineno for mark in _marks(tree) if mark not in placed]:
        raise ValueError(f"{file}: the marks in the lines {astray} belong to no test.")


def _marks(*nodes: ast.AST) -> list[ast.Call]:
    return [
        node
        for top in nodes
        for node in ast.walk(top)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") == "fault"
        and ast.unparse(node.func) == _MARKER
    ]


def document() -> str:
    """``docs/reliability.md`` as it should be."""
    shown = marks()
    parts = [_HEAD]
    for title, rows in areas().items():
        lines = [
            f"| {row.number} | {row.fault} | {row.promise} | {_links(shown.get(row.number, []))} |" for row in rows
        ]
        parts.append(
            "\n".join([f"## {title}", "", "| | Fault | Promise | Shown by |", "|--:|---|---|---|", *lines, ""])
        )
    return "\n".join(parts)


def _links(tests: list[Shown]) -> str:
    return "<br>".join(f"[{sentence(one.test)}](../tests/{one.file})" for one in tests)


def sentence(test: str) -> str:
    """A test's name as a sentence: ``test_an_avif_of_display_p3_is_converted`` -> ``An AVIF of Display P3 is
    converted``.
    """
    words = f" {test.removeprefix('test_').replace('_', ' ')} "
    for name in _NAMES:
        words = words.replace(f" {name.lower()} ", f" {name} ")
    return words.strip()[:1].upper() + words.strip()[1:]
