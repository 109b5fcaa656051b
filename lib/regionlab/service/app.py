"""create_app(index, encoder, segmenter): the search service as an ASGI application."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Form, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regionlab import viz
from regionlab.index.index import Index
from regionlab.models.encoder import Encoder
from regionlab.models.segmenter import Segmenter
from regionlab.service.answers import Health, ImageList, MaskAnswer, Problem, SearchAnswer
from regionlab.service.forms import FormRoute, ImageForm, SearchForm
from regionlab.service.inference import ModelRunner
from regionlab.service.limits import (
    FORM,
    MAX_LISTED,
    MAX_THUMBNAIL,
    Counters,
    Limits,
    LimitsMiddleware,
    RequestLog,
    name_visitor,
    problem,
    welcome,
)
from regionlab.service.search import answer_masks, answer_search
from regionlab.service.sessions import Visitor

STATIC = Path(__file__).parent / "static"
WIDGETS = Path(viz.__file__).parent
SHARED = ("picker.js", "picker.css")  # the very files that the notebooks' picker uses
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}

# Images and masks are shown from memory, as blobs.
POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

pages = APIRouter(include_in_schema=False)


@cache
def read_files() -> dict[str, tuple[bytes, str]]:
    """Return the files that are served, by name: no other is ever opened."""
    paths = [path for path in STATIC.iterdir() if path.suffix in TYPES]
    paths += [WIDGETS / name for name in SHARED]
    return {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in paths}


def _send(name: str) -> Response:
    content, media_type = read_files()[name]
    return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})


@pages.get("/")
def get_page(request: Request) -> Response:
    """Return the page to search, with a name for the visitor."""
    return welcome(request, _send("index.html"))


@pages.get("/docs")
def get_docs() -> Response:
    """Return the page that shows the API, as /openapi.json has it."""
    return _send("docs.html")


@pages.get("/static/{name}")
def get_file(name: str) -> Response:
    """Return a file of the pages."""
    if name not in read_files():
        raise HTTPException(404, f"no file {name!r}")
    return _send(name)


class _SecurityHeaders:
    """ASGI middleware that keeps browsers from loading, framing or guessing anything else."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


SHOWN_ERRORS = 3  # of a request that has many


def _document(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


ASKED = _document(400, 403, 404, 408, 413, 415, 422, 429, 503)
READ = _document(400, 403, 408, 413)
questions = APIRouter(route_class=FormRoute)


def create_app(
    index: Index,
    encoder: Encoder,
    segmenter: Segmenter,
    *,
    limits: Limits | None = None,
    hosts: Collection[str] | None = None,
    batch: int = 32,
) -> FastAPI:
    """Make the application that serves an index.

    Parameters
    ----------
    index
        Where is searched.
    encoder, segmenter
        The models, loaded; IndexFolderError if the encoder is not that of the index.
    limits
        What a request may ask for; by default `Limits()`.
    hosts
        Names under which it may be called; None for any.
    batch
        How many images or texts of different requests are encoded at once at most.
    """
    limits = limits or Limits()
    engine = ModelRunner(index, encoder, segmenter, limits, batch=batch)

    @asynccontextmanager
    async def run(_app: FastAPI) -> AsyncIterator[None]:
        engine.decoders.start()
        yield
        engine.close()

    app = FastAPI(
        title="regionlab",
        description="Region-based image retrieval: say which part of a picture you mean.",
        lifespan=run,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
    )
    app.state.engine, app.state.counters, app.state.limits = engine, Counters(), limits
    app.include_router(questions)
    app.include_router(pages)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(MemoryError, _tell_memory)
    app.add_exception_handler(Exception, _tell_failure)
    # The one added last stands first.
    app.add_middleware(LimitsMiddleware, limits=limits, hosts=hosts)
    app.add_middleware(_SecurityHeaders)
    app.add_middleware(RequestLog, counters=app.state.counters)
    return app


def _get_engine(request: Request) -> ModelRunner:
    return request.app.state.engine


def _get_visitor(request: Request) -> Visitor:
    return request.app.state.engine.visitors.get(name_visitor(request))


TheEngine = Annotated[ModelRunner, Depends(_get_engine)]
TheVisitor = Annotated[Visitor, Depends(_get_visitor)]


@questions.post("/search", response_model=SearchAnswer, responses=ASKED)
async def search(
    engine: TheEngine, visitor: TheVisitor, form: Annotated[SearchForm, Form(media_type=FORM)]
):
    """Find the images that hold what is asked for: an image or parts of it, words, or both."""
    return await answer_search(engine, visitor, form)


@questions.post("/mask", response_model=MaskAnswer, responses=ASKED)
async def mask(
    engine: TheEngine, visitor: TheVisitor, form: Annotated[ImageForm, Form(media_type=FORM)]
):
    """Show what prompts mean: a mask of the image for each."""
    return await answer_masks(engine, visitor, form)


@questions.get(
    "/image/{image_id:path}",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **READ, **_document(404, 422, 429)},
)
async def image(
    engine: TheEngine,
    image_id: str,
    size: Annotated[
        int | None, Query(ge=16, le=MAX_THUMBNAIL, description="Of the longer side, in pixels.")
    ] = None,
):
    """Return an image of the collection as JPEG, at choice a thumbnail of it."""
    row = engine.gallery.find(image_id)
    content = await engine.show(row, size)
    headers = {"Cache-Control": "private, max-age=3600"}
    return Response(content, media_type="image/jpeg", headers=headers)


@questions.get("/images", response_model=ImageList, responses=READ | _document(422))
async def images(
    engine: TheEngine,
    start: Annotated[int, Query(ge=0, description="The first one, from 0.")] = 0,
    count: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 24,
):
    """List some images of the collection, in the order of the index."""
    gallery = engine.gallery
    rows = range(min(start, len(gallery)), min(start + count, len(gallery)))
    return {"total": len(gallery), "start": start, "images": list(map(gallery.describe, rows))}


@questions.get("/health", response_model=Health, responses=READ)
async def health(request: Request, engine: TheEngine):
    """Tell how the service is doing."""
    index, visitors = engine.index, engine.visitors
    batchers = {"images": engine.images, "texts": engine.texts}
    return {
        "status": "stopping" if engine.stopping else "ok",
        "collection": index.manifest["collection"],
        "images": len(index),
        "regions": 0 if index.regions is None else len(index.regions),
        "encoder": engine.encoder.fingerprint["model"],
        "segmenter": engine.segmenter.fingerprint["model"],
        "batches": {n: {"calls": b.calls, "items": b.items} for n, b in batchers.items()},
        "visitors": len(visitors),
        "pictures": visitors.pictures,
        **request.app.state.counters.describe(),
    }


async def _tell_invalid(_request: Request, error: RequestValidationError) -> Response:
    """Say in one sentence what is wrong with a request."""
    errors = error.errors()
    told = [
        f"{'.'.join(map(str, e['loc'][1:]))[:80]}: {e['msg'].removeprefix('Value error, ')}"
        for e in errors[:SHOWN_ERRORS]
    ]
    more = len(errors) - len(told)
    return problem(422, "; ".join(told) + (f"; and {more} more" if more else ""))


async def _tell_memory(_request: Request, _error: MemoryError) -> Response:
    return problem(503, "out of memory: send a smaller image, or try again later")


async def _tell_failure(_request: Request, _error: Exception) -> Response:
    """Tell of a fault of ours without its inside, which goes to the log."""
    return problem(500, "the service failed at this request")
