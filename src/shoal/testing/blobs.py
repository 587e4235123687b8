"""What must hold of every store of blobs."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from shoal.core.errors import NotFound
from shoal.store.store import Blobs, Namespace
from shoal.testing.holding import hold, raises

THREADS = 8


def blobs_laws(make_blobs: Callable[[], Blobs], reopen: Callable[[Blobs], Blobs] | None = None) -> None:
    """Check a store of blobs; `make_blobs` returns a new, empty one each time.

    - A blob is visible after `commit`, under the SHA-256 of its bytes, in the namespace it was written to; not before,
      and not after `abort`, which does no harm after `commit`.
    - Any range of it reads back, in however many pieces; ranges beyond the end are cut.
    - Equal bytes may be written again, also by many threads at once.
    - A deleted blob is gone; an update goes before what is published with the same bytes.
    - What is no digest of a blob raises NotFound at once, whatever it looks like; deleting it does nothing.
    - With `reopen`: blobs that were committed are there afterwards, and nothing else is.
    """
    for law in (_whole_or_not_at_all, _ranges_read_back, _equal_bytes_are_one, _deleted_is_gone, _unknown_is_not_found):
        law(make_blobs())
    if reopen is not None:
        _blobs_stay(make_blobs(), reopen)


def _write(blobs: Blobs, namespace: Namespace, *pieces: bytes) -> str:
    writer = blobs.writer(namespace)
    for piece in pieces:
        writer.write(memoryview(piece))
    digest = writer.commit()
    writer.abort()
    return digest


def _absent(blobs: Blobs, digest: str, what: str) -> None:
    reads: tuple[Callable[[str], object], ...] = (blobs.open, blobs.size, blobs.namespace)
    for read in reads:
        with raises(NotFound, what):
            read(digest)


def _whole_or_not_at_all(blobs: Blobs) -> None:
    namespaces: tuple[Namespace, ...] = ("published", "updates")
    for namespace in namespaces:
        data = namespace.encode()
        digest = hashlib.sha256(data).hexdigest()
        dropped = blobs.writer(namespace)
        dropped.write(data)
        _absent(blobs, digest, "a blob before its commit")
        dropped.abort()
        dropped.abort()
        _absent(blobs, digest, "a blob that was aborted")
        hold(_write(blobs, namespace, data[:3], b"", data[3:]) == digest, "commit returns another digest than SHA-256")
        hold(blobs.namespace(digest) == namespace, f"what was written to {namespace} is in {blobs.namespace(digest)}")


def _ranges_read_back(blobs: Blobs) -> None:
    data = bytes(range(251)) * 10_000  # longer than any piece, and of a length that no piece divides
    digest, empty = _write(blobs, "published", data), _write(blobs, "published")
    hold((blobs.size(digest), blobs.size(empty)) == (len(data), 0), "a size is not the number of bytes")
    hold(list(blobs.open(empty)) == [], "an empty blob has pieces")
    half = len(data) // 2
    for start, stop in ((0, None), (0, 8), (8, 8), (9, 8), (half, None), (3, len(data) + 5), (len(data) + 1, None)):
        read = b"".join(blobs.open(digest, start, stop))
        hold(read == data[start:stop], f"bytes {start} to {stop} read back as {len(read)} other ones")


def _equal_bytes_are_one(blobs: Blobs) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        digests = set(pool.map(lambda _: _write(blobs, "updates", b"same"), range(THREADS)))
    hold(len(digests) == 1, f"equal bytes have the digests {digests}")
    hold(b"".join(blobs.open(digests.pop())) == b"same", "bytes that were written again read back as others")


def _deleted_is_gone(blobs: Blobs) -> None:
    first, second = _write(blobs, "updates", b"first"), _write(blobs, "updates", b"second")
    blobs.delete(first)
    blobs.delete(first)
    _absent(blobs, first, "a blob that was deleted")
    hold(b"".join(blobs.open(second)) == b"second", "deleting a blob took another one")
    _write(blobs, "published", b"second")
    blobs.delete(second)
    hold(blobs.namespace(second) == "published", "deleting an update took what was published")


def _unknown_is_not_found(blobs: Blobs) -> None:
    known = _write(blobs, "published", b"known")
    for digest in ("0" * 64, "", "..", f"../published/{known[:2]}/{known}", known.upper(), known[:-1], f"{known}\n"):
        _absent(blobs, digest, f"digest {digest!r}")
        blobs.delete(digest)
    hold(b"".join(blobs.open(known)) == b"known", "deleting what is no digest took a blob")


def _blobs_stay(blobs: Blobs, reopen: Callable[[Blobs], Blobs]) -> None:
    digest = _write(blobs, "updates", b"kept")
    dropped = blobs.writer("published")
    dropped.write(b"half")
    again = reopen(blobs)
    hold(b"".join(again.open(digest)) == b"kept", "a blob reads back as another one, opened again")
    _absent(again, hashlib.sha256(b"half").hexdigest(), "a blob without commit, opened again")
    dropped.abort()
