"""Edits of many captions at once: each a small record that makes another caption of a caption.

``EDITS`` declares all of them. The page's form and the options of the ``tags`` command are made from it, so a new edit
is a class here. Tags are what stands between commas; a caption of several lines is edited line by line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args

import regex
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lora_studio.curation import caption_parts, style_words
from lora_studio.curation.caption_parts import Parts, key
from lora_studio.dataset import captions
from lora_studio.errors import SettingsError
from lora_studio.language import fault, few, tr

SECONDS = 3.0
"""How long the patterns of one edit may search in all captions together, in seconds of the processor: ``regex``
measures those.
"""

Pattern = Any
"""A compiled pattern of ``regex``, which declares no type for it."""
Count = Callable[[str], int]
"""How many tokens a text has."""


@dataclass
class EditTools:
    """What edits need beside the caption: a count of tokens, and the time that is left for patterns."""

    count: Count | None = None
    until: float = field(default_factory=lambda: time.process_time() + SECONDS)

    @property
    def seconds(self) -> float:
        """Time left; never 0, which would mean no limit."""
        return max(self.until - time.process_time(), 1e-3)


class CaptionChange(NamedTuple):
    """A picture's caption before and after an edit."""

    name: str
    before: str
    after: str


class Edit(BaseModel):
    """What all edits have in common.

    Attributes:
        title: its name in a menu.
        sentence: what it does in general.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    title: ClassVar[str]
    sentence: ClassVar[str]

    def describe(self) -> str:
        """What this edit will do, as it stands within a sentence; also the step's name for undo."""
        raise NotImplementedError

    def line(self, line: str, tools: EditTools) -> str:
        """One line of a caption after the edit."""
        raise NotImplementedError

    def caption(self, caption: str, tools: EditTools) -> str:
        """A caption after the edit, each line tidied; the same caption where the edit changes nothing."""
        new = "\n".join(self.line(line, tools) for line in caption.split("\n"))
        return caption if new == caption else captions.tidy_lines(new)


Text = Annotated[str, Field(title=tr("Text"), description=tr("Joined with a comma."), min_length=1)]
Tag = Annotated[str, Field(title=tr("Tag"), min_length=1)]
Tags = Annotated[
    tuple[Tag, ...],
    Field(title=tr("Tags"), description=tr("Separated by commas. Upper and lower case do not matter."), min_length=1),
]
IgnoreCase = Annotated[bool, Field(title=tr("Upper and lower case are the same"))]


class Prepend(Edit):
    """``text`` in front of every line that does not begin with it."""

    title: ClassVar = tr("Put in front")
    sentence: ClassVar = tr("Puts a text in front of every caption that does not begin with it.")

    kind: Literal["prepend"] = "prepend"
    text: Text

    def describe(self) -> str:
        return tr("“{text}” put in front", text=self.text)

    def line(self, line: str, tools: EditTools) -> str:
        return line if _begins(line, self.text) else _joined(self.text, line)


class Append(Edit):
    """``text`` after every line that does not end with it."""

    title: ClassVar = tr("Put after")
    sentence: ClassVar = tr("Puts a text after every caption that does not end with it.")

    kind: Literal["append"] = "append"
    text: Text

    def describe(self) -> str:
        return tr("“{text}” put after", text=self.text)

    def line(self, line: str, tools: EditTools) -> str:
        if _begins(line[::-1], self.text[::-1]):
            return line
        return f"{line} {self.text}" if line.endswith((".", "!", "?", ",")) else _joined(line, self.text)


class Replace(Edit):
    """``find`` replaced by ``replacement`` wherever it occurs. In a regular expression's replacement, ``\\1`` is the
    first group.
    """

    title: ClassVar = tr("Find and replace")
    sentence: ClassVar = tr("Replaces a text wherever it occurs, also within words.")

    kind: Literal["replace"] = "replace"
    find: Annotated[str, Field(title=tr("Find"), min_length=1)]
    replacement: Annotated[str, Field(title=tr("Replace with"))] = ""
    regular_expression: Annotated[
        bool,
        Field(
            title=tr("Regular expression"),
            description=tr(r"Search for a regular expression: \b is the edge of a word, \1 the first group."),
        ),
    ] = False
    ignore_case: IgnoreCase = False

    model_config = ConfigDict(str_strip_whitespace=False)  # spaces are text here

    def model_post_init(self, _: Any) -> None:
        pattern = _compiled(self.find, self.regular_expression, self.ignore_case)
        if self.regular_expression:
            _check_template(pattern, self.replacement)

    def describe(self) -> str:
        if not self.replacement:
            return tr("“{find}” replaced by nothing", find=self.find)
        return tr("“{find}” replaced by “{replacement}”", find=self.find, replacement=self.replacement)

    def line(self, line: str, tools: EditTools) -> str:
        pattern = _compiled(self.find, self.regular_expression, self.ignore_case)
        put = self.replacement if self.regular_expression else lambda _: self.replacement
        new, count = pattern.subn(put, line, timeout=tools.seconds, concurrent=True)
        return caption_parts.closed(new) if count and "," in line else new


class RemoveTags(Edit):
    """Every tag that equals one of ``tags`` removed."""

    title: ClassVar = tr("Remove tags")
    sentence: ClassVar = tr("Removes tags, each as a whole: removing “ink” keeps “ink bottle”.")

    kind: Literal["remove"] = "remove"
    tags: Tags

    def describe(self) -> str:
        return tr("{tags} removed", tags=_quoted(self.tags))

    def line(self, line: str, tools: EditTools) -> str:
        gone = set(map(key, self.tags))
        return caption_parts.changed(line, lambda parts: [part for part in parts if key(part) not in gone])


class RenameTag(Edit):
    """A tag written as another; where that stands in the line already, the tag is removed."""

    title: ClassVar = tr("Rename a tag")
    sentence: ClassVar = tr("Writes a tag as another one. Where a caption has both, one is left.")

    kind: Literal["rename"] = "rename"
    tag: Tag
    name: Annotated[str, Field(title=tr("New name"), min_length=1)]

    def describe(self) -> str:
        return tr("“{tag}” renamed to “{name}”", tag=self.tag, name=self.name)

    def line(self, line: str, tools: EditTools) -> str:
        old, seen = key(self.tag), {key(part) for part in caption_parts.split(line)}
        if old not in seen:
            return line
        double = key(self.name) in seen - {old}
        new = [] if double else [self.name]
        return caption_parts.changed(line, lambda parts: [one for part in parts for one in _swapped(part, old, new)])


class Reorder(Edit):
    """``tags`` moved to the front or the end of each line that has them, in the order given."""

    title: ClassVar = tr("Move tags")
    sentence: ClassVar = tr("Moves tags to the front or to the end of every caption that has them, in the order given.")

    kind: Literal["reorder"] = "reorder"
    tags: Tags
    to: Annotated[Literal["front", "end"], Field(title=tr("To"), description=tr("Where the tags go."))] = "front"

    def describe(self) -> str:
        tags = _quoted(self.tags)
        return (
            tr("{tags} moved to the front", tags=tags)
            if self.to == "front"
            else tr("{tags} moved to the end", tags=tags)
        )

    def line(self, line: str, tools: EditTools) -> str:
        wanted = [key(tag) for tag in self.tags]

        def moved(parts: Parts) -> Parts:
            mine = sorted((part for part in parts if key(part) in wanted), key=lambda part: wanted.index(key(part)))
            others = [part for part in parts if key(part) not in wanted]
            return mine + others if self.to == "front" else others + mine

        return caption_parts.changed(line, moved)


class Deduplicate(Edit):
    """Of equal tags in a line the first kept, and of equal lines in a caption."""

    title: ClassVar = tr("Remove repeated tags")
    sentence: ClassVar = tr("Keeps the first of several equal tags in a caption, and of several equal lines.")

    kind: Literal["deduplicate"] = "deduplicate"

    def describe(self) -> str:
        return tr("repeated tags removed")

    def line(self, line: str, tools: EditTools) -> str:
        seen: set[str] = set()

        def first(parts: Parts) -> Parts:
            kept = {key(part): part for part in reversed(parts) if key(part) not in seen}
            seen.update(kept)
            return list(reversed(kept.values()))

        return caption_parts.changed(line, first)

    def caption(self, caption: str, tools: EditTools) -> str:
        return "\n".join(dict.fromkeys(super().caption(caption, tools).split("\n")))


class Trim(Edit):
    """Every line cut to ``tokens``: as many tags and sentences as fit, from the front. What is too long alone is cut
    after a word.
    """

    title: ClassVar = tr("Shorten")
    sentence: ClassVar = tr("Cuts every caption to a number of tokens, after a tag, a sentence, or else a word.")

    kind: Literal["trim"] = "trim"
    tokens: Annotated[
        int, Field(title=tr("Tokens"), description=tr("An encoder reads 75 at once."), ge=1, le=10_000)
    ] = 75

    def describe(self) -> str:
        return tr("cut to {tokens} tokens", tokens=self.tokens)

    def line(self, line: str, tools: EditTools) -> str:
        count = tools.count
        if count is None:
            raise SettingsError(tr("Captions cannot be cut without a tokenizer."), do=tr("Choose a base model."))
        if count(line) <= self.tokens:
            return line
        for boundary in (_UNITS, _WORDS):
            ends = [found.start() for found in boundary.finditer(line)]
            fitting = [end for end in _fitting(line, ends, count, self.tokens) if line[:end].strip(" ,|")]
            if fitting:
                return line[: fitting[-1]].rstrip(" ,|")
        return line


class RemoveMatching(Edit):
    """Every tag in which a pattern is found removed."""

    title: ClassVar = tr("Remove what matches")
    sentence: ClassVar = tr("Removes every tag in which a regular expression is found.")

    kind: Literal["remove matching"] = "remove matching"
    pattern: Annotated[
        str, Field(title=tr("Regular expression"), description=tr("^ is the tag's beginning."), min_length=1)
    ]
    ignore_case: IgnoreCase = True

    model_config = ConfigDict(str_strip_whitespace=False)

    def model_post_init(self, _: Any) -> None:
        _compiled(self.pattern, True, self.ignore_case)

    def describe(self) -> str:
        return tr("tags that match “{pattern}” removed", pattern=self.pattern)

    def line(self, line: str, tools: EditTools) -> str:
        pattern = _compiled(self.pattern, True, self.ignore_case)

        def left(parts: Parts) -> Parts:
            return [part for part in parts if not pattern.search(part, timeout=tools.seconds, concurrent=True)]

        return caption_parts.changed(line, left)


class RemoveStyle(Edit):
    """What captions say about the style removed, as ``style_words`` finds it."""

    title: ClassVar = tr("Remove words about the style")
    sentence: ClassVar = tr("Removes what captions say about the style or medium: what stays unsaid becomes the style.")

    kind: Literal["remove style"] = "remove style"
    keep: Annotated[
        tuple[Tag, ...], Field(title=tr("Keep"), description=tr("Words to keep, separated by commas."))
    ] = ()

    def describe(self) -> str:
        return tr("words about the style removed")

    def line(self, line: str, tools: EditTools) -> str:
        return style_words.without(line, self.keep)


AnyEdit = Annotated[
    Union[Prepend, Append, Replace, RemoveTags, RenameTag, Reorder, Deduplicate, Trim, RemoveMatching, RemoveStyle],
    Field(discriminator="kind"),
]
EDITS: dict[str, type[Edit]] = {
    get_args(one.model_fields["kind"].annotation)[0]: one for one in get_args(get_args(AnyEdit)[0])
}
"""Kind -> edit, in the order of menus."""
_ANY: TypeAdapter[AnyEdit] = TypeAdapter(AnyEdit)


FieldType = Literal["text", "tags", "number", "flag", "choice"]


class EditField(NamedTuple):
    """A field of an edit, for a form or an option. ``type`` is "text", "tags" (a list of them), "number", "flag" or
    "choice", whose ``choices`` are given.
    """

    name: str
    title: str
    help: str
    type: FieldType
    required: bool
    default: Any
    choices: tuple[str, ...] = ()


def fields(kind: str) -> list[EditField]:
    """The fields of an edit, in order."""
    found = []
    for name, one in EDITS[kind].model_fields.items():
        if name == "kind":
            continue
        types: dict[Any, FieldType] = {bool: "flag", int: "number", str: "text"}
        choices = get_args(one.annotation) if one.annotation not in types else ()
        sort = types.get(one.annotation, "tags" if Ellipsis in choices else "choice")
        default = None if one.is_required() else one.default
        options = tuple(map(str, choices)) if sort == "choice" else ()
        found.append(
            EditField(name, one.title or name, one.description or "", sort, one.is_required(), default, options)
        )
    return found


def make(kind: str, **values: Any) -> Edit:
    """An edit from the values of a form. Tags may be one text with commas.

    Raises:
        SettingsError: a value is missing or wrong, or a regular expression is none; it says at which character.
    """
    texts = {field.name for field in fields(kind) if field.type == "tags"}
    given = {
        name: tuple(caption_parts.split(value)) if name in texts and isinstance(value, str) else value
        for name, value in values.items()
    }
    try:
        return _ANY.validate_python({"kind": kind, **given})
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        name = next((part for part in found["loc"][1:] if isinstance(part, str)), "")
        title = next((field.title for field in fields(kind) if field.name == name), EDITS[kind].title)
        empty = found["type"] in ("missing", "string_too_short", "too_short")
        what = (
            tr("“{title}” is empty.", title=title)
            if empty
            else tr("“{title}” is wrong: {why}.", title=title, why=fault(found))
        )
        raise SettingsError(what, do=tr("Fill it in.") if empty else tr("Correct it.")) from None


def preview(
    captions_by_name: Mapping[str, str], edits: Edit | Iterable[Edit], count: Count | None = None
) -> list[CaptionChange]:
    """The captions that one edit changes, or several one after the other, in the order given. Nothing is written.

    Args:
        count: how many tokens a text has, for ``Trim``.

    Raises:
        SettingsError: a pattern takes longer than ``SECONDS`` in all, or ``Trim`` has no ``count``.
    """
    tools, chain = EditTools(count), [edits] if isinstance(edits, Edit) else list(edits)
    found = []
    for name, before in captions_by_name.items():
        after = before
        for edit in chain:
            try:
                after = edit.caption(after, tools)
            except TimeoutError:
                raise SettingsError(
                    tr("The regular expression takes too long; it was stopped after {seconds:g} s.", seconds=SECONDS),
                    where=name,
                    do=tr("Write it more simply: avoid repeats within repeats, such as (a+)+. Nothing was changed."),
                ) from None
        if after != before:
            found.append(CaptionChange(name, before, after))
    return found


def describe(edits: Iterable[Edit]) -> str:
    """What edits do, as one title for undo, as it stands within a sentence."""
    done = [edit.describe() for edit in edits]
    return few(done, len(done))


_UNITS = regex.compile(r"(?=\s*,)|(?<=[.!?])(?=\s)|(?=\s*\|\|\|)")
_WORDS = regex.compile(r"(?=\s)")


def _fitting(line: str, ends: list[int], count: Count, tokens: int) -> list[int]:
    """The ends at which ``line`` has at most ``tokens``; a longer beginning never has fewer."""
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        if count(line[: ends[middle]]) <= tokens:
            low = middle + 1
        else:
            high = middle
    return ends[:low]


def _compiled(pattern: str, is_expression: bool, ignore_case: bool) -> Pattern:
    try:
        return regex.compile(
            pattern if is_expression else regex.escape(pattern), regex.IGNORECASE if ignore_case else 0
        )
    except regex.error as error:
        raise _invalid(pattern, error) from None
    except (RecursionError, OverflowError, MemoryError):
        raise SettingsError(tr("The regular expression is too large."), do=tr("Shorten it.")) from None


def _check_template(pattern: Pattern, template: str) -> None:
    try:
        regex.compile(f"|{pattern.pattern}", pattern.flags).sub(template, "")
    except (regex.error, IndexError) as error:
        raise SettingsError(
            tr("“{template}” cannot be put in place of what is found: {error}.", template=template, error=error),
            do=tr(r"\1 is the first group in brackets of the regular expression; write \\ for a backslash."),
        ) from None


def _invalid(pattern: str, error: regex.error) -> SettingsError:
    place = getattr(error, "pos", None)
    why = getattr(error, "msg", error)
    what = tr("“{pattern}” is no regular expression: {why}.", pattern=pattern, why=why)
    if place is not None:
        what = tr(
            "“{pattern}” is no regular expression: {why} at character {place}.",
            pattern=pattern,
            why=why,
            place=place + 1,
        )
    return SettingsError(
        what,
        do=tr(
            "Correct it, or search for it as plain text. A sign with a meaning, such as ( or +, is written \\( or \\+."
        ),
    )


def _begins(line: str, text: str) -> bool:
    """Whether a line begins with a text and does not go on within a word."""
    after = line[len(text) : len(text) + 1]
    return line.casefold().startswith(text.casefold()) and not (after.isalnum() and text[-1:].isalnum())


def _joined(first: str, second: str) -> str:
    if not first.strip() or not second.strip():
        return first.strip() or second.strip()
    return f"{first.rstrip(' ,')}, {second.lstrip(' ,')}"


def _swapped(part: str, old: str, new: Parts) -> Parts:
    return new if key(part) == old else [part]


def _quoted(tags: Iterable[str]) -> str:
    return few([tr("“{tag}”", tag=tag) for tag in tags], 3)
