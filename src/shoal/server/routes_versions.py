"""Versions and the heads: which one devices serve, and what people say about them."""

from fastapi import APIRouter, Request, Response

from shoal.server.admission import calling_device, calling_person
from shoal.server.calls import coordinator, gives, message, reply, takes
from shoal.wire.messages import (
    HeadsReply,
    NoteRequest,
    PromoteRequest,
    RewindRequest,
    RollBackRequest,
    UnfitRequest,
    VersionRecord,
)

router = APIRouter(tags=["versions"])


@router.get("/v1/tasks/{task}/models", responses=gives(VersionRecord, many=True))
async def models(request: Request, task: str) -> Response:
    """List the versions of a task with lineage, notes and standing, oldest first."""
    here = coordinator(request)
    return reply(here.promotions.records(here.tasks.find(task)))


@router.get("/v1/tasks/{task}/heads", responses=gives(HeadsReply))
async def heads(request: Request, task: str) -> Response:
    """Say which version is served, which is on trial, and what happened to versions."""
    here = coordinator(request)
    return reply(here.promotions.heads(here.tasks.find(task)))


@router.post("/v1/tasks/{task}/promote", openapi_extra=takes(PromoteRequest), responses=gives(HeadsReply))
async def promote(request: Request, task: str) -> Response:
    """Let devices serve a version, by default the newest; with a canary, a part of them at first."""
    role = calling_person(request).purpose
    here = coordinator(request)
    return reply(await here.promotions.promote(here.tasks.find(task), await message(request, PromoteRequest), role))


@router.post("/v1/tasks/{task}/rollback", openapi_extra=takes(RollBackRequest), responses=gives(HeadsReply))
async def roll_back(request: Request, task: str) -> Response:
    """Take back the candidate or, without one, the version that is served."""
    role = calling_person(request).purpose
    here = coordinator(request)
    return reply(await here.promotions.roll_back(here.tasks.find(task), await message(request, RollBackRequest), role))


@router.post("/v1/tasks/{task}/rewind", openapi_extra=takes(RewindRequest), responses=gives(HeadsReply))
async def rewind(request: Request, task: str) -> Response:
    """Let rounds go on from an older version; what is under way is dropped."""
    role = calling_person(request).purpose
    here, asked = coordinator(request), await message(request, RewindRequest)
    return reply(await here.promotions.rewind(here.tasks.find(task), asked, role))


@router.post("/v1/tasks/{task}/models/{number}/notes", openapi_extra=takes(NoteRequest), responses=gives(VersionRecord))
async def note(request: Request, task: str, number: int) -> Response:
    """Write something down about a version."""
    role = calling_person(request).purpose
    here, asked = coordinator(request), await message(request, NoteRequest)
    return reply(await here.promotions.note(here.tasks.find(task), number, asked.text, role))


@router.post("/v1/tasks/{task}/unfit", openapi_extra=takes(UnfitRequest), responses=gives(UnfitRequest))
async def unfit(request: Request, task: str) -> Response:
    """A device says that a version does not work there, and that it keeps the one that it has."""
    device, told = calling_device(request), await message(request, UnfitRequest)
    here = coordinator(request)
    await here.promotions.unfit(here.tasks.find(task), device.name, told)
    return reply(told)
