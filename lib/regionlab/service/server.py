"""Connections within limits: what uvicorn leaves open, the protocol here closes.

uvicorn has a deadline for idle connections after an answer, and for nothing before it: a client
that sends half its headers, never reads its answer or never ends its body stays for ever.
"""

import asyncio
import gc
import logging
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from regionlab.service.limits import Limits
from regionlab.util import paths

if TYPE_CHECKING:
    from regionlab.index.index import Index
    from regionlab.models.encoder import Encoder
    from regionlab.models.segmenter import Segmenter

log = logging.getLogger("regionlab.service")

LOOPBACK = ("127.0.0.1", "localhost", "::1")

MAX_HEADERS = 2**15  # bytes of a request's headers
MAX_LINES = 100  # headers of a request
LEAST_CHUNK = 64  # bytes of a chunk on average, from the first thousand on
MAX_PIPELINED = 8  # requests that a client sends before it has its answer
KEEP_ALIVE = 5  # seconds between two requests of a connection
LINGER = 10  # seconds to send the rest of a request that was answered before its end
WRITING = 15  # seconds in which a client must take at least a part of its answer
LEAST_TAKEN = 2**14  # bytes of that part


def serve(
    *,
    index: Path | None = None,
    images: Path | None = None,
    encoder: str = "toyclip",
    segmenter: str = "toysam",
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int = 8000,
    names: Sequence[str] = (),
    seconds: float = 60,
    batch: int = 32,
) -> None:
    """Load the models once, open or build the index, and answer requests until interrupted.

    Parameters
    ----------
    index, images
        An index, or a folder of images, indexed on first use; Toybox's test split if neither.
    encoder, segmenter, device
        As for `load_encoder` and `load_segmenter`.
    host, port
        Where it listens; "0.0.0.0" lets other machines in.
    names
        By which it may be called, beside those of this machine.
    seconds
        Most for a request.
    batch
        Most that is encoded at once.
    """
    from regionlab.index.index import open_index
    from regionlab.models.registry import load_encoder, load_segmenter
    from regionlab.service.app import create_app

    logging.basicConfig(format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    opened = open_index(index) if index else None
    model = load_encoder(encoder, device=device)
    finder = load_segmenter(segmenter, device=device)
    opened = opened or build_own(images, model, finder)
    local = host in LOOPBACK
    app = create_app(
        opened,
        model,
        finder,
        limits=Limits(seconds=seconds),
        hosts=[*LOOPBACK, *names] if local else names or None,
        batch=batch,
    )
    log.info("%r at http://%s:%d", opened, host, port)
    # uvicorn sends itself the signal again once it has stopped: that is no failure
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = configure(
        app,
        host=host,
        port=port,
        access_log=False,  # ours has the times
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    # What is loaded stays: to look through it for garbage at each large request would take
    # longer than the request, and everybody would wait.
    gc.collect()
    gc.freeze()
    uvicorn.Server(config).run()


def build_own(images: Path | None, encoder: "Encoder", segmenter: "Segmenter") -> "Index":
    """Return the index of a folder of pictures, or of Toybox; built where it is not there yet."""
    from regionlab.data.registry import load_collection
    from regionlab.index.build import build_index

    collection = load_collection("folder", images) if images else load_collection("toybox")
    folder = paths.index_folder(collection.name, collection.split, encoder.name, "regions")
    log.info("the index is %s; the first time it takes a while to build", folder)
    return build_index(collection, encoder, folder, segmenter=segmenter)


def configure(app: FastAPI, **options: Any) -> uvicorn.Config:
    """Return how uvicorn serves an application of `create_app` within its limits; its options."""
    limits = app.state.limits
    protocol = type("Protocol", (_BoundedProtocol,), {"limits": limits})
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE,
        limit_concurrency=2 * limits.connections,  # never met, as older ones are closed before
        **options,
    )


class _BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed when it exceeds its times or its headers their size."""

    limits = Limits()

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.touched = self.loop.time()
        self._deadline: asyncio.TimerHandle | None = None
        self._raw = self._body = self._headers = 0  # bytes of the request that is read
        self._chunks = 0
        self._between = self._reading = False
        self._unsent = 0

    # What uvicorn calls

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._expect(self.limits.header_seconds)
        self._close_others()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline:
            self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.touched = self.loop.time()
        if self._between:
            self._between = False
            self._expect(self.limits.header_seconds)
        self._raw += len(data)
        super().data_received(data)
        if self._raw > 2 * self._body + MAX_HEADERS and not self.transport.is_closing():
            self.send_400_response("Headers or chunks are too large.")

    # What the parser calls; what is raised here is answered by 400

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._body = self._headers = self._chunks = 0
        self._reading = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += len(name) + len(value)
        if self._headers > MAX_HEADERS or len(self.headers) >= MAX_LINES:
            raise ValueError("headers are too large")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests before an answer")
        super().on_headers_complete()
        self._expect(self.limits.seconds + WRITING)

    def on_chunk_header(self) -> None:
        """Refuse a body in crumbs: each chunk takes its time, whatever its size."""
        self._chunks += 1
        if self._chunks > 1000 + self._body // LEAST_CHUNK:
            raise ValueError("chunks are too small")

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading = False
        self._raw = 0
        if self.cycle.response_complete:
            self._rest()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        waiting = bool(self.pipeline)
        super().on_response_complete()
        if not waiting:
            self._rest()

    # Deadlines

    def _rest(self) -> None:
        self._between = not self._reading
        self._unsent = self.transport.get_write_buffer_size()
        self._expect(LINGER if self._reading else max(WRITING, KEEP_ALIVE))

    def _expect(self, seconds: float) -> None:
        """Close the connection unless something is finished within so many seconds."""
        if self._deadline:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        taken, self._unsent = self._unsent - unsent, unsent
        if unsent and taken >= LEAST_TAKEN:
            self._expect(WRITING)
        else:
            self.transport.abort()

    @property
    def address(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def is_working(self) -> bool:
        """Whether a request is there as a whole and waits for its answer."""
        return bool(self.cycle) and not self._reading and not self.cycle.response_complete

    def _close_others(self) -> None:
        """If there are too many connections, close some that have been silent for longest.

        They are of the address with the most, and none that waits for its answer.
        """
        if len(self.connections) <= self.limits.connections:
            return
        counts = Counter(one.address for one in self.connections)
        others = [one for one in self.connections if one is not self and not one.is_working]
        others.sort(key=lambda one: (-counts[one.address], one.touched))
        for one in others[: max(1, self.limits.connections // 8)]:  # to look for them takes time
            self.connections.discard(one)  # at once, so that it does not count any more
            one.transport.abort()
