"""The page, the API's page, and what they load: nothing from another host."""

from functools import cache
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regionlab import widgets
from regionlab.service.cookies import welcome

STATIC = Path(__file__).parent / "static"
WIDGETS = Path(widgets.__file__).parent
SHARED = ("picker.js", "picker.css")  # the very files that the notebooks' picker uses
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}

# Pictures and masks are shown from memory, as blobs.
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

router = APIRouter(include_in_schema=False)


@cache
def read_files() -> dict[str, tuple[bytes, str]]:
    """Return the files that are served, by name: no other is ever opened."""
    paths = [path for path in STATIC.iterdir() if path.suffix in TYPES]
    paths += [WIDGETS / name for name in SHARED]
    return {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in paths}


def _send(name: str) -> Response:
    content, media_type = read_files()[name]
    return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})


@router.get("/")
def get_page(request: Request) -> Response:
    """Return the page to search, with a name for the visitor."""
    return welcome(request, _send("index.html"))


@router.get("/docs")
def get_docs() -> Response:
    """Return the page that shows the API, as /openapi.json has it."""
    return _send("docs.html")


@router.get("/static/{name}")
def get_file(name: str) -> Response:
    """Return a file of the pages."""
    if name not in read_files():
        raise HTTPException(404, f"no file {name!r}")
    return _send(name)


class SecurityHeaders:
    """ASGI middleware that keeps browsers from loading, framing or guessing anything else."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and add to its answer's headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)
