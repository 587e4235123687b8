"""What Prometheus calls."""

import math

from fastapi import APIRouter, Request, Response

from shoal.server.calls import coordinator
from shoal.server.coordinator import Coordinator
from shoal.server.housekeeping import HOUR
from shoal.server.metrics import CONTENT_TYPE

router = APIRouter(tags=["metrics"])


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return counters and gauges; for this machine, for people of any role, and with --metrics-public for all."""
    here = coordinator(request)
    return Response(here.metrics.text(**await _gauges(here)), media_type=CONTENT_TYPE)


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
