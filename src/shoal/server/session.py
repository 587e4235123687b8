"""Being signed in: pages show their token in a cookie, since a stream of events carries no headers of theirs.

The cookie holds the API token, so that whatever ends the token ends the session. Scripts cannot read it (HttpOnly) and
no page of another site makes a browser send it (SameSite=Strict). Pages of the same machine on another port are of the
same site, so a call that changes something must come from a page of this very origin too (Fetch Metadata,
https://www.w3.org/TR/fetch-metadata/, or the Origin header where a browser has none).
"""

from urllib.parse import urlsplit

from fastapi import Request, Response

from shoal.core.errors import Forbidden

COOKIE = "shoal_session"
READING = frozenset({"GET", "HEAD"})


def token(request: Request) -> str | None:
    """Return the token of a signed-in page, None without one.

    Raises Forbidden when the call would change something and does not come from a page of this origin.
    """
    found = request.cookies.get(COOKIE)
    if found and request.method not in READING and not own(request):
        raise Forbidden(
            f"{request.method} {request.url.path} with a session, from a page of another origin",
            "call with the header 'Authorization: Bearer TOKEN'",
        )
    return found or None


def own(request: Request) -> bool:
    """Whether a browser says that a call comes from a page of this origin."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


def begin(request: Request, response: Response, secret: str) -> None:
    """Sign a page in, until its browser is closed or the token ends."""
    response.set_cookie(
        COOKIE, secret, path="/", httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )


def end(request: Request, response: Response) -> None:
    """Sign a page out."""
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=request.url.scheme == "https")
