"""Limits of requests, the middleware that keeps them, and the log of what was asked.

A request is first read as a whole, then computed. Reading costs nothing but the bytes that have
come, so who sends slowly takes no place of those whose request is there.
"""

import asyncio
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regionlab.service.work import begin_work, when_done

log = logging.getLogger("regionlab.service")

Client = tuple[str, str]  # address, and the name in the cookie
COSTLY = "/image/"  # what costs work though it is only read
AT_ONCE = 32  # requests of one visitor that go on at once, a batch; others wait their turn
SMALL = 2**20  # bytes of a body that is read however much else is

COOKIE = "visitor"
NAME = re.compile(r"[\w-]{16,64}", re.ASCII)
ANONYMOUS = ""  # all who bring no cookie, such as scripts, are one visitor
OWN = re.compile(rb"(?:^|;)[ \t]*visitor=([\w-]{16,64})(?=[ \t]*(?:;|$))")

Fault = tuple[int, str]  # status and reason

HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:(?P<port>\d{1,5}))?", re.I | re.A)
ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>.+)", re.I | re.A)
DEFAULT_PORTS = {"http": "80", "https": "443"}
# RFC 2046's boundary, and nothing beside it but the name of a charset.
PARAMETER = re.compile(
    r"""\s*;\s*(?P<name>[\w*-]+)\s*=\s*(?:"(?P<quoted>[^"\\]*)"|(?P<plain>[^\s;"]*))""", re.A
)
BOUNDARY = re.compile(r"[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]", re.A)
UTF_8 = ("utf-8", "utf8", "us-ascii", "ascii")
FORM = "multipart/form-data"
SEND_FORM = f"send {FORM}; charset=utf-8"
READING = ("GET", "HEAD")

MAX_K = 100
MAX_PROMPTS = 16
MAX_POINTS = 64  # of one prompt
MAX_WORDS = 300  # characters
MAX_JUDGED = 200  # liked, and as many disliked
MAX_THUMBNAIL = 2048  # pixels of the longer side
MAX_LISTED = 100  # images of the collection at a time


@dataclass(frozen=True)
class Limits:
    """Bounds of one request, and of what the service keeps between requests; all above 0."""

    body_bytes: int = 32 * 2**20
    pixels: int = 24_000_000  # of an image; looked up in its header, before anything is unpacked
    seconds: float = 60.0  # from the first byte of a request to its answer
    header_seconds: float = 10.0  # until a request's headers are there
    idle_seconds: float = 10.0  # between two pieces of its body
    connections: int = 512  # with one more, the one that has been silent for longest is closed
    reading_bytes: int = 256 * 2**20  # of all bodies; when they are more, large ones are refused
    waiting: int = 200  # requests computed at once, half as many of one visitor; others are refused
    visitors: int = 64  # remembered; the least recently used go first
    pictures: int = 4  # remembered of each, with what the segmenter has made of them
    cache_bytes: int = 512 * 2**20  # of all images remembered, and as the segmenter encodes them
    working_bytes: int = 512 * 2**20  # of the images worked on at once; other requests wait
    decode_seconds: float = 5.0  # of a processor, in which a file must be unpacked
    decode_bytes: int = 2 * 2**30  # of memory

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that is refused, as `answers.Problem` has it."""
    return JSONResponse({"detail": detail}, status, headers)


class Counters:
    """How many requests there were since the start, by route and by status."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.requests: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.running = 0

    def describe(self) -> dict[str, Any]:
        """Return the counts as `answers.Health` has them."""
        return {
            "uptime_seconds": round(time.monotonic() - self.started, 1),
            "running": self.running,
            "requests": dict(self.requests),
            "answers": dict(self.answers),
        }


class RequestLog:
    """ASGI middleware that counts requests and writes a line for each.

    The query and the body are left out: what people look for is nobody's business.
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


def keep_own_cookie(scope: Scope) -> None:
    """Take all cookies but ours out of a request's headers.

    Python's parser, which every route runs, takes quadratic time for backslashes within quotes
    (CVE-2024-7592).
    """
    headers = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
    brought = b";".join(value for key, value in scope["headers"] if key == b"cookie")
    if own := OWN.search(brought):
        headers.append((b"cookie", COOKIE.encode() + b"=" + own[1]))
    scope["headers"] = headers


def name_visitor(request: Request) -> str:
    """Return the name in the cookie; `ANONYMOUS` if there is none, or none of ours."""
    name = request.cookies.get(COOKIE, "")
    return name if NAME.fullmatch(name) else ANONYMOUS


def welcome(request: Request, response: Response) -> Response:
    """Give a visitor without a name one, for this browser session."""
    if name_visitor(request) == ANONYMOUS:
        response.set_cookie(COOKIE, secrets.token_urlsafe(24), httponly=True, samesite="strict")
    return response


def find_fault(
    method: str, headers: Headers, limits: Limits, hosts: Collection[str] | None
) -> Fault | None:
    """Return status and reason why a request is refused, None if it may be read.

    `headers` are all of them, doubles included; `hosts` the names, without ports, under which the
    service may be called, None for any.
    """
    return (
        _find_host_fault(headers, hosts)
        or _find_origin_fault(method, headers)
        or _find_length_fault(headers, limits)
        or (None if method in READING else _find_type_fault(headers))
    )


# Who asks, and under which name


def _find_host_fault(headers: Headers, hosts: Collection[str] | None) -> Fault | None:
    said = headers.getlist("host")
    host = HOST.fullmatch(said[0]) if len(said) == 1 else None
    if host is None:
        return 400, "exactly one Host header is needed, a name and at choice a port"
    if hosts is not None and host["name"].strip("[]").lower() not in hosts:
        return 400, "the service is not known under this name"
    return None


def _find_origin_fault(method: str, headers: Headers) -> Fault | None:
    """Return why a page may not ask: only the service's own pages may, as far as it shows.

    Browsers name the asking page's origin on all that is not read alone, whatever its address;
    the Sec-Fetch headers come only over HTTPS and on loopback, but with pictures and frames too.
    """
    foreign = 403, "a page of another site may not ask here"
    origins = headers.getlist("origin")
    if len(origins) > 1 or (origins and not _is_same(origins[0], headers["host"])):
        return foreign
    # A link followed to a page of ours is no page's question.
    followed = headers.get("sec-fetch-mode") == "navigate" and (
        headers.get("sec-fetch-dest", "document") == "document"
    )
    own = all(site in ("same-origin", "none") for site in headers.getlist("sec-fetch-site"))
    return None if own or (followed and method in READING) else foreign


def _is_same(origin: str, host: str) -> bool:
    parts = ORIGIN.fullmatch(origin)
    if parts is None:  # such as null
        return False
    default = DEFAULT_PORTS[parts["scheme"].lower()]
    return _name(parts["host"], default) == _name(host, default)


def _name(host: str, default: str) -> tuple[str, str] | None:
    parts = HOST.fullmatch(host)
    return parts and (parts["name"].lower(), parts["port"] or default)


# What it brings


def _find_length_fault(headers: Headers, limits: Limits) -> Fault | None:
    lengths = headers.getlist("content-length")
    # As text first: Python does not turn thousands of digits into a number.
    right = all(n.isascii() and n.isdecimal() and len(n) <= 15 for n in lengths)
    if len(lengths) > 1 or not right or any(int(n) > limits.body_bytes for n in lengths):
        return 413, _say_too_large(limits)
    return None


def _say_too_large(limits: Limits) -> str:
    return f"the request is too large: at most {limits.body_bytes:,} bytes"


def _find_type_fault(headers: Headers) -> Fault | None:
    types = headers.getlist("content-type")
    if not types and not _has_body(headers):
        return None
    if len(types) != 1 or types[0].partition(";")[0].strip().lower() != FORM:
        return 415, SEND_FORM
    encodings = [*headers.getlist("content-encoding"), *headers.getlist("transfer-encoding")]
    if any(encoding.strip().lower() not in ("identity", "chunked") for encoding in encodings):
        return 415, f"{SEND_FORM}, not compressed"
    parameters = read_parameters(types[0])
    if parameters is None or not parameters.keys() <= {"boundary", "charset"}:
        return 415, f"{SEND_FORM}, with no other parameter than boundary"
    if parameters.get("charset", "utf-8").lower() not in UTF_8:
        return 415, SEND_FORM
    if not BOUNDARY.fullmatch(parameters.get("boundary", "")):
        return 400, f"{FORM} needs a boundary of 1 to 70 characters"
    return None


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0").strip("0") != "" or "transfer-encoding" in headers


def read_parameters(content_type: str) -> dict[str, str] | None:
    """Return the parameters of a media type by name; None if they are not well formed."""
    rest = content_type.partition(";")
    text, found = rest[1] + rest[2], {}
    place = 0
    while place < len(text.rstrip()):
        match = PARAMETER.match(text, place)
        if match is None or match["name"].lower() in found:
            return None
        plain = match["plain"] if match["quoted"] is None else match["quoted"]
        found[match["name"].lower()] = plain
        place = match.end()
    return found


class HungUpError(Exception):
    """The client has hung up before its request was there."""


class LimitsMiddleware:
    """ASGI middleware that reads requests within limits, and passes on what may be computed.

    Parameters
    ----------
    hosts
        Names under which the service may be called, without ports; None for any. It keeps out a
        page that somebody else's name server has pointed at this machine.

    Attributes
    ----------
    busy
        Requests that are computed; those that were given up count until their threads end.
    held
        Bytes of the bodies of all requests.
    """

    def __init__(self, app: ASGIApp, limits: Limits, hosts: Collection[str] | None = None):
        self.app, self.limits, self.hosts = app, limits, hosts
        self.busy = self.held = 0
        self.shares: Counter[Client] = Counter()  # of `busy`, by visitor
        self.turns: dict[Client, asyncio.Semaphore] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        keep_own_cookie(scope)
        started = False

        async def send_watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        fault = find_fault(scope["method"], Headers(scope=scope), self.limits, self.hosts)
        refusal = fault and problem(*fault)
        try:
            if refusal is None:
                async with asyncio.timeout(self.limits.seconds):
                    with begin_work():
                        refusal = await self._pass_on(scope, receive, send_watched)
        except HungUpError:
            return
        except TimeoutError:
            if started:
                raise
            refusal = problem(408, f"not done within {self.limits.seconds:g} seconds")
        except HTTPException as e:
            refusal = problem(e.status_code, e.detail, e.headers)
        if refusal:
            await refusal(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> JSONResponse | None:
        """Read a request and have it computed; return the refusal if there are too many."""
        with self._hold() as hold:
            body = None
            if scope["method"] not in READING:
                body = await self._read(receive, hold)
            client = _find_client(scope)
            if _costs_work(scope) and self._is_full(client):
                return problem(429, "too many requests at once, try again", {"Retry-After": "1"})
            async with self._take_place(client):
                await self.app(scope, _replay(body, receive), send)
        return None

    # Reading

    @contextmanager
    def _hold(self) -> Iterator[list[int]]:
        """Count the bytes that are added to a list as held until the request's work ends."""
        sizes: list[int] = []
        try:
            yield sizes
        finally:
            when_done(lambda: self._let_go(sum(sizes)))

    def _let_go(self, size: int) -> None:
        self.held -= size

    async def _read(self, receive: Receive, sizes: list[int]) -> bytes:
        body, more = bytearray(), True
        while more:
            message = await self._receive(receive)
            piece, more = message.get("body", b""), message.get("more_body", False)
            body += piece
            sizes.append(len(piece))
            self.held += len(piece)
            if len(body) > self.limits.body_bytes:  # a body that did not tell its length
                raise HTTPException(413, _say_too_large(self.limits))
            if self.held > self.limits.reading_bytes and len(body) > SMALL:
                reason = "too many large requests at once, try again"
                raise HTTPException(429, reason, {"Retry-After": "1"})
        return bytes(body)

    async def _receive(self, receive: Receive) -> Message:
        wait = asyncio.timeout(self.limits.idle_seconds)
        try:
            async with wait:
                message = await receive()
        except TimeoutError as e:
            if not wait.expired():
                raise
            reason = f"nothing has come for {self.limits.idle_seconds:g} seconds"
            raise HTTPException(408, reason) from e
        if message["type"] == "http.disconnect":
            raise HungUpError
        return message

    # Computing

    def _is_full(self, client: Client) -> bool:
        most = self.limits.waiting
        return self.busy >= most or self.shares[client] >= -(-most // 2)

    @asynccontextmanager
    async def _take_place(self, client: Client) -> AsyncIterator[None]:
        """Count a request as computed until its work ends, and wait for the visitor's turn."""
        self.busy += 1
        self.shares[client] += 1
        try:
            async with self.turns.setdefault(client, asyncio.Semaphore(AT_ONCE)):
                yield
        finally:
            when_done(lambda: self._leave(client))

    def _leave(self, client: Client) -> None:
        self.busy -= 1
        self.shares[client] -= 1
        if not self.shares[client]:
            del self.shares[client], self.turns[client]


def _find_client(scope: Scope) -> Client:
    """Return the address and the name in the cookie."""
    client = scope.get("client")
    return client[0] if client else "", name_visitor(Request(scope))


def _costs_work(scope: Scope) -> bool:
    return scope["method"] not in READING or scope["path"].startswith(COSTLY)


def _replay(body: bytes | None, receive: Receive) -> Receive:
    """Return a `receive` that gives a body which was read, then what comes after it."""
    left = [] if body is None else [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return left.pop() if left else await receive()

    return receive_again
