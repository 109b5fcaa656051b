"""Guard: ASGI middleware that refuses what is too large, too slow, too much or from elsewhere.

A request is first read as a whole, then computed. Reading costs nothing but the bytes that have
come, so who sends slowly takes no place of those whose request is there.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regionlab.service.cookies import keep_own_cookie, name_visitor
from regionlab.service.headers import READING, find_fault, say_too_large
from regionlab.service.limits import Limits, problem
from regionlab.service.room import begin_work, when_done

Client = tuple[str, str]  # address, and the name in the cookie
COSTLY = "/image/"  # what costs work though it is only read
AT_ONCE = 32  # requests of one visitor that go on at once, a batch; others wait their turn
SMALL = 2**20  # bytes of a body that is read however much else is


class HungUpError(Exception):
    """The client has hung up before its request was there."""


class Guard:
    """Reads requests within their limits, and passes on those that may be computed.

    Parameters
    ----------
    app
        What it stands before.
    limits
        The bounds.
    hosts
        Names under which the service may be called, without ports; None for any. A page that
        somebody else's name server has pointed at this machine is kept out by it.

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
                raise HTTPException(413, say_too_large(self.limits))
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
    """Return the address of who asks and the visitor's name."""
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
