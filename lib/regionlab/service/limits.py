"""What a request may ask for, and how a refusal is answered."""

from dataclasses import dataclass

from fastapi.responses import JSONResponse

MAX_K = 100
MAX_PROMPTS = 16
MAX_POINTS = 64  # of one prompt
MAX_WORDS = 300  # characters
MAX_JUDGED = 200  # liked, and as many disliked
MAX_THUMBNAIL = 2048  # pixels of the longer side
MAX_LISTED = 100  # images of the collection at a time


@dataclass(frozen=True)
class Limits:
    """Bounds of one request, and of what the service keeps between requests.

    Attributes
    ----------
    body_bytes
        Of a request.
    pixels
        Of a picture; looked up in its header, before anything is unpacked.
    seconds
        From the first byte of a request to its answer.
    header_seconds, idle_seconds
        Until a request's headers are there, and between two pieces of its body.
    connections
        Open at once; with one more, the one that has been silent for longest is closed.
    reading_bytes
        Of all bodies that are being read or worked on; when they are more, large ones are told
        to come again.
    waiting
        Requests that are computed at once; more are told to come again, and from half as many
        on those of the same visitor.
    visitors, pictures
        How many visitors are remembered, and how many pictures of each, with what the
        segmenter has made of them. The least recently used go first.
    cache_bytes
        Of all pictures that are remembered, as they are and as the segmenter has encoded them.
    working_bytes
        Of the pictures that are worked on at once; further requests wait for room.
    decode_seconds, decode_bytes
        Processor time and memory in which a file that was sent must be unpacked.
    """

    body_bytes: int = 32 * 2**20
    pixels: int = 24_000_000
    seconds: float = 60.0
    header_seconds: float = 10.0
    idle_seconds: float = 10.0
    connections: int = 512
    reading_bytes: int = 256 * 2**20
    waiting: int = 200
    visitors: int = 64
    pictures: int = 4
    cache_bytes: int = 512 * 2**20
    working_bytes: int = 512 * 2**20
    decode_seconds: float = 5.0
    decode_bytes: int = 2 * 2**30

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that is refused, as `schemas.Problem` has it."""
    return JSONResponse({"detail": detail}, status, headers)
