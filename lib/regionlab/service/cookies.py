"""Who is asking: a name by chance in a cookie, so that nobody gets another's pictures."""

import re
import secrets

from fastapi import Request, Response
from starlette.types import Scope

COOKIE = "visitor"
NAME = re.compile(r"[\w-]{16,64}", re.ASCII)
ANONYMOUS = ""  # all who bring no cookie, such as scripts, are one visitor
OWN = re.compile(rb"(?:^|;)[ \t]*visitor=([\w-]{16,64})(?=[ \t]*(?:;|$))")


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
