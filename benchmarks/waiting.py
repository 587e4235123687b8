"""What ten thousand agents cost that wait for work: check-ins that a coordinator holds.

A real `shoal server` with one task whose place is taken; every agent has a connection of its own and one signed check-in
with the longest wait. `longpolls` is how many the server itself says it holds (`shoal_open_long_polls`), at the moment
when `longpolls_rss_mb` is read: all of the server's resident memory (VmRSS), in 10^6 bytes, not only what they add.
`longpolls_cpu_ms` is the server's processor time for each, from the connection until it is held, in milliseconds.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence

from processes import cpu_seconds, memory
from traffic import Caller, Line, coordinator, enrol, people, publish

from shoal.testing.server_process import ServerProcess
from shoal.wire.messages import MAX_WAIT

TASK = "busy"
AT_ONCE = 200
"""Connections that are opened at a time, below the listener's backlog."""

LOOKS = 2000
HELD = re.compile(r"^shoal_open_long_polls (\S+)$", re.MULTILINE)


def figures(agents: int) -> Mapping[str, float]:
    """Measure them."""
    return asyncio.run(_figures(agents))


async def _figures(agents: int) -> Mapping[str, float]:
    with coordinator() as server:
        first, *others = await enrol(server, agents + 1)
        publish(server, TASK, goal=1)
        line = await Line.open(server)
        await line.call(first.check_in(TASK))
        before, alone = cpu_seconds(server.pid), memory(server.pid, "VmRSS")
        lines = await waiting(server, others)
        held, resident = open_long_polls(server), memory(server.pid, "VmRSS")
        for one in (line, *lines):
            one.close()
    return {
        "longpolls": held,
        "longpolls_rss_mb": resident / 1e6,
        "longpolls_idle_rss_mb": alone / 1e6,
    }
