"""Sending a report from its file: in one piece when it is small, else in parts of which none is sent twice."""

from dataclasses import dataclass, replace

from shoal.core.errors import BadRequest, NotFound, Unavailable, Unreachable, WrongOffset
from shoal.core.receipt import Receipt
from shoal.wire.codec import frame, head_length, read_head
from shoal.wire.digests import REPR_DIGEST, digest_field
from shoal.wire.http import Connection
from shoal.wire.messages import ReportHead
from shoal.wire.resumable import COMPLETE, LENGTH, NO, OFFSET, PARTIAL, YES, read_count
from shoal.wire.source import Reader, Source

TRIES = 3
"""How often an upload begins again that the coordinator lost, or whose bytes did not arrive as they were sent."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Reports whose arrays have more bytes than `over` are sent in parts of `size` bytes."""

    over: int = 1 << 20
    size: int = 2 << 20


def send_report(connection: Connection, assignment: str, report: Source, parts: Parts) -> Receipt:
    """Send a report and return its receipt.

    Raises Unreachable when the line broke: whatever arrived is not sent again by the next call.
    """
    path = f"/v1/assignments/{assignment}"
    head, start = _head(report)
    if head.size <= parts.over:
        return connection.upload_file(f"{path}/report", report, Receipt)
    problem: BadRequest | NotFound | WrongOffset | None = None
    for _ in range(TRIES):
        try:
            _Upload(connection, f"{path}/upload", report, start, head, parts.size).send()
            return connection.upload(f"{path}/report", frame(replace(head, uploaded=True), b""), Receipt)
        except (BadRequest, NotFound, WrongOffset) as error:
            problem = error
    if isinstance(problem, BadRequest):
        raise problem
    raise Unavailable(f"an upload that began {TRIES} times in vain ({problem})", "it is tried again later")


def _head(report: Source) -> tuple[ReportHead, int]:
    with report.open() as file:
        length = head_length(_exactly(file, 4))
        return read_head(_exactly(file, length)), 4 + length


def _exactly(file: Reader, count: int) -> bytes:
    # a raw reader may give fewer bytes than it was asked for
    data = b""
    while len(data) < count and (piece := file.read(count - len(data))):
        data += piece
    return data


@dataclass(frozen=True, slots=True)
class _Upload:
    connection: Connection
    path: str
    report: Source
    start: int
    head: ReportHead
    part: int

    def send(self) -> None:
        """Send what the coordinator does not have yet; after a cut go on, while one of two parts brings some bytes."""
        offset = self._begin()
        stalled = False
        while offset < self.head.size:
            try:
                stands = self._go_on(offset)
            except (Unreachable, WrongOffset):
                stands = self._begin()
                if stalled and stands == offset:
                    raise
            stalled, offset = stands == offset, stands

    def _begin(self) -> int:
        repr_digest = digest_field(bytes.fromhex(self.head.digest))
        fields = {LENGTH: str(self.head.size), REPR_DIGEST: repr_digest, COMPLETE: NO}
        return read_count(OFFSET, self.connection.transfer("POST", self.path, b"", fields).get(OFFSET))

    def _go_on(self, offset: int) -> int:
        with self.report.open() as file:
            file.seek(self.start + offset)
            part = _exactly(file, self.part)
        fields = {
            "Content-Type": PARTIAL,
            OFFSET: str(offset),
            COMPLETE: YES if offset + len(part) == self.head.size else NO,
        }
        return read_count(OFFSET, self.connection.transfer("PATCH", self.path, part, fields).get(OFFSET))
