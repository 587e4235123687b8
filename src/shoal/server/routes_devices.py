"""What devices call: check in, report, renew, release."""

import hashlib
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response

from shoal.core.errors import BadRequest, Gone, RefusedUpdate, TooLarge
from shoal.core.receipt import Receipt
from shoal.server.admission import calling_device, still
from shoal.server.calls import body, coordinator, gives, greeting, message, reply, takes
from shoal.server.coordinator import Coordinator
from shoal.server.devices import INLINE_BYTES
from shoal.server.receive import receive
from shoal.server.storage import open_bytes
from shoal.server.verify import largest_report
from shoal.store.failpoints import reached
from shoal.store.store import DeviceRecord
from shoal.wire import tracing
from shoal.wire.codec import MAX_HEAD, head_length, read_head
from shoal.wire.messages import (
    CheckInReply,
    CheckInRequest,
    ReleaseRequest,
    RenewReply,
    ReportHead,
)

router = APIRouter(tags=["devices"])


@router.post("/v1/checkin", openapi_extra=takes(CheckInRequest), responses=gives(CheckInReply))
async def check_in(request: Request) -> Response:
    """Offer to work: the answer is an assignment (the same one again on a repeat), or when to come back."""
    device = calling_device(request)
    asked = await greeting(request, CheckInRequest)
    here, began = coordinator(request), tracing.now()
    answer, held = await here.devices.check_in(device, asked, still(request))
    if (given := answer.assignment) is not None:
        with tracing.part(tracing.Round(here.key.public, given.task, given.round), "assign", began, device=device.name):
            pass
    (here.metrics.waiting if answer.assignment is None else here.metrics.assigned).inc()
    return reply(answer, held)


@router.post("/v1/assignments/{assignment}/renew", responses=gives(RenewReply))
async def renew(request: Request, assignment: str) -> Response:
    """Keep a place for another lease, because the work progresses."""
    return reply(RenewReply(await coordinator(request).devices.renew(calling_device(request), assignment)))


@router.post(
    "/v1/assignments/{assignment}/release", openapi_extra=takes(ReleaseRequest), responses=gives(ReleaseRequest)
)
async def release(request: Request, assignment: str) -> Response:
    """Give a place back, and say why."""
    device = calling_device(request)
    asked = await message(request, ReleaseRequest)
    await coordinator(request).devices.release(device, assignment, asked)
    return reply(asked)


@router.post(
    "/v1/assignments/{assignment}/report",
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    responses=gives(Receipt),
)
async def report(request: Request, assignment: str) -> Response:
    """Report an update: 4 bytes length, a ReportHead in JSON, then the arrays as safetensors."""
    device = calling_device(request)
    here = coordinator(request)
    with here.metrics.reporting(""):
        spec = here.devices.assigned(device, assignment).state.spec
    with here.metrics.reporting(spec.name):
        _, given = await here.devices.expected(device, assignment)
        most = largest_report(spec)
        pieces = body(request, 4 + MAX_HEAD + most)
        head, rest = await _read_head(pieces)
        if head.size > most:
            raise TooLarge(f"an update of {head.size} bytes", f"the task's arrays take {most}")
        async with here.housekeeping.taking(0 if given else head.size), here.arrivals.coming(head.digest):
            if head.uploaded:
                await _check_nothing_follows(rest, pieces)
            if head.uploaded and given is not None:
                receipt = await here.devices.report(device, assignment, head, None, None)
            elif head.uploaded:
                receipt = await _uploaded(here, device, assignment, head)
            elif head.size <= INLINE_BYTES:
                receipt = await _small(here, device, assignment, head, rest, pieces)
            else:
                receipt = await _large(here, device, assignment, head, rest, pieces)
    if given is not None:
        here.metrics.reports.labels(spec.name, "repeated", "").inc()
    reached("before_ack")
    return reply(here.key.sign(receipt))


async def _read_head(pieces: AsyncIterator[bytes]) -> tuple[ReportHead, bytes]:
    buffer = b""
    length: int | None = None
    async for piece in pieces:
        buffer += piece
        if length is None and len(buffer) >= 4:
            length = 4 + head_length(buffer)
        if length is not None and len(buffer) >= length:
            return read_head(buffer[4:length]), buffer[length:]
    raise BadRequest(f"a report of {len(buffer)} bytes ends before its arrays", "send the whole report again")


async def _small(
    here: Coordinator,
    device: DeviceRecord,
    assignment: str,
    head: ReportHead,
    rest: bytes,
    pieces: AsyncIterator[bytes],
) -> Receipt:
    data = rest
    async for piece in pieces:
        reached("mid_upload")
        data += piece
        if len(data) > head.size:
            raise TooLarge(f"an update of more than {head.size} bytes", "send as many as its head says")
    _check_arrived(head, len(data), hashlib.sha256(data).hexdigest())
    return await here.devices.report(device, assignment, head, open_bytes(data), data)


async def _check_nothing_follows(rest: bytes, pieces: AsyncIterator[bytes]) -> None:
    size = len(rest) + sum([len(piece) async for piece in pieces])
    if size:
        raise BadRequest(f"{size} bytes behind the head of a report that was uploaded", "send its head alone")


async def _uploaded(here: Coordinator, device: DeviceRecord, assignment: str, head: ReportHead) -> Receipt:
    """Take the arrays from the upload, which goes with a good end, and with bytes that are wrong."""
    try:
        receipt = await _large(here, device, assignment, head, b"", here.uploading.whole(assignment))
    except (BadRequest, RefusedUpdate, Gone):
        await here.uploading.remove(assignment)
        raise
    await here.uploading.remove(assignment)
    return receipt


async def _large(
    here: Coordinator,
    device: DeviceRecord,
    assignment: str,
    head: ReportHead,
    rest: bytes,
    pieces: AsyncIterator[bytes],
) -> Receipt:
    received = await receive(here.storage.blobs, "updates", pieces, first=rest)
    reached("after_blob")
    try:
        _check_arrived(head, received.size, received.digest)
        here.storage.written(received.digest)
        return await here.devices.report(device, assignment, head, here.storage.tree(received.digest), None)
    finally:
        await here.tasks.forget((received.digest,), own=int(received.digest == head.digest))


def _check_arrived(head: ReportHead, size: int, digest: str) -> None:
    if size != head.size or digest != head.digest:
        raise BadRequest(
            f"{size} bytes with SHA-256 {digest} arrived, the head says {head.size} and {head.digest}",
            "send the report again",
        )
