"""Counters and the request log: what was asked, how it ended and how long it took."""

import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


log = logging.getLogger("regionlab.service")


class Counters:
    """How many requests there were since the start, by route and by status.

    Attributes
    ----------
    requests
        By method and route, such as "POST /search"; "other" for what matches no route.
    answers
        By the first digit of the status, such as "2xx"; "hung up" where the client was gone.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.requests: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.running = 0

    def describe(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "uptime_seconds": round(time.monotonic() - self.started, 1),
            "running": self.running,
            "requests": dict(self.requests),
            "answers": dict(self.answers),
        }


class RequestLog:
    """ASGI middleware that counts requests and writes a line for each.

    The line has method, path, status, milliseconds and bytes sent. The query and the body are
    left out: what people look for is nobody's business.
    """

    def __init__(self, app: ASGIApp, counters: Counters):
        self.app, self.counters = app, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and take note of it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status, sent = time.perf_counter(), 0, 0

        async def send_counted(message: Message) -> None:
            nonlocal status, sent
            status = message.get("status", status)
            sent += len(message.get("body", b""))
            await send(message)

        self.counters.running += 1
        try:
            await self.app(scope, receive, send_counted)
        except Exception:
            status = 500
            raise
        finally:
            self.counters.running -= 1
            self._note(scope, status, time.perf_counter() - started, sent)

    def _note(self, scope: Scope, status: int, seconds: float, sent: int) -> None:
        route, method = scope.get("route"), scope["method"]
        # Only what is there is counted by name: there is no end to what else can be asked.
        known = f"{method} {route.path}" if route and method in route.methods else "other"
        self.counters.requests[known] += 1
        self.counters.answers[f"{status // 100}xx" if status else "hung up"] += 1
        # The raw path is percent-encoded: no line breaks get into the log.
        path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")[:200]
        log.info("%s %s %s %.0f ms %d B", method, path, status, 1e3 * seconds, sent)
