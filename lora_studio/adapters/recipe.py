"""How an adapter was made, as data in its header: by a training run or by a blend. "Open its recipe" reads it back.
Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from lora_studio.adapters import blend_methods
from lora_studio.errors import SettingsError
from lora_studio.language import fault, tr

KEY = "lora_studio.recipe"
"""The header's entry that holds a recipe as JSON."""


class ImageRecord(BaseModel):
    """A picture that was trained on: its file name without folders, the SHA-256 of its bytes, and a hash of how it was
    trained on (caption, mask, crop, repeats …; empty in files of earlier versions).
    """

    name: str
    sha256: str
    prepared: str = ""


class FolderRecord(BaseModel):
    """A folder of the dataset: how often each of its pictures comes up in an epoch, how many there are, and how many of
    them have each caption tag. One of class pictures is ``regularisation``, and its tags are not counted.
    """

    repeats: int = 1
    images: int = 0
    tags: dict[str, int] = {}
    regularisation: bool = False


class PairRecord(BaseModel):
    """A pair that was trained on, as ``dataset.items.PromptPair``."""

    trained: str
    neutral: str
    towards: str
    away: str
    weight: float = 1.0
    pictures: tuple[str, str] | None = None

    @property
    def kind(self) -> str:
        """What it pairs, for people."""
        return "pictures" if self.pictures else "prompts"


class Training(BaseModel):
    """A training run, complete enough to repeat it: the settings include the seeds."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    kind: Literal["training"] = "training"
    settings: dict[str, Any]
    """Every setting by key; paths are cut to their last part."""
    base: str = ""
    base_sha256: str = ""
    predicts: str = ""
    """What the base model predicts, and how that was known; for people."""
    parts: dict[str, str] = {}
    """Files that completed the base model or replaced parts of it: name -> SHA-256."""
    images: list[ImageRecord] = []
    tags: dict[str, int] = {}
    """How many pictures have each caption tag."""
    folders: dict[str, FolderRecord] = {}
    """The same by folder, as named within the dataset; empty in files of earlier versions."""
    pairs: list[PairRecord] = []
    """Of a run without pictures."""
    versions: dict[str, str] = {}
    """Versions of the studio, Python and the libraries."""
    parent: str = ""
    """The run and step that it was branched from, or the adapter's file that it started from; empty if neither."""
    steps: int = 0
    """Steps done; a stopped run has done fewer than its settings say."""
    started: float = 0.0
    """Seconds since the epoch."""
    seconds: float = 0.0

    @property
    def class_images(self) -> int:
        """How many of the images are class pictures."""
        return sum(folder.images for folder in self.folders.values() if folder.regularisation)


MOST_WEIGHT = 10.0
"""Beyond ten times an adapter's own strength a picture is only noise."""
Weight = Annotated[float, Field(ge=-MOST_WEIGHT, le=MOST_WEIGHT)]


class Ingredient(BaseModel):
    """One adapter of a blend. ``blocks`` multiplies the weight below a block, as {"up_blocks.1": 0.5} (see
    ``block_names.block_factor``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    weight: Weight = 1.0
    sha256: str = ""
    """Hash of its tensors (``sshs_model_hash``), by which it is found again."""
    blocks: dict[str, Weight] = {}


class Blend(BaseModel):
    """A blend of adapters. In the file its parameters stand beside the other fields, as ``density`` and ``seed`` do.

    Which parameters there are, and their ranges, is declared in ``blend_methods``. Those of the method are always
    complete; an earlier version also wrote those of other methods, which are kept and have no effect.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    kind: Literal["blend"] = "blend"
    method: str = "exact"
    ingredients: list[Ingredient] = Field(min_length=1)
    rank: int = int(blend_methods.RANK.default)
    """0 keeps all that the method gives; a method that trims then takes the largest rank of the adapters."""

    @model_validator(mode="before")
    @classmethod
    def _check_parameters(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields.keys() - {blend_methods.RANK.key}
        parameters = {key: value for key, value in values.items() if key not in fields}
        return values | blend_methods.checked(values.get("method", "exact"), parameters)

    @property
    def parameters(self) -> dict[str, int | float]:
        """The method's parameters by key, without the rank."""
        given = self.model_extra or {}
        return {one.key: given[one.key] for one in blend_methods.named(self.method).parameters}


Recipe = Annotated[Union[Training, Blend], Field(discriminator="kind")]
_recipe: TypeAdapter[Training | Blend] = TypeAdapter(Recipe)


def blend(**values: Any) -> Blend:
    """A blend's recipe from plain values.

    Raises:
        SettingsError: there is no such method, or a weight or parameter is out of range.
    """
    try:
        return Blend.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise SettingsError(
            tr("{field}: {problem} (it is {given}).", field=field, problem=fault(first), given=repr(first["input"])),
            where=field,
            do=tr("Weights go from -10 to 10."),
        ) from None


def dumps(recipe: Training | Blend) -> str:
    """The header's text for ``recipe``."""
    return recipe.model_dump_json()


def read(metadata: Mapping[str, str]) -> Training | Blend | None:
    """The recipe in a header; None if there is none that can be read."""
    try:
        return _recipe.validate_json(metadata[KEY])
    except (KeyError, ValidationError, SettingsError):
        return None


class Difference(NamedTuple):
    """One reason why a run from a recipe would not give the same adapter."""

    what: str
    recorded: str
    found: str


def compare(
    recipe: Training, *, base_sha256: str, images: Sequence[ImageRecord], versions: Mapping[str, str]
) -> list[Difference]:
    """What differs between a recipe and the present base model, pictures (in any order, under any name) and versions.
    Empty means that the same adapter would come out.

    Args:
        versions: as in ``Training.versions``; only names that the recipe recorded are compared.
    """
    found = [Difference("base model", recipe.base_sha256, base_sha256)] if recipe.base_sha256 != base_sha256 else []
    recorded, present = {image.sha256: image.name for image in recipe.images}, {image.sha256 for image in images}
    if missing := [name for digest, name in recorded.items() if digest not in present]:
        found.append(Difference("pictures missing or changed", ", ".join(sorted(missing)), "not among the pictures"))
    if extra := len(present - recorded.keys()):
        found.append(Difference("pictures added", "none of them", f"{extra} more"))
    now = {(image.sha256, image.prepared) for image in images}
    if other := [
        image.name
        for image in recipe.images
        if image.prepared and image.sha256 in present and (image.sha256, image.prepared) not in now
    ]:
        found.append(Difference("captions, masks, crops or weights", ", ".join(sorted(other)), "changed"))
    found += [
        Difference(name, version, versions.get(name, "none"))
        for name, version in recipe.versions.items()
        if versions.get(name) != version
    ]
    return found


def cut_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with their paths cut to the last part: a recipe does not reveal the machine's folders."""
    cut = json.loads(json.dumps(dict(settings)))
    for key in ("data", "base", "start_from", "vae"):
        if isinstance(cut.get(key), str):
            cut[key] = _last(cut[key])
    if isinstance(paths := cut.get("text_encoders"), list):
        cut["text_encoders"] = [_last(str(path)) for path in paths]
    return cut


def _last(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]
