"""Large updates in parts (draft-ietf-httpbis-resumable-upload): POST begins, HEAD tells where it stands, PATCH goes on.

An assignment has one upload. When it is complete, the report names its digest and brings no arrays.
"""

from fastapi import APIRouter, Request, Response

from shoal.core.errors import BadRequest, TooLarge, UnknownEncoding
from shoal.server.admission import calling_device
from shoal.server.calls import announced, body, coordinator, refusals
from shoal.server.verify import largest_report
from shoal.store.store import DeviceRecord
from shoal.store.uploads import Upload
from shoal.wire.digests import REPR_DIGEST, read_digest_field
from shoal.wire.resumable import COMPLETE, LENGTH, LIMIT, NO, OFFSET, PARTIAL, YES, read_count, read_flag

PATH = "/v1/assignments/{assignment}/upload"

router = APIRouter(tags=["devices"])


@router.post(PATH, status_code=201, responses=refusals("201", "Begun, or gone on with"))
async def begin(request: Request, assignment: str) -> Response:
    """Begin an upload of Upload-Length bytes with the SHA-256 in Repr-Digest; a repeat goes on with the one that began.

    410 at once when the round does not need it any more, 413 when the task's arrays are smaller. A body is the first
    part, and begins anew.
    """
    device = calling_device(request)
    here = coordinator(request)
    task, given = await here.devices.expected(device, assignment)
    most = largest_report(task.state.spec)
    length = read_count(LENGTH, request.headers.get(LENGTH))
    if length > most:
        raise TooLarge(f"an update of {length} bytes", f"the task's arrays take {most}")
    digest = read_digest_field(REPR_DIGEST, request.headers.get(REPR_DIGEST, "")).hex()
    headers = {"Location": request.url.path, LIMIT: f"max-size={most}"}
    if given is not None:  # its report has a receipt: there is nothing to send but the report, for the receipt
        return _stands(201, length, length, headers)
    upload = Upload(assignment, device.name, digest, length)
    first = announced(request) if "content-length" in request.headers else 0
    here.housekeeping.space.check(length)
    offset = await here.uploading.begin(upload, anew=first > 0)
    if first:
        offset = await _append(request, device, upload, 0)
    return _stands(201, offset, length, headers)


@router.head(PATH, status_code=204, responses=refusals("204", "Where it stands"))
async def stands(request: Request, assignment: str) -> Response:
    """Tell where an upload stands: in Upload-Offset, and in Upload-Complete whether it is whole."""
    device = calling_device(request)
    here = coordinator(request)
    await here.devices.expected(device, assignment)
    upload, offset = await here.uploading.stands(assignment)
    return _stands(204, offset, upload.length, {})


@router.patch(
    PATH,
    status_code=204,
    openapi_extra={"requestBody": {"required": True, "content": {PARTIAL: {}}}},
    responses=refusals("204", "Taken, durably"),
)
async def go_on(request: Request, assignment: str) -> Response:
    """Add the body at Upload-Offset; its signed Content-Digest is compared before it counts.

    409 with the right Upload-Offset when the upload stands elsewhere.
    """
    device = calling_device(request)
    here = coordinator(request)
    if (kind := request.headers.get("content-type", "")) != PARTIAL:
        raise UnknownEncoding(f"a body of type {kind[:40]!r}", f"send it as {PARTIAL}")
    await here.devices.expected(device, assignment)
    upload, _ = await here.uploading.stands(assignment)
    offset = await _append(request, device, upload, read_count(OFFSET, request.headers.get(OFFSET)))
    return _stands(204, offset, upload.length, {})


@router.delete(PATH, status_code=204, responses=refusals("204", "Forgotten"))
async def forget(request: Request, assignment: str) -> Response:
    """Forget an upload."""
    device = calling_device(request)
    here = coordinator(request)
    here.devices.assigned(device, assignment)
    await here.uploading.remove(assignment)
    return Response(status_code=204)


async def _append(request: Request, device: DeviceRecord, upload: Upload, offset: int) -> int:
    here = coordinator(request)
    complete = read_flag(COMPLETE, request.headers.get(COMPLETE))
    async with here.housekeeping.taking(announced(request)) as place:
        pieces = place.holding(body(request, upload.length))
        offset = await here.uploading.append(upload.assignment, offset, pieces)
    await here.devices.progressed(device, upload.assignment)
    if complete and offset != upload.length:
        raise BadRequest(
            f"an upload that is complete at {offset} of {upload.length} bytes", "send the rest, or begin again"
        )
    return offset


def _stands(status: int, offset: int, length: int, headers: dict[str, str]) -> Response:
    told = {OFFSET: str(offset), COMPLETE: YES if offset == length else NO, LENGTH: str(length)}
    return Response(status_code=status, headers={**headers, **told, "Cache-Control": "no-store"})
