"""Parts and variants of what is downloaded (RFC 9110, sections 12.5.3, 13 and 14): the little of it that is used."""

import re

from shoal.core.errors import OutOfRange

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


def etag(digest: str, encoding: str = "") -> str:
    """Return the strong validator of a blob, or of its variant in an encoding."""
    return f'"{digest}-{encoding}"' if encoding else f'"{digest}"'


def read_range(value: str | None, size: int) -> tuple[int, int] | None:
    """Return the bytes [start, stop) that a Range asks for of `size`; None for all, and for what is not understood.

    Several ranges at once are answered with everything, as a server may. Raises OutOfRange without such a byte.
    """
    found = _RANGE.fullmatch(value or "")
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        start, stop = max(0, size - int(found[2])), size
    else:
        start, stop = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= stop:
        raise _out_of_range(value or "", size)
    return start, stop


def _out_of_range(value: str, size: int) -> OutOfRange:
    error = OutOfRange(f"the range {value!r} of {size} bytes", "ask for bytes that are there")
    error.size = size
    return error


def accepts(value: str | None, encoding: str) -> bool:
    """Whether an Accept-Encoding names an encoding, and not with the weight 0."""
    for part in (value or "").lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() == encoding:
            return not re.fullmatch(r"q=0(\.0{0,3})?", weight.replace(" ", ""))
    return False


def lists(value: str | None, tag: str) -> bool:
    """Whether If-None-Match lists a validator, or all."""
    return tag in [part.strip().removeprefix("W/") for part in (value or "").split(",")] or (value or "").strip() == "*"
