"""Counters and the request log: what was asked, how it ended and how long it took."""

import logging
import time
from collections import Counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
