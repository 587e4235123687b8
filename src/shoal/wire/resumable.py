"""Header fields of resumable uploads (draft-ietf-httpbis-resumable-upload), both sides."""

from shoal.core.errors import BadRequest

OFFSET = "Upload-Offset"
COMPLETE = "Upload-Complete"
LENGTH = "Upload-Length"
LIMIT = "Upload-Limit"
PARTIAL = "application/partial-upload"
"""The media type of a body that continues an upload."""

YES, NO = "?1", "?0"


def read_count(name: str, value: str | None) -> int:
    """Return a field that is a number of bytes. Raises BadRequest."""
    if value is None or not value.isascii() or not value.isdecimal() or len(value) > 15:
        raise BadRequest(f"{name} {(value or '')[:40]!r}", "give a number of bytes")
    return int(value)


def read_flag(name: str, value: str | None) -> bool:
    """Return a field that is a structured boolean (RFC 9651). Raises BadRequest."""
    if value not in (YES, NO):
        raise BadRequest(f"{name} {(value or '')[:40]!r}", f"give {YES} or {NO}")
    return value == YES
