"""What ten thousand agents cost that wait for work: check-ins that a coordinator holds.

A real `shoal server` with one task whose place is taken. Every agent has a connection and a key of its own, and signs a
check-in with the longest wait again and again. `longpolls` is how many the server itself says it holds
(`shoal_open_long_polls`) when `longpolls_rss_mb` is read: all of the server's resident memory (VmRSS) in 10^6 bytes,
not only what the agents add. `longpolls_idle_rss_mb` is that of the server with all devices enrolled and none waiting.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence

from processes import memory
from traffic import Caller, Line, coordinator, enrol, publish

from shoal.testing.server_process import ServerProcess
from shoal.wire.messages import MAX_WAIT

TASK = "busy"
TOGETHER = 200
"""Agents that come at a time, far below the listener's backlog."""

LOOKS = 200
LOOK_SECONDS = 0.5
HELD = re.compile(rb"^shoal_open_long_polls (\S+)$", re.MULTILINE)
METRICS = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"


def figures(agents: int) -> Mapping[str, float]:
    """Measure them."""
    return asyncio.run(_figures(agents))


async def _figures(agents: int) -> Mapping[str, float]:
    with coordinator() as server:
        first, *others = await enrol(server, agents + 1)
        publish(server, TASK, goal=1)
        line = await Line.open(server)
        await line.call(first.check_in(TASK))
        idle = memory(server.pid, "VmRSS")
        crowd = [asyncio.create_task(_come(server, others[start::TOGETHER])) for start in range(min(TOGETHER, agents))]
        held = 0
        for _ in range(LOOKS):
            held, resident = await _held(line), memory(server.pid, "VmRSS")
            if held >= agents or any(task.done() for task in crowd):
                break
            await asyncio.sleep(LOOK_SECONDS)
        for task in crowd:
            task.cancel()
        failed = [end for end in await asyncio.gather(*crowd, return_exceptions=True) if isinstance(end, Exception)]
        line.close()
    if failed:
        raise failed[0]
    return {"longpolls": held, "longpolls_rss_mb": resident / 1e6, "longpolls_idle_rss_mb": idle / 1e6}


async def _held(line: Line) -> int:
    found = HELD.search(await line.call(METRICS))
    if found is None:
        raise SystemExit("the server does not say how many calls it holds")
    return int(float(found[1]))


async def _come(server: ServerProcess, agents: Sequence[Caller]) -> None:
    """Let agents come one after the other, and each stay."""
    lines = list[Line]()
    staying = list[asyncio.Task[None]]()
    try:
        for agent in agents:
            lines.append(await Line.open(server))
            lines[-1].send(agent.check_in(TASK, MAX_WAIT))
            staying.append(asyncio.create_task(_stay(lines[-1], agent)))
        await asyncio.gather(*staying)
    finally:
        for task in staying:
            task.cancel()
        for line in lines:
            line.close()


async def _stay(line: Line, agent: Caller) -> None:
    while True:
        await line.answer()
        line.send(agent.check_in(TASK, MAX_WAIT))
