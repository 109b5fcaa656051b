"""Who is asking: a name by chance in a cookie, so that nobody gets another's pictures."""

import re
import secrets

from fastapi import Request, Response

COOKIE = "visitor"
NAME = re.compile(r"[\w-]{16,64}", re.ASCII)
ANONYMOUS = ""  # all who bring no cookie, such as scripts, are one visitor


def name_visitor(request: Request) -> str:
    """Return the name in the cookie; `ANONYMOUS` if there is none, or none of ours."""
    name = request.cookies.get(COOKIE, "")
    return name if NAME.fullmatch(name) else ANONYMOUS


def welcome(request: Request, response: Response) -> Response:
    """Give a visitor without a name one, for this browser session."""
    if name_visitor(request) == ANONYMOUS:
        response.set_cookie(COOKIE, secrets.token_urlsafe(24), httponly=True, samesite="strict")
    return response
