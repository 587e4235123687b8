"""What a caller makes of an address, a token and an answer before it trusts them: nothing is inflated or unbounded."""

import httpx

from shoal.core.errors import (
    BadRequest,
    BadSignature,
    ConfigurationError,
    Conflict,
    NotACoordinator,
    ShoalError,
    TooLarge,
    Unreachable,
    from_code,
)
from shoal.wire.messages import ErrorMessage, T, decode

MAX_REPLY = 64 << 20
"""Largest reply to a message in bytes: a task's versions, devices or tasks, all of them."""

CHECK_ADDRESS = "check that the address is a Shoal coordinator's, and that nothing stands between"


def address(url: str) -> str:
    """Return a coordinator's address without a slash at its end. Raises ConfigurationError for what cannot be one."""
    try:
        parsed = httpx.URL(url.rstrip("/"))
        if parsed.scheme in ("http", "https") and parsed.host and not set(url) & set(" \t\r\n"):
            return url.rstrip("/")
    except httpx.InvalidURL:
        pass
    raise ConfigurationError(f"no coordinator can be at {url!r}", 'give an address such as "http://127.0.0.1:8080"')


def bearer(token: str) -> str:
    """Return the header that shows a token. Raises ConfigurationError, which does not, for what cannot be one."""
    if not token or not all("!" <= sign <= "~" for sign in token):
        raise ConfigurationError(
            f"a token of {len(token)} signs, not all of which can stand in one",
            "copy it again, without spaces and line ends",
        )
    return f"Bearer {token}"


def seconds(text: str) -> float:
    """Return for how long an answer was held, as it says; 0 when it says nothing sensible."""
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


def whole(response: httpx.Response) -> bytes:
    """Read a reply as it came over the line. Raises TooLarge beyond MAX_REPLY."""
    received = bytearray()
    for piece in response.iter_raw():
        received += piece
        if len(received) > MAX_REPLY:
            raise TooLarge(f"a reply of more than {MAX_REPLY} bytes from {response.url}", "ask for less")
    return bytes(received)


def read(content: bytes, kind: type[T], url: str) -> T:
    """Read the message that a good answer must be. Raises NotACoordinator, showing what came instead."""
    try:
        return decode(content, kind)
    except BadRequest as error:
        raise NotACoordinator(f"{url} answered {_shown(content)}", CHECK_ADDRESS) from error


def refusal(response: httpx.Response, content: bytes, url: str) -> ShoalError:
    """Return the error that an answer other than 2xx stands for."""
    try:
        message = decode(content, ErrorMessage)
    except BadRequest:
        return _foreign(response, content, url)
    error = from_code(message.code, message.problem, message.fix)
    if isinstance(error, Conflict):
        error.receipt = message.receipt
    if isinstance(error, BadSignature):
        error.server_time = message.server_time
    return error


def _foreign(response: httpx.Response, content: bytes, url: str) -> ShoalError:
    """Return the error for an answer that no coordinator gives; a 5xx is a proxy's whose coordinator is away."""
    if response.status_code >= 500:
        problem = f"{url} answered {response.status_code} in the coordinator's place"
        return Unreachable(problem, "wait until the coordinator is back, or look after it")
    if response.has_redirect_location:
        return NotACoordinator(f"{url} sends callers on to {response.headers['location'][:200]}", "give that address")
    return NotACoordinator(f"{url} answered {response.status_code} with {_shown(content)}", CHECK_ADDRESS)


def _shown(content: bytes) -> str:
    return repr(content[:60].decode(errors="replace")) if content else "nothing"
