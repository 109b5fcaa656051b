"""Which requests are refused by their headers alone, before anything of them is read."""

import re
from collections.abc import Collection

from starlette.datastructures import Headers

from regionlab.service.limits import Limits

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


def find_fault(
    method: str, headers: Headers, limits: Limits, hosts: Collection[str] | None
) -> Fault | None:
    """Return why a request is refused, None if it may be read.

    Parameters
    ----------
    method
        Such as "POST".
    headers
        All of them, doubles included.
    limits
        For the length of a body.
    hosts
        Names under which the service may be called, without ports; None for any.
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
        return 413, say_too_large(limits)
    return None


def say_too_large(limits: Limits) -> str:
    """Say that a body is too large."""
    return f"the request is too large: at most {limits.body_bytes:,} bytes"


def _find_type_fault(headers: Headers) -> Fault | None:
    types = headers.getlist("content-type")
    if not types and not has_body(headers):
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


def has_body(headers: Headers) -> bool:
    """Tell whether a body is announced."""
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
