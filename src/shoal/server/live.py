"""What happens, as a stream of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Frames carry whole views, never differences: a reader that is slow, or was away, misses frames and no state. However
many events a second there are, a task is sent at most once in `PAUSE_SECONDS`.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shoal.core.errors import ShoalError
from shoal.rounds import promotion
from shoal.rounds.lease import LeaseState
from shoal.rounds.state import TaskState
from shoal.server.coordinator import Coordinator
from shoal.store.store import TokenRecord
from shoal.wire.messages import Message, encode
from shoal.wire.watching import Hello, Part, TaskView

PAUSE_SECONDS = 0.1
"""The shortest time between two looks: what changed meanwhile is sent once."""

BEAT_SECONDS = 15.0
"""After so much silence a comment is sent, so that a line that was cut is noticed on both sides."""

STALLED_SECONDS = 60.0
"""How long a reader may take no bytes; then its line is closed, and it may come again."""

PARTS_SHOWN = 100
"""Parts of a round that a view holds, out of perhaps many thousand."""

ORDER = {
    state: place
    for place, state in enumerate(
        (
            LeaseState.REJECTED,
            LeaseState.RELEASED,
            LeaseState.EXPIRED,
            LeaseState.LATE,
            LeaseState.OFFERED,
            LeaseState.ACCEPTED,
        )
    )
}
"""Those that need a look come first."""


def view(state: TaskState, now: float) -> TaskView:
    """Return where a task stands."""
    states: dict[str, int] = {}
    for lease in state.leases.values():
        states[lease.state] = states.get(lease.state, 0) + 1
    return TaskView(
        id=state.task,
        name=state.spec.name,
        kind=state.spec.kind,
        phase=state.shown,
        round=state.round,
        rounds=state.spec.rounds,
        attempt=state.attempt,
        goal=state.spec.plan.goal,
        reports=state.reports,
        buffered=state.spec.plan.buffered is not None,
        reason=state.reason,
        published=state.versions[0].created,
        opens=state.opens,
        deadline=state.deadline if math.isfinite(state.deadline) else None,
        latest=state.latest,
        serving=promotion.head(state),
        candidate=state.heads.candidate.number if state.heads.candidate else None,
        record=state.record,
        states=states,
        parts=_parts(state),
        server_time=now,
    )


def _parts(state: TaskState) -> tuple[Part, ...]:
    shown = sorted(state.leases.items(), key=lambda item: (ORDER[item[1].state], item[0]))[:PARTS_SHOWN]
    return tuple(Part(device, lease.state, lease.reason) for device, lease in shown)


def event(name: str, message: Message) -> bytes:
    """Return a frame."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode(message))


async def frames(here: Coordinator, caller: TokenRecord, still: Callable[[], None]) -> AsyncIterator[bytes]:
    """Yield where every task stands, then each task that changed, until the coordinator stops.

    `still` is asked at every turn, and raises when the caller may read no longer.
    """
    assert caller.purpose != "enrolment"
    sent: dict[str, int] = {}
    yield event("hello", Hello(here.clock(), version("shoal"), caller.purpose, tuple(here.tasks)))
    while not here.bell.closed:
        still()
        changed = [task for task in here.tasks.values() if sent.get(task.task) != task.state.changes]
        for task in changed:
            sent[task.task] = task.state.changes
            yield event("task", view(task.state, here.clock()))
        if not changed:
            yield b": here\n\n"
        await asyncio.sleep(PAUSE_SECONDS)
        if all(sent.get(task.task) == task.state.changes for task in here.tasks.values()):
            await here.bell.wait(BEAT_SECONDS)


class EventStream(Response):
    """A response that never ends by itself; a reader that takes nothing for a while is cut off."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the pieces end, or the reader has gone."""
        del scope
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        gone = asyncio.create_task(_gone(receive))
        sending = asyncio.create_task(self._send(send))
        try:
            await asyncio.wait((gone, sending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            sending.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        try:
            async for piece in self._pieces:
                async with asyncio.timeout(STALLED_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            return  # the line is closed without an end, so that the reader knows to come again
        except ShoalError as error:
            await send({"type": "http.response.body", "body": event("over", error.problem), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
