"""Downloading a blob: compressed where the coordinator has it so, and gone on with where a line broke."""

import zlib
from collections.abc import Callable, Iterable, Iterator

import httpx

from shoal.core.errors import BadRequest, NotACoordinator, OutOfRange, Unreachable
from shoal.wire.ranges import etag

INFLATED = 1 << 18
"""Bytes of a compressed body that are inflated at once."""

GZIP = 31


def fields(digest: str, start: int) -> dict[str, str]:
    """Return the headers that ask for a blob from an offset on."""
    if not start:
        return {"Accept-Encoding": "gzip"}
    # an offset is one into the bytes themselves
    return {"Accept-Encoding": "identity", "Range": f"bytes={start}-", "If-Range": etag(digest)}


def pieces(response: httpx.Response, digest: str, start: int, most: int) -> Iterator[bytes]:
    """Yield the bytes of a good answer from an offset on, inflated.

    Raises BadRequest before more than `most` bytes of the blob are held, NotACoordinator for an answer that none gives.
    """
    encoding = response.headers.get("content-encoding", "identity")
    if encoding not in ("identity", "gzip"):
        raise NotACoordinator(f"blob {digest} came with content-encoding {encoding[:40]!r}", "see what stands between")
    raw: Iterable[bytes] = response.iter_raw()
    at = start if response.status_code == httpx.codes.PARTIAL_CONTENT else 0
    for piece in _inflated(raw, digest) if encoding == "gzip" else raw:
        fresh = piece[max(0, start - at) :]
        at += len(piece)
        if at > most:
            raise BadRequest(f"blob {digest} is longer than {most} bytes", "check the task's sizes")
        if fresh:
            yield fresh


def _inflated(raw: Iterable[bytes], digest: str) -> Iterator[bytes]:
    inflate = zlib.decompressobj(GZIP)
    try:
        for packed in raw:
            rest = packed
            while rest and not inflate.eof:
                yield inflate.decompress(rest, INFLATED)
                rest = inflate.unconsumed_tail
    except zlib.error as error:
        raise NotACoordinator(f"blob {digest} came as broken gzip ({error})", "see what stands between") from error


def resumed(attempt: Callable[[int], Iterator[bytes]], start: int) -> Iterator[bytes]:
    """Yield what `attempt`, given an offset, yields; when it breaks off go on, while each attempt brings some bytes.

    Raises what the last attempt raised.
    """
    while True:
        before = start
        try:
            for piece in attempt(start):
                start += len(piece)
                yield piece
            return
        except OutOfRange:
            if not start:
                raise
            return  # all of it is there; whether it is right its digest tells
        except Unreachable:
            if start == before:
                raise
