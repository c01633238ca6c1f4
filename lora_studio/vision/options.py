"""What can be chosen about a model that writes captions. Kept in the order of a job, so that it can be resumed."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

INSTRUCTION = (
    "Describe what this picture shows in one or two plain sentences: the subjects, what they do and where they are. "
    "Do not mention the medium, the technique, the style or the artist."
)
"""What a model is told that follows instructions. What stays unsaid of the style becomes the style."""


class Detail(StrEnum):
    """How much Florence-2 writes: each is one of the tasks that it was trained on."""

    SHORT = "<CAPTION>"
    DETAILED = "<DETAILED_CAPTION>"
    LONG = "<MORE_DETAILED_CAPTION>"


class SentenceOptions(BaseModel):
    """How a captioner writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instruction: str = INSTRUCTION
    """For models that follow one. BLIP and Florence-2 do not."""
    detail: Detail = Detail.DETAILED
    """Of Florence-2."""
    beams: int = Field(1, ge=1, le=8)
    """Candidates that are followed at once; 1 takes the likeliest word each time. More is slower, often better."""
    max_tokens: int = Field(0, ge=0, le=1024)
    """After which a caption is cut; 0 is the model's usual number."""


class TagOptions(BaseModel):
    """Which tags a tagger writes. The thresholds are those that wd-tagger's own page begins with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    general: float = Field(0.35, ge=0, le=1)
    """From which score on a tag is written."""
    character: float = Field(0.85, ge=0, le=1)
    """The same for tags that name a character."""
    ratings: bool = False
    """Whether the likeliest rating is written too."""
    never: tuple[str, ...] = ()
    """Tags that are not written, in any spelling: ``long hair`` is ``Long_Hair``."""
