"""Forms: multipart/form-data read in bounded time, and the models of requests.

The body is there as a whole and is cut at its boundaries by `bytes.split`: no byte of it runs
through Python, whatever it holds. Text is UTF-8; no other charset that a caller names is used.
"""

import re
from collections.abc import Callable
from io import BytesIO
from typing import Annotated, Literal

from fastapi import HTTPException, Request, Response, UploadFile
from fastapi.routing import APIRoute
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    Json,
    StringConstraints,
    model_validator,
)
from starlette.datastructures import FormData, Headers

from regionlab.data.prompts import Box, Points, Prompt, Text, Whole
from regionlab.service.limits import (
    MAX_JUDGED,
    MAX_K,
    MAX_POINTS,
    MAX_PROMPTS,
    MAX_WORDS,
    SEND_FORM,
    UTF_8,
    read_parameters,
)

MAX_PARTS = 2 * MAX_JUDGED + 50
MAX_FILES = 1
MAX_FIELD = 2**18  # bytes of a field that is no file
MAX_HEAD = 2**11  # bytes of a part's headers
MAX_LINES = 8  # headers of a part
# A quote within quotes has a backslash before it, but a backslash may also be a name's last.
# Each byte is looked at a bounded number of times, whatever it is.
OPTION = re.compile(
    rb"""\s*;\s*(?P<name>[\w*-]+)\s*=\s*"""
    rb"""(?:"(?P<quoted>(?:\\"|[^"])*)"(?=\s*(?:;|$))|(?P<plain>[^\s;"]+))"""
)
NAMELESS = 'a part needs a Content-Disposition of form-data, with "name"'
PLAIN = ("7bit", "8bit", "binary")  # transfer encodings that change nothing


class FormRoute(APIRoute):
    """A route whose form is read here."""

    def get_route_handler(self) -> Callable:
        """Return the handler, given a request that reads its form so."""
        handle = super().get_route_handler()

        async def handle_form(request: Request) -> Response:
            return await handle(FormRequest(request.scope, request.receive))

        return handle_form


class FormRequest(Request):
    """A request that brings a form."""

    async def form(self, **_limits: object) -> FormData:
        """Read the form; HTTPException 400 or 415 if it is none."""
        body = await self.body()
        content_type = self.headers.get("content-type")
        if content_type is None and not body:
            return FormData()
        boundary = (read_parameters(content_type or "") or {}).get("boundary", "")
        return read_form(body, boundary.encode("latin-1"))


class _File(BytesIO):
    _rolled = False  # in memory: UploadFile needs no thread for it


def read_form(body: bytes, boundary: bytes) -> FormData:
    """Return the fields of a form, text as str and files as `UploadFile`.

    HTTPException 400 if it is cut short or malformed, or has too many or too large fields; 415 if a
    part is in another charset than UTF-8, or encoded.
    """
    items: list[tuple[str, str | UploadFile]] = []
    files = 0
    for part in _split(body, b"--" + boundary):
        head, blank, content = part.partition(b"\r\n\r\n")
        if not blank or len(head) > MAX_HEAD:
            raise HTTPException(400, f"a part needs headers, of at most {MAX_HEAD:,} bytes")
        name, filename, headers = _read_head(head)
        if filename is None:
            if (text := _read_text(name, content)) is not None:
                items.append((name, text))
            continue
        files += 1
        if files > MAX_FILES:
            raise HTTPException(400, f"at most {MAX_FILES} file is taken")
        file = UploadFile(_File(content), size=len(content), filename=filename, headers=headers)
        items.append((name, file))
    return FormData(items)


def _split(body: bytes, delimiter: bytes) -> list[bytes]:
    """Return the parts between delimiters; what follows the last one is left out."""
    pieces = body.split(b"\r\n" + delimiter, MAX_PARTS + 1)
    if not pieces[0].startswith(delimiter):
        raise HTTPException(400, "the form does not begin with its boundary")
    pieces[0] = pieces[0][len(delimiter) :]
    if len(pieces) > MAX_PARTS + 1:
        raise HTTPException(400, f"too many fields: at most {MAX_PARTS}")
    for number, piece in enumerate(pieces):
        if piece.startswith(b"--"):
            return [_strip_padding(part) for part in pieces[:number]]
    raise HTTPException(400, "the form is cut short: its last boundary is missing")


def _strip_padding(part: bytes) -> bytes:
    padding, line, rest = part[:MAX_HEAD].partition(b"\r\n")
    if not line or padding.strip(b" \t"):
        raise HTTPException(400, "a boundary is followed by something else than a line's end")
    return part[len(padding) + len(line) :]


def _read_head(head: bytes) -> tuple[str, str | None, Headers]:
    """Return a part's name, its file's name if it is a file, and its headers."""
    raw = []
    lines = head.split(b"\r\n", MAX_LINES)
    if len(lines) > MAX_LINES:
        raise HTTPException(400, f"a part has too many headers: at most {MAX_LINES}")
    for line in lines:
        key, colon, value = line.partition(b":")
        if not colon:
            raise HTTPException(400, "a part has a header without a colon")
        raw.append((key.strip().lower(), value.strip()))
    headers = Headers(raw=raw)
    _check_encoding(headers)
    dispositions = [value for key, value in raw if key == b"content-disposition"]
    if len(dispositions) != 1:
        raise HTTPException(400, "a part needs one Content-Disposition header")
    options = _read_options(dispositions[0])
    if any(b"*" in name for name in options):  # RFC 2231, which RFC 7578 forbids in forms
        raise HTTPException(415, f"{SEND_FORM}, with names as they are")
    if b"name" not in options:
        raise HTTPException(400, NAMELESS)
    filename = options.get(b"filename")
    name = _decode(options[b"name"], "the name of a field")
    return name, None if filename is None else filename.decode("utf-8", "replace"), headers


def _read_options(disposition: bytes) -> dict[bytes, bytes]:
    """Return what a Content-Disposition of form-data says, by lower-case names."""
    kind, semicolon, rest = disposition.partition(b";")
    rest, place, options = (semicolon + rest).rstrip(), 0, {}
    if kind.strip().lower() != b"form-data":
        raise HTTPException(400, NAMELESS)
    while place < len(rest):
        match = OPTION.match(rest, place)
        if match is None or match["name"].lower() in options:
            raise HTTPException(400, "a part has a Content-Disposition that is not well formed")
        plain, quoted = match["plain"], match["quoted"]
        options[match["name"].lower()] = plain if quoted is None else quoted.replace(b'\\"', b'"')
        place = match.end()
    return options


def _check_encoding(headers: Headers) -> None:
    for content_type in headers.getlist("content-type"):
        parameters = read_parameters(content_type)
        charset = "?" if parameters is None else parameters.get("charset", "utf-8")
        if charset.lower() not in UTF_8 or any("*" in name for name in parameters or ()):
            raise HTTPException(415, f"{SEND_FORM}, in all its parts")
    encodings = headers.getlist("content-transfer-encoding") + headers.getlist("content-encoding")
    if any(encoding.lower() not in PLAIN for encoding in encodings):
        raise HTTPException(415, f"{SEND_FORM}, with its parts as they are")


def _read_text(name: str, content: bytes) -> str | None:
    if len(content) > MAX_FIELD:
        raise HTTPException(400, f"the field {name[:80]!r} has more than {MAX_FIELD:,} bytes")
    text = _decode(content, f"the field {name[:80]!r}")
    if name != "_charset_":
        return text
    if text.lower() not in UTF_8:  # HTML's way to say it within the form
        raise HTTPException(415, SEND_FORM)
    return None


def _decode(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise HTTPException(400, f"{what} is not UTF-8") from e


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
