"""create_app(index, encoder, segmenter): the search service as an ASGI application."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Form, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from regionlab.embedding import Encoder
from regionlab.index import Index
from regionlab.masking import Segmenter
from regionlab.service import pages
from regionlab.service.cookies import name_visitor
from regionlab.service.counters import Counters, RequestLog
from regionlab.service.engine import Engine
from regionlab.service.forms import FormRoute
from regionlab.service.guard import Guard
from regionlab.service.headers import FORM
from regionlab.service.limits import MAX_LISTED, MAX_THUMBNAIL, Limits, problem
from regionlab.service.previews import answer_masks
from regionlab.service.schemas import (
    Health,
    ImageForm,
    ImageList,
    MaskAnswer,
    Problem,
    SearchAnswer,
    SearchForm,
)
from regionlab.service.searching import answer_search
from regionlab.service.visitors import Visitor

SHOWN_ERRORS = 3  # of a request that has many


def _document(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


ASKED = _document(400, 403, 404, 408, 413, 415, 422, 429, 503)
READ = _document(400, 403, 408, 413)
router = APIRouter(route_class=FormRoute)


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
        The models, loaded; the encoder is that of the index.
    limits
        What a request may ask for; by default `Limits()`.
    hosts
        Names under which it may be called; None for any.
    batch
        How many pictures or texts of different requests are encoded at once at most.

    Raises
    ------
    IndexFolderError
        If the index is by another model than the encoder's.
    """
    limits = limits or Limits()
    engine = Engine(index, encoder, segmenter, limits, batch=batch)

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
    app.include_router(router)
    app.include_router(pages.router)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(MemoryError, _tell_memory)
    app.add_exception_handler(Exception, _tell_failure)
    # The one added last stands first.
    app.add_middleware(Guard, limits=limits, hosts=hosts)
    app.add_middleware(pages.SecurityHeaders)
    app.add_middleware(RequestLog, counters=app.state.counters)
    return app


def _get_engine(request: Request) -> Engine:
    return request.app.state.engine


def _get_visitor(request: Request) -> Visitor:
    return request.app.state.engine.visitors.get(name_visitor(request))


TheEngine = Annotated[Engine, Depends(_get_engine)]
TheVisitor = Annotated[Visitor, Depends(_get_visitor)]


@router.post("/search", response_model=SearchAnswer, responses=ASKED)
async def search(
    engine: TheEngine, visitor: TheVisitor, form: Annotated[SearchForm, Form(media_type=FORM)]
):
    """Find the images that hold what is asked for: an image or parts of it, words, or both."""
    return await answer_search(engine, visitor, form)


@router.post("/mask", response_model=MaskAnswer, responses=ASKED)
async def mask(
    engine: TheEngine, visitor: TheVisitor, form: Annotated[ImageForm, Form(media_type=FORM)]
):
    """Show what prompts mean: a mask of the image for each."""
    return await answer_masks(engine, visitor, form)


@router.get(
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


@router.get("/images", response_model=ImageList, responses=READ | _document(422))
async def images(
    engine: TheEngine,
    start: Annotated[int, Query(ge=0, description="The first one, from 0.")] = 0,
    count: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 24,
):
    """List some images of the collection, in the order of the index."""
    gallery = engine.gallery
    rows = range(min(start, len(gallery)), min(start + count, len(gallery)))
    return {"total": len(gallery), "start": start, "images": list(map(gallery.describe, rows))}


@router.get("/health", response_model=Health, responses=READ)
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
    """Say that a picture needs more memory than there is at the moment."""
    return problem(503, "out of memory: send a smaller image, or try again later")


async def _tell_failure(_request: Request, _error: Exception) -> Response:
    """Tell of a fault of ours without its inside, which goes to the log."""
    return problem(500, "the service failed at this request")
