"""How devices come and go: they enrol and leave, people approve, refuse and revoke them."""

from fastapi import APIRouter, Request, Response

from shoal.server.admission import calling_device, signed_call
from shoal.server.calls import coordinator, gives, greeting, message, reply, takes
from shoal.store.failpoints import reached
from shoal.wire.messages import ApproveRequest, DeviceStatus, EnrolReply, EnrolRequest, ReleaseRequest

router = APIRouter(tags=["devices"])


@router.post("/v1/devices", openapi_extra=takes(EnrolRequest), responses=gives(EnrolReply))
async def enrol(request: Request) -> Response:
    """Enrol a device: bind its name to the key that signs this call. Without a token it waits for approval (503)."""
    here = coordinator(request)
    asked = await greeting(request, EnrolRequest)
    enrolled = await here.identities.enrol(
        request.headers.get("authorization"), request.state.signature, signed_call(request), asked, here.clock()
    )
    reached("after_enrol")
    return reply(EnrolReply(enrolled.id, enrolled.scope))


@router.get("/v1/devices", responses=gives(DeviceStatus, many=True))
async def devices(request: Request) -> Response:
    """List every device: enrolled, revoked, and waiting for approval."""
    here = coordinator(request)
    return reply([here.tasks.tallies.told(status) for status in here.identities.statuses()])


@router.delete("/v1/devices/me", responses=gives(ReleaseRequest))
async def leave(request: Request) -> Response:
    """Let the calling device go: what it works on is given back, and no later call of it is answered."""
    gone = ReleaseRequest("the device left")
    await coordinator(request).devices.dismiss(calling_device(request).name, gone.reason)
    return reply(gone)


@router.post("/v1/devices/{name}/approve", openapi_extra=takes(ApproveRequest), responses=gives(DeviceStatus))
async def approve(request: Request, name: str) -> Response:
    """Let a device in that waits for approval."""
    asked = await message(request, ApproveRequest)
    here = coordinator(request).identities
    return reply(here.status(await here.approve(name, asked.scope, asked.id, coordinator(request).clock())))


@router.post("/v1/devices/{name}/refuse", responses=gives(ReleaseRequest))
async def refuse(request: Request, name: str) -> Response:
    """Turn a device away that waits for approval."""
    here = coordinator(request)
    await here.identities.refuse(name, here.clock())
    return reply(ReleaseRequest(f"device {name!r} was refused"))


@router.post("/v1/devices/{name}/revoke", responses=gives(DeviceStatus))
async def revoke(request: Request, name: str) -> Response:
    """Let a device in no more, at once: its held calls end, what it works on is given back."""
    here = coordinator(request)
    return reply(here.identities.status(await here.devices.dismiss(name, "the device was revoked")))
