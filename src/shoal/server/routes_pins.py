"""Versions that stay, whatever else retention removes."""

from fastapi import APIRouter, Request, Response

from shoal.server.calls import coordinator, gives, reply
from shoal.wire.messages import Pins

router = APIRouter(tags=["tasks"])


@router.get("/v1/tasks/{task}/pins", responses=gives(Pins))
async def pins(request: Request, task: str) -> Response:
    """List the versions of a task that are pinned."""
    return _pins(request, task)


@router.put("/v1/tasks/{task}/pins/{number}", responses=gives(Pins))
async def pin(request: Request, task: str, number: int) -> Response:
    """Keep a version; 410 when it was removed already."""
    return await _set(request, task, number, True)


@router.delete("/v1/tasks/{task}/pins/{number}", responses=gives(Pins))
async def unpin(request: Request, task: str, number: int) -> Response:
    """Let a version go with the others of its age."""
    return await _set(request, task, number, False)


async def _set(request: Request, task: str, number: int, pinned: bool) -> Response:
    here = coordinator(request)
    await here.housekeeping.pin(here.tasks.find(task), number, pinned)
    return _pins(request, task)


def _pins(request: Request, task: str) -> Response:
    here = coordinator(request)
    found = here.tasks.find(task)
    return reply(Pins(found.task, tuple(sorted(here.housekeeping.pinned(found.task)))))
