"""The messages of the code and of what it declares, and the catalogues of their translations."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

from lora_studio import __version__
from lora_studio.adapters import blend_methods, card, kinds
from lora_studio.adapters.averaging import WIDTH
from lora_studio.config.declaration import Group
from lora_studio.config.presets import FOLDER as PRESETS
from lora_studio.config.specs import SPECS
from lora_studio.dataset.pictures import NOTICES
from lora_studio.diffusion import samplers
from lora_studio.language import ENGLISH, LANGUAGES
from lora_studio.language.catalogue import FOLDER, locale
from lora_studio.sweeps.space import FOLDER as SWEEPS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lora_studio"
_DEFINING = (
    "lora_studio/dataset/folder.py",
    "lora_studio/dataset/problems.py",
    "lora_studio/language/message.py",
    "lora_studio/ui/words.py",
)
"""Where ``tr`` and its like are defined, or called with what ``declared`` knows."""
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""In place of the time of each change, on which all branches would conflict."""
TRANSLATED = tuple(code for code in LANGUAGES if code != ENGLISH)


class Found(NamedTuple):
    """A message as its code has it."""

    template: str
    plural: str
    file: str


class Mistake(NamedTuple):
    """A call of ``tr`` or its like that no catalogue can be made of."""

    file: str
    line: int
    what: str


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("tr", "ntr", "counted", "grouped") and len(node.args) > (4 if name == "grouped" else 0):
                yield name, node


def _of_call(name: str, call: ast.Call) -> tuple[str | None, str | None]:
    """Template and plural; None where one is not a literal."""
    if name == "tr":
        return _text(call.args[0]), ""
    if name == "ntr":
        return _text(call.args[1]), _text(call.args[2])
    if name == "grouped":
        one, many = _text(call.args[3]), _text(call.args[4])
        return (one and f"{{count:,}} {one}: {{names}}."), (many and f"{{count:,}} {many}: {{names}}.")
    one = _text(call.args[1]) if len(call.args) > 1 else None
    many = _text(call.args[2]) if len(call.args) > 2 else f"{one}s"
    return (one and f"{{count:,}} {one}"), (many and f"{{count:,}} {many}")


def in_code() -> tuple[list[Found], list[Mistake]]:
    """What the code says, and its calls whose texts are not literals."""
    found, mistakes = [], []
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        for name, call in _calls(path):
            template, plural = _of_call(name, call)
            if template is not None and plural is not None:
                found.append(Found(template, plural, file))
            elif file not in _DEFINING:
                mistakes.append(Mistake(file, call.lineno, ast.unparse(call)[:80]))
    return found, mistakes


def declared() -> list[Found]:
    """What the settings, their choices, registries, presets and sweeps say."""
    found = [
        Found(ending, "", "lora_studio/language/message.py")
        for ending in (", ", "{some} and {last}", "{some} or {last}")
    ]
    found += [Found(group.value, "", "lora_studio/config/declaration.py") for group in Group]
    for spec in SPECS.values():
        texts = [spec.label, spec.about, spec.unit, *(part for one in spec.options for part in (one.title, one.help))]
        found += [Found(str(text), "", f"the setting {spec.key}") for text in texts if text]
    for one, many, do in NOTICES.values():
        file = "lora_studio/dataset/pictures.py"
        found.append(Found(f"{{count:,}} {one}: {{names}}.", f"{{count:,}} {many}: {{names}}.", file))
        found.append(Found(do, "", file))
    found += [Found(str(text), "", file) for file, texts in _registries().items() for text in texts if text]
    for path in sorted([*PRESETS.glob("*.toml"), *SWEEPS.glob("*.toml")]):
        preset = tomllib.loads(path.read_text("utf-8"))
        found += [Found(preset[key], "", path.relative_to(ROOT).as_posix()) for key in ("title", "blurb")]
    return found


def _registries() -> dict[str, list[str]]:
    """What registries that know no language say on the page, by their files."""
    blends, numbers = blend_methods.METHODS.values(), [*blend_methods.parameters().values(), WIDTH]
    return {
        "lora_studio/adapters/blend_methods.py": [text for one in blends for text in (one.title, one.help)],
        "lora_studio/adapters/blend_parameter.py": [text for one in numbers for text in (one.label, one.help)],
        "lora_studio/adapters/card.py": list(card.LICENCES.values()),
        "lora_studio/adapters/kinds.py": [one.title for one in kinds.KINDS.values()],
        "lora_studio/diffusion/samplers.py": [one.purpose for one in samplers.DECLARED.values()],
    }


def messages() -> dict[str, tuple[str, list[str]]]:
    """Every message: its plural, and the files that have it."""
    gathered: dict[str, tuple[str, list[str]]] = {}
    for one in (*in_code()[0], *declared()):
        plural, files = gathered.setdefault(one.template, (one.plural, []))
        if one.file not in files:
            files.append(one.file)
        if one.plural and not plural:
            gathered[one.template] = (one.plural, files)
    return gathered


def file_of(language: str) -> Path:
    return FOLDER / f"{language}.po"


def read(language: str) -> Catalog:
    """The catalogue of ``language``; an empty one where there is none yet."""
    if not file_of(language).exists():
        return Catalog(locale(language))
    with file_of(language).open("rb") as file:
        return read_po(file, locale(language))


def update(language: str, more: Mapping[str, str | list[str]] | None = None) -> int:
    """Brings the catalogue of ``language`` in line with the code, and adds translations; how many are missing."""
    more = more or {}
    known = {(one.id if isinstance(one.id, str) else one.id[0]): one.string for one in read(language) if one.id}
    new = Catalog(
        locale(language),
        charset="utf-8",
        header_comment=f"# LoRA Studio in {LANGUAGES[language]}",
        creation_date=_EPOCH,
        revision_date=_EPOCH,
        project="LoRA Studio",
        version=__version__,
        last_translator="LoRA Studio",
        language_team=LANGUAGES[language],
        msgid_bugs_address="",
        fuzzy=False,
    )
    missing = 0
    for template, (plural, files) in sorted(messages().items()):
        forms = new.num_plurals if plural else 1
        given = more.get(template) or known.get(template) or ""
        strings = [given] if isinstance(given, str) else list(given)
        if len(strings) != forms or not all(strings):
            strings = [""] * forms
            missing += 1
        locations = [(file, 0) for file in files]
        new.add((template, plural) if plural else template, tuple(strings) if plural else strings[0], locations)
    with file_of(language).open("wb") as file:
        write_po(file, new, width=0, sort_output=True, include_lineno=False)
    return missing
