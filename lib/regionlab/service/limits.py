"""What a request may ask for, and the guard at the door that refuses the rest."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
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
    waiting
        Requests that are read or computed at once; more are told to come again.
    visitors, pictures
        How many visitors are remembered, and how many pictures of each, with what the
        segmenter has made of them. The least recently used go first.
    cache_bytes
        Of all pictures that are remembered, as they are and as the segmenter has encoded them.
    working_bytes
        Of the pictures that are worked on at once; further requests wait for room.
    """

    body_bytes: int = 32 * 2**20
    pixels: int = 24_000_000
    seconds: float = 60.0
    waiting: int = 200
    visitors: int = 64
    pictures: int = 4
    cache_bytes: int = 512 * 2**20
    working_bytes: int = 512 * 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")


class Guard:
    """ASGI middleware that refuses what is too large, too slow, too much or from elsewhere.

    Parameters
    ----------
    app
        What it stands before.
    limits
        The bounds.
    hosts
        Names under which the service may be called, without ports; None for any. A page that
        somebody else's name server has pointed at this machine is kept out by it.
    """

    def __init__(self, app: ASGIApp, limits: Limits, hosts: Collection[str] | None = None):
        self.app, self.limits, self.hosts = app, limits, hosts
        self.busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        refusal = self._refuse(scope["method"], Headers(scope=scope))
        if refusal:
            return await refusal(scope, receive, send)
        self.busy += 1
        try:
            await self._pass_on(scope, receive, send)
        finally:
            self.busy -= 1

    def _refuse(self, method: str, headers: Headers) -> JSONResponse | None:
        if self.hosts is not None and _get_host(headers) not in self.hosts:
            return problem(400, "the service is not known under this name")
        if method == "POST" and headers.get("sec-fetch-site") == "cross-site":
            return problem(403, "a page of another site may not ask here")
        length = headers.get("content-length", "0")
        # As text first: Python does not turn thousands of digits into a number.
        if not length.isdecimal() or len(length) > 15 or int(length) > self.limits.body_bytes:
            return problem(413, self._say_too_large())
        if method == "POST" and self.busy >= self.limits.waiting:
            return problem(429, "too many requests at once, try again", {"Retry-After": "1"})
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        read, started = 0, False

        async def receive_limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.limits.body_bytes:  # a body that did not tell its length
                raise HTTPException(413, self._say_too_large())
            return message

        async def send_watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self.limits.seconds):
                await self.app(scope, receive_limited, send_watched)
        except TimeoutError:
            if started:
                raise
            refusal = problem(408, f"not done within {self.limits.seconds:g} seconds")
            await refusal(scope, receive, send)

    def _say_too_large(self) -> str:
        return f"the request is too large: at most {self.limits.body_bytes:,} bytes"


class Room:
    """A number of bytes that may be in use at once.

    For the event loop of one thread.
    """

    def __init__(self, size: int):
        self.size = self.free = size
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait until so many bytes are free, and keep them from others in the meantime.

        Who wants more than there is gets all of it.
        """
        size = min(size, self.size)
        async with self._changed:
            await self._changed.wait_for(lambda: self.free >= size)
            self.free -= size
        try:
            yield
        finally:
            async with self._changed:
                self.free += size
                self._changed.notify_all()


def _get_host(headers: Headers) -> str | None:
    """Return the name that a request calls the service by, without the port."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:  # such as an open bracket
        return None


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that is refused, as `schemas.Problem` has it."""
    return JSONResponse({"detail": detail}, status, headers)
