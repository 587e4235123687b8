"""What researchers and dashboards call: publish, follow, cancel."""

from fastapi import APIRouter, Request, Response

from shoal.core.errors import Forbidden
from shoal.core.task import TaskSpec
from shoal.rounds.record import RoundRecord
from shoal.server.admission import device_name, scope, still
from shoal.server.calls import coordinator, gives, message, reply, takes
from shoal.server.promotions import latest_for
from shoal.server.running import RunningTask
from shoal.server.summons import in_scope
from shoal.wire.messages import CancelRequest, ExtendRequest, LatestReply, TaskStatus, VersionsReply

router = APIRouter(tags=["tasks"])


@router.post("/v1/tasks", openapi_extra=takes(TaskSpec), responses=gives(TaskStatus))
async def publish(request: Request) -> Response:
    """Begin a task whose blobs were sent before; its id is its name with a number."""
    return reply(await coordinator(request).tasks.publish(await message(request, TaskSpec)))


@router.get("/v1/tasks", responses=gives(TaskStatus, many=True))
async def tasks(request: Request) -> Response:
    """List all tasks, oldest first."""
    here = coordinator(request)
    return reply([here.tasks.status(task) for task in here.tasks.values()])


@router.get("/v1/tasks/{task}", responses=gives(TaskSpec))
async def spec(request: Request, task: str) -> Response:
    """Return a task's spec; {task} is an id, or a name for the newest of that name."""
    return reply(_found(request, task).state.spec)


@router.get("/v1/tasks/{task}/status", responses=gives(TaskStatus))
async def status(request: Request, task: str) -> Response:
    """Return where a task stands."""
    here = coordinator(request)
    return reply(here.tasks.status(here.tasks.find(task)))


@router.get("/v1/tasks/{task}/latest", responses=gives(LatestReply))
async def latest(request: Request, task: str) -> Response:
    """Return the version that the caller serves between rounds, and the newest; {task} is an id or a name."""
    return reply(latest_for(_found(request, task), device_name(request)))


def _found(request: Request, task: str) -> RunningTask:
    found = coordinator(request).tasks.find(task)
    if not in_scope(found.state.spec, scope(request)):
        raise Forbidden(f"task {found.task} is not one that this device is for", "ask an administrator")
    return found


@router.get("/v1/tasks/{task}/versions", responses=gives(VersionsReply))
async def versions(request: Request, task: str, after: int = -1, wait: float = 0.0) -> Response:
    """Return the versions after a number; held up to `wait` seconds until there is one or the task is over."""
    answer, held = await coordinator(request).tasks.versions(task, after, wait, still(request))
    return reply(answer, held)


@router.post("/v1/tasks/{task}/cancel", openapi_extra=takes(CancelRequest), responses=gives(TaskStatus))
async def cancel(request: Request, task: str) -> Response:
    """End a task now; its versions stay."""
    asked = await message(request, CancelRequest)
    return reply(await coordinator(request).tasks.cancel(task, asked.reason))


@router.post("/v1/tasks/{task}/pause", responses=gives(TaskStatus))
async def pause(request: Request, task: str) -> Response:
    """Hand out no more work; what is under way may still be reported."""
    return reply(await coordinator(request).tasks.pause(task))


@router.post("/v1/tasks/{task}/resume", responses=gives(TaskStatus))
async def resume(request: Request, task: str) -> Response:
    """Go on with a paused task, as if no time had passed."""
    return reply(await coordinator(request).tasks.resume(task))


@router.post("/v1/tasks/{task}/extend", openapi_extra=takes(ExtendRequest), responses=gives(TaskStatus))
async def extend(request: Request, task: str) -> Response:
    """Let a task have so many rounds altogether, also after it finished."""
    asked = await message(request, ExtendRequest)
    return reply(await coordinator(request).tasks.extend(task, asked.rounds))


@router.get("/v1/tasks/{task}/rounds", responses=gives(RoundRecord, many=True))
async def rounds(request: Request, task: str) -> Response:
    """Return what happened in each round: who was selected, dropped, late or refused and why, bytes and seconds."""
    return reply(coordinator(request).tasks.rounds(task))
