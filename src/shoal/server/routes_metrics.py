"""What Prometheus calls."""

import ipaddress
import math

from fastapi import APIRouter, Request, Response

from shoal.server.calls import coordinator, require
from shoal.server.coordinator import Coordinator
from shoal.server.housekeeping import HOUR
from shoal.server.metrics import CONTENT_TYPE

router = APIRouter(tags=["metrics"])


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return counters and gauges; for this machine, for people of any role, and with --metrics-public for all."""
    here = coordinator(request)
    if not (request.app.state.metrics_public or _local(request)):
        require(request, "read")
    return Response(here.metrics.text(**await _gauges(here)), media_type=CONTENT_TYPE)


def _local(request: Request) -> bool:
    # A proxy on this machine calls from here for others: whoever came by one needs a token.
    if request.client is None or any(name in request.headers for name in ("forwarded", "x-forwarded-for", "via")):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


async def _gauges(here: Coordinator) -> dict[str, float]:
    room = await here.housekeeping.look()
    now = here.clock()
    quota = here.housekeeping.limits.quota
    return {
        "open_long_polls": here.bell.waiting,
        "devices_enrolled": sum(device.revoked is None for device in here.identities.devices.values()),
        "devices_seen_last_hour": sum(now - seen <= HOUR for seen in here.identities.seen.values()),
        "tasks_running": sum(not task.state.phase.over for task in here.tasks.values()),
        "disk_used_bytes": room.used,
        "disk_free_bytes": room.free,
        "disk_quota_bytes": math.inf if quota is None else quota,
        "blobs_removed": here.housekeeping.removed,
    }
