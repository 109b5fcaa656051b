"""What goes in and what comes out: the models that the API's page is generated from."""

from typing import Annotated, Literal

from fastapi import UploadFile
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    Json,
    StringConstraints,
    create_model,
    model_validator,
)

from regionlab.data.prompts import Box, Points, Prompt, Text, Whole
from regionlab.search.scoring import TERMS
from regionlab.service.limits import MAX_JUDGED, MAX_K, MAX_POINTS, MAX_PROMPTS, MAX_WORDS

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


Id = Annotated[str, Field(min_length=1, max_length=500)]
Prompts = Annotated[list[AnyPrompt], Field(max_length=MAX_PROMPTS)]
EXAMPLE = '[{"kind": "box", "x0": 20, "y0": 30, "x1": 90, "y1": 120}]'


# What goes in


class ImageForm(BaseModel):
    """An image, by its file or by its id."""

    model_config = ConfigDict(extra="forbid")

    image: UploadFile | None = Field(None, description="A picture, as a file.")
    image_id: Id | None = Field(
        None,
        description="In place of the file: an image of the collection, or the `image_id` that "
        "an answer gave to the file. Files are forgotten after a while (404): send it again.",
    )
    prompts: Json[Prompts] = Field(
        [], description="JSON: which parts of the image are meant.", examples=[EXAMPLE]
    )


class SearchForm(ImageForm):
    """What to look for, and how."""

    words: Words | None = Field(
        None, description="Words that the images found should fit, beside image and prompts."
    )
    words_weight: float = Field(1.0, gt=0, le=100, description="Of the words, beside the prompts.")
    k: int = Field(10, ge=1, le=MAX_K, description="How many images.")
    target: Literal["regions", "images", "both"] | None = Field(
        None,
        description="What each part is compared with: the regions of the images, the whole "
        "images, or both. By default regions if one is asked for.",
    )
    aggregation: Literal["match", "mean"] = Field(
        "match",
        description="Several parts: each needs a region of its own, or their mean needs one.",
    )
    image_weight: float = Field(0.5, ge=0, le=1, description="Of the whole image, in `both`.")
    where: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_WORDS,
        description="Only images whose columns match, such as `label == 'cat'`.",
    )
    alpha: float = Field(1.0, ge=0, le=100, description="Weight of the similarity.")
    beta: float = Field(
        0.0, ge=0, le=100, description="Weight of the overlap with the prompts' boxes (IoU)."
    )
    rol_region: Literal["similar", "overlap", "whole"] = Field(
        "similar", description="Whose overlap counts, where beta is above 0."
    )
    exclude_self: bool = Field(
        True, description="Leave out the query's own image, if it is one of the collection."
    )
    liked: list[Id] = Field(
        [], max_length=MAX_JUDGED, description="Images that were right, by their or a region's id."
    )
    disliked: list[Id] = Field([], max_length=MAX_JUDGED, description="Images that were wrong.")
    feedback: Literal["rocchio", "logistic"] = Field(
        "rocchio", description="How the query learns from what is liked and disliked."
    )


# What comes out


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class Rle(BaseModel):
    """A mask as COCO's compressed RLE."""

    size: tuple[int, int] = Field(description="Height and width in pixels.")
    counts: str


class Mask(BaseModel):
    """What a prompt became."""

    error: str | None = Field(None, description="Why there is no mask.")
    quality: float | None = Field(None, description="IoU as the segmenter predicts it.")
    area: int = Field(0, description="In pixels.")
    box: tuple[float, float, float, float] | None = Field(None, description="XYXY in pixels.")
    rle: Rle | None = None
    png: str | None = Field(None, description="A see-through layer for the image, in base64.")


class MaskAnswer(BaseModel):
    """The masks of an image, one a prompt."""

    image_id: str = Field(description="Say this in place of the file next time.")
    width: int
    height: int
    masks: list[Mask]


class QueryPart(BaseModel):
    """One thing that was looked for."""

    label: str
    weight: float
    box: tuple[float, float, float, float] | None = Field(
        None, description="XYXY in pixels of the query's image; none for words."
    )


class Match(BaseModel):
    """The region of a result that answers a part of the query."""

    part: int = Field(description="Which part, from 0.")
    region_id: str
    similarity: float = Field(description="Cosine of the part and the region.")
    box: tuple[float, float, float, float] = Field(description="XYXY in pixels.")
    area: int = Field(description="In pixels.")
    rle: Rle
    outline: str = Field(description="SVG path in pixels of the image.")


Terms = create_model(
    "Terms",
    __doc__="The terms of a score, already weighted: they sum to it.",
    **{name: (float, Field(description=says)) for name, says in TERMS.items()},
)


class ListedImage(BaseModel):
    """An image of the collection."""

    image_id: str
    name: str = Field(description="Its file's name.")
    width: int
    height: int
    image_url: str
    thumbnail_url: str


class Result(ListedImage):
    """An image found."""

    rank: int = Field(description="From 1.")
    score: float = Field(description="Higher is better.")
    terms: Terms
    regions: list[Match]


class Seconds(BaseModel):
    """Where the time went."""

    read: float = Field(description="Unpack the picture.")
    segment: float = Field(description="From prompts to masks, with the wait for the model.")
    encode: float = Field(description="From masks and words to vectors, with the wait.")
    search: float = Field(description="From vectors to the ranking.")
    describe: float = Field(description="From the ranking to this answer.")
    total: float


class SearchAnswer(BaseModel):
    """The images found, best first."""

    image_id: str | None = Field(description="Say this in place of the file next time.")
    parts: list[QueryPart]
    target: str
    terms: dict[str, str] = Field(description="What each term of a score says, by its name.")
    judged: int = Field(description="How many images are liked or disliked.")
    results: list[Result]
    seconds: Seconds


class ImageList(BaseModel):
    """Some images of the collection."""

    total: int
    start: int
    images: list[ListedImage]


class Health(BaseModel):
    """How the service is doing."""

    status: Literal["ok", "stopping"]
    collection: str
    images: int
    regions: int
    encoder: str
    segmenter: str
    uptime_seconds: float
    running: int = Field(description="Requests being answered.")
    requests: dict[str, int] = Field(description="Since the start, by route.")
    answers: dict[str, int] = Field(description="Since the start, by status.")
    batches: dict[str, dict[str, int]] = Field(
        description="Calls of the encoder, and the items that came in them."
    )
    visitors: int
    pictures: int = Field(description="Pictures remembered for the visitors.")
