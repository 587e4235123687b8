"""How many devices a coordinator tells to come back later in one of its CPU seconds.

A real `shoal server` with one task whose place is taken. Each device has a connection that stays open, and one call
under way; every call is signed with Ed25519 and has a nonce of its own. `signed_checkins_per_cpu_s` is of the server as
everybody runs it. `checkins_per_cpu_s` is of the same program and the same calls, with the check of the signature
itself replaced by "it holds" in the benchmark's own process (`benchmarks/unverified.py`): what all the rest costs.
`verify_cpu_us` is what the check alone takes here, microseconds, so that figures of two machines can be compared.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from traffic import SERVER, Caller, Line, coordinator, enrol, hammer, publish

from shoal.wire.messages import CheckInReply, decode
from shoal.wire.signing import Ed25519Key, load_key

TASK = "busy"
UNVERIFIED = (str(Path(__file__).with_name("unverified.py")),)


def figures(devices: int, calls: int) -> Mapping[str, float]:
    """Measure both, and what makes the difference."""
    return {
        "checkins_per_cpu_s": asyncio.run(rate(UNVERIFIED, devices, calls)),
        "signed_checkins_per_cpu_s": asyncio.run(rate(SERVER, devices, calls)),
        "verify_cpu_us": verify_seconds(calls // 10) * 1e6,
    }


async def rate(program: Sequence[str], devices: int, calls: int) -> float:
    """Return the check-ins for each CPU second of a server."""
    with coordinator(program) as server:
        first, *others = await enrol(server, devices + 1)
        publish(server, TASK, goal=1)
        line = await Line.open(server)
        taken, turned_away = [decode(await line.call(one.check_in(TASK)), CheckInReply) for one in (first, others[0])]
        line.close()
        if taken.assignment is None or turned_away.assignment is not None or turned_away.retry_after <= 0:
            raise SystemExit(f"the place was not taken: {taken} {turned_away}")
        return await hammer(server, [checking_in(one) for one in others], calls)


def checking_in(one: Caller) -> Callable[[], bytes]:
    """Return what makes a device's next call."""
    return lambda: one.check_in(TASK)


def verify_seconds(times: int) -> float:
    """Return the CPU seconds that one check of a signature takes."""
    key, data = Ed25519Key(Ed25519Key.generate()), bytes(300)
    public, signature = load_key("ed25519", key.public), key.sign(data)
    began = time.process_time()
    for _ in range(times):
        if not public.holds(signature, data):
            raise SystemExit("a good signature was refused")
    return (time.process_time() - began) / times
