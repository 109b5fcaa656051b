"""Forms: multipart/form-data as the page and scripts send it, read in time that is bounded.

The body is there as a whole and is cut at its boundaries by `bytes.split`: no byte of it runs
through Python, whatever it holds. Text is UTF-8; no other charset that a caller names is used.
"""

import re
from collections.abc import Callable
from io import BytesIO

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData, Headers, UploadFile

from regionlab.service.guard import SEND_FORM, UTF_8, read_parameters
from regionlab.service.limits import MAX_JUDGED

MAX_PARTS = 2 * MAX_JUDGED + 50
MAX_FILES = 1
MAX_FIELD = 2**18  # bytes of a field that is no file
MAX_HEAD = 2**11  # bytes of a part's headers
MAX_LINES = 8  # headers of a part
# A quote within quotes has a backslash before it, but a backslash may also be a name's last.
# Each byte is looked at a bounded number of times, whatever it is.
OPTION = re.compile(
    rb"""\s*;\s*(?P<name>[\w*-]+)\s*=\s*"""
    rb"""(?:"(?P<quoted>(?:\\"|[^"])*)"(?=\s*(?:;|$))|(?P<plain>[^\s;"]+))"""
)
NAMELESS = 'a part needs a Content-Disposition of form-data, with "name"'
PLAIN = ("7bit", "8bit", "binary")  # transfer encodings that change nothing


class FormRoute(APIRoute):
    """A route whose form is read here."""

    def get_route_handler(self) -> Callable:
        """Return the handler, given a request that reads its form so."""
        handle = super().get_route_handler()

        async def handle_form(request: Request) -> Response:
            return await handle(FormRequest(request.scope, request.receive))

        return handle_form


class FormRequest(Request):
    """A request that brings a form."""

    async def form(self, **_limits: object) -> FormData:
        """Read the form; HTTPException 400 or 415 if it is none."""
        body = await self.body()
        content_type = self.headers.get("content-type")
        if content_type is None and not body:
            return FormData()
        boundary = (read_parameters(content_type or "") or {}).get("boundary", "")
        return read_form(body, boundary.encode("latin-1"))


class _File(BytesIO):
    _rolled = False  # in memory: UploadFile needs no thread for it


def read_form(body: bytes, boundary: bytes) -> FormData:
    """Return the fields of a form, text as str and files as `UploadFile`.

    Parameters
    ----------
    body
        As it was sent.
    boundary
        What its parts are divided by.

    Raises
    ------
    HTTPException
        400 if it is cut short or malformed, or has too many or too large fields; 415 if a part
        is in another charset than UTF-8, or encoded.
    """
    items: list[tuple[str, str | UploadFile]] = []
    files = 0
    for part in _split(body, b"--" + boundary):
        head, blank, content = part.partition(b"\r\n\r\n")
        if not blank or len(head) > MAX_HEAD:
            raise HTTPException(400, f"a part needs headers, of at most {MAX_HEAD:,} bytes")
        name, filename, headers = _read_head(head)
        if filename is None:
            if (text := _read_text(name, content)) is not None:
                items.append((name, text))
            continue
        files += 1
        if files > MAX_FILES:
            raise HTTPException(400, f"at most {MAX_FILES} file is taken")
        file = UploadFile(_File(content), size=len(content), filename=filename, headers=headers)
        items.append((name, file))
    return FormData(items)


def _split(body: bytes, delimiter: bytes) -> list[bytes]:
    """Return the parts between delimiters; what follows the last one is left out."""
    pieces = body.split(b"\r\n" + delimiter, MAX_PARTS + 1)
    if not pieces[0].startswith(delimiter):
        raise HTTPException(400, "the form does not begin with its boundary")
    pieces[0] = pieces[0][len(delimiter) :]
    if len(pieces) > MAX_PARTS + 1:
        raise HTTPException(400, f"too many fields: at most {MAX_PARTS}")
    for number, piece in enumerate(pieces):
        if piece.startswith(b"--"):
            return [_strip_padding(part) for part in pieces[:number]]
    raise HTTPException(400, "the form is cut short: its last boundary is missing")


def _strip_padding(part: bytes) -> bytes:
    padding, line, rest = part[:MAX_HEAD].partition(b"\r\n")
    if not line or padding.strip(b" \t"):
        raise HTTPException(400, "a boundary is followed by something else than a line's end")
    return part[len(padding) + len(line) :]


def _read_head(head: bytes) -> tuple[str, str | None, Headers]:
    """Return a part's name, its file's name if it is a file, and its headers."""
    raw = []
    lines = head.split(b"\r\n", MAX_LINES)
    if len(lines) > MAX_LINES:
        raise HTTPException(400, f"a part has too many headers: at most {MAX_LINES}")
    for line in lines:
        key, colon, value = line.partition(b":")
        if not colon:
            raise HTTPException(400, "a part has a header without a colon")
        raw.append((key.strip().lower(), value.strip()))
    headers = Headers(raw=raw)
    _check_encoding(headers)
    dispositions = [value for key, value in raw if key == b"content-disposition"]
    if len(dispositions) != 1:
        raise HTTPException(400, "a part needs one Content-Disposition header")
    options = _read_options(dispositions[0])
    if any(b"*" in name for name in options):  # RFC 2231, which RFC 7578 forbids in forms
        raise HTTPException(415, f"{SEND_FORM}, with names as they are")
    if b"name" not in options:
        raise HTTPException(400, NAMELESS)
    filename = options.get(b"filename")
    name = _decode(options[b"name"], "the name of a field")
    return name, None if filename is None else filename.decode("utf-8", "replace"), headers


def _read_options(disposition: bytes) -> dict[bytes, bytes]:
    """Return what a Content-Disposition of form-data says, by lower-case names."""
    kind, semicolon, rest = disposition.partition(b";")
    rest, place, options = (semicolon + rest).rstrip(), 0, {}
    if kind.strip().lower() != b"form-data":
        raise HTTPException(400, NAMELESS)
    while place < len(rest):
        match = OPTION.match(rest, place)
        if match is None or match["name"].lower() in options:
            raise HTTPException(400, "a part has a Content-Disposition that is not well formed")
        plain, quoted = match["plain"], match["quoted"]
        options[match["name"].lower()] = plain if quoted is None else quoted.replace(b'\\"', b'"')
        place = match.end()
    return options


def _check_encoding(headers: Headers) -> None:
    for content_type in headers.getlist("content-type"):
        parameters = read_parameters(content_type)
        charset = "?" if parameters is None else parameters.get("charset", "utf-8")
        if charset.lower() not in UTF_8 or any("*" in name for name in parameters or ()):
            raise HTTPException(415, f"{SEND_FORM}, in all its parts")
    encodings = headers.getlist("content-transfer-encoding") + headers.getlist("content-encoding")
    if any(encoding.lower() not in PLAIN for encoding in encodings):
        raise HTTPException(415, f"{SEND_FORM}, with its parts as they are")


def _read_text(name: str, content: bytes) -> str | None:
    if len(content) > MAX_FIELD:
        raise HTTPException(400, f"the field {name[:80]!r} has more than {MAX_FIELD:,} bytes")
    text = _decode(content, f"the field {name[:80]!r}")
    if name != "_charset_":
        return text
    if text.lower() not in UTF_8:  # HTML's way to say it within the form
        raise HTTPException(415, SEND_FORM)
    return None


def _decode(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise HTTPException(400, f"{what} is not UTF-8") from e
