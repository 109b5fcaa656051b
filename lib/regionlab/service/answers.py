"""What the service answers: the models that the page of its API is generated from."""

from typing import Literal

from pydantic import (
    BaseModel,
    Field,
    create_model,
)

from regionlab.search.scoring import TERMS


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
