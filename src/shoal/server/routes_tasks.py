"""What researchers and dashboards call: publish, follow, cancel."""

from fastapi import APIRouter, Request, Response

from shoal.core.task import TaskSpec
from shoal.server.calls import coordinator, gives, message, reply, require, require_anyone, takes
from shoal.wire.messages import CancelRequest, TaskStatus, VersionsReply

router = APIRouter(tags=["tasks"])


@router.post("/v1/tasks", openapi_extra=takes(TaskSpec), responses=gives(TaskStatus))
async def publish(request: Request) -> Response:
    """Begin a task whose blobs were sent before; its id is its name with a number."""
    require(request, "publish")
    return reply(await coordinator(request).publish(await message(request, TaskSpec)))


@router.get("/v1/tasks", responses=gives(TaskStatus, many=True))
async def tasks(request: Request) -> Response:
    """List all tasks, oldest first."""
    require(request, "read")
    here = coordinator(request)
    return reply([here.status(task) for task in here.tasks.values()])


@router.get("/v1/tasks/{task}", responses=gives(TaskSpec))
async def spec(request: Request, task: str) -> Response:
    """Return a task's spec; {task} is an id, or a name for the newest of that name."""
    require_anyone(request)
    return reply(coordinator(request).task(task).state.spec)


@router.get("/v1/tasks/{task}/status", responses=gives(TaskStatus))
async def status(request: Request, task: str) -> Response:
    """Return where a task stands."""
    require(request, "read")
    here = coordinator(request)
    return reply(here.status(here.task(task)))


@router.get("/v1/tasks/{task}/versions", responses=gives(VersionsReply))
async def versions(request: Request, task: str, after: int = -1, wait: float = 0.0) -> Response:
    """Return the versions after a number; held up to `wait` seconds until there is one or the task is over."""
    require(request, "read")
    answer, held = await coordinator(request).versions(task, after, wait)
    return reply(answer, held)


@router.post("/v1/tasks/{task}/cancel", openapi_extra=takes(CancelRequest), responses=gives(TaskStatus))
async def cancel(request: Request, task: str) -> Response:
    """End a task now; its versions stay."""
    require(request, "publish")
    asked = await message(request, CancelRequest)
    return reply(await coordinator(request).cancel(task, asked.reason))
