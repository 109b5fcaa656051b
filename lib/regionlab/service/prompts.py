"""Prompts as they come over the wire: the JSON of `regionlab.prompts`, and a weight for each."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator

from regionlab.prompts import Box, Points, Prompt, Text, Whole
from regionlab.service.limits import MAX_POINTS, MAX_WORDS

Words = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_WORDS, pattern=r"\S"), Field()
]
Color = Annotated[str, StringConstraints(pattern="^#[0-9A-Fa-f]{6}$")]
Point = tuple[FiniteFloat, FiniteFloat]


class Sides(BaseModel):
    """A box in pixels of the image, right and bottom exclusive."""

    model_config = ConfigDict(extra="forbid")

    x0: FiniteFloat
    y0: FiniteFloat
    x1: FiniteFloat
    y1: FiniteFloat

    def to_box(self) -> Box:
        """Return it as the library has it; ValueError without an area."""
        return Box(self.x0, self.y0, self.x1, self.y1)


class _Prompt(BaseModel):
    model_config = ConfigDict(extra="forbid")

    weight: float = Field(
        1.0,
        ge=-100,
        le=100,
        description="Relative to the other parts; negative for what should not be there.",
    )
    label: str = Field("", max_length=MAX_WORDS, description="A name, for people to read.")
    color: Color | None = Field(None, description="Of the mask that POST /mask draws.")

    @model_validator(mode="after")
    def _check(self):
        if self.weight == 0:
            raise ValueError("a weight of 0 asks for nothing")
        self.to_prompt()
        return self


class BoxPrompt(_Prompt):
    """A box around the object, in pixels of the image."""

    kind: Literal["box"]
    x0: FiniteFloat
    y0: FiniteFloat
    x1: FiniteFloat
    y1: FiniteFloat

    def to_prompt(self) -> Prompt:
        """Return it as the library has it."""
        return Box(self.x0, self.y0, self.x1, self.y1)


class PointsPrompt(_Prompt):
    """Clicks inside (1) and outside (0) of the object, and at choice a box around it."""

    kind: Literal["points"]
    xy: list[Point] = Field(min_length=1, max_length=MAX_POINTS, description="(x, y) in pixels.")
    labels: list[Literal[0, 1]] | None = Field(
        None, max_length=MAX_POINTS, description="1 or 0 for each point; by default all 1."
    )
    box: Sides | None = None

    def to_prompt(self) -> Prompt:
        """Return it as the library has it."""
        return Points(tuple(self.xy), self.labels, self.box and self.box.to_box())


class TextPrompt(_Prompt):
    """Words: with an image they choose a region of it, without one they are searched for."""

    kind: Literal["text"]
    words: Words
    every: bool = Field(False, description="All regions that look like the words, not the best.")

    def to_prompt(self) -> Prompt:
        """Return it as the library has it."""
        return Text(self.words, self.every)


class WholePrompt(_Prompt):
    """The whole image."""

    kind: Literal["whole"]

    def to_prompt(self) -> Prompt:
        """Return it as the library has it."""
        return Whole()


AnyPrompt = Annotated[
    BoxPrompt | PointsPrompt | TextPrompt | WholePrompt, Field(discriminator="kind")
]
