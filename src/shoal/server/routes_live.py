"""What dashboards read beside the lists: what happens as it happens, and what happened."""

import asyncio
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from shoal.rounds.events import Recorded
from shoal.server.admission import calling_person, still
from shoal.server.calls import coordinator, gives, refusals, reply
from shoal.server.live import EventStream, frames
from shoal.store.store import Store
from shoal.wire.watching import LogEntry, LogReply

router = APIRouter(tags=["watching"])

PAGE = 200
"""Events that one answer holds."""


@router.get("/v1/events", responses={200: {"content": {"text/event-stream": {}}}, **refusals()})
async def events(request: Request) -> Response:
    """Stream where every task stands, as server-sent events: `hello`, then a `task` for each change."""
    return EventStream(frames(coordinator(request), calling_person(request), still(request)))


@router.get("/v1/tasks/{task}/log", responses=gives(LogReply))
async def log(request: Request, task: str, before: int = 0) -> Response:
    """Return a page of the events of a task, newest first: those before a position, or the newest."""
    here = coordinator(request)
    found = here.tasks.find(task)
    last = min(before - 1, found.position) if before > 0 else found.position
    entries = await asyncio.to_thread(_page, here.storage.store, found.task, last)
    return reply(LogReply(entries, found.position))


def _page(store: Store, stream: str, last: int) -> tuple[LogEntry, ...]:
    entries = []
    for position, record in store.events(stream, max(0, last - PAGE)):
        if position > last:
            break
        entries.append(_entry(position, record))
    return tuple(reversed(entries))


def _entry(position: int, record: Recorded) -> LogEntry:
    fields: dict[str, Any] = msgspec.to_builtins(record.event)
    fields.pop("spec", None)  # a call of its own
    return LogEntry(position, record.at, type(record.event).__name__, fields)
