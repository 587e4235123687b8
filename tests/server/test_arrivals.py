"""Bytes that come and bytes that go never cross."""

import asyncio

from shoal.server.arrivals import Arrivals


async def _report_during_removal() -> list[str]:
    arrivals, order = Arrivals(), list[str]()

    async def report() -> None:
        async with arrivals.coming("a"):
            order.append(f"brought, {arrivals.count('a')} under way")

    async with arrivals.going(["a", "a", "b"]):
        waiting = asyncio.create_task(report())
        for _ in range(5):
            await asyncio.sleep(0)
        order.append("removed")
    await waiting
    order.append(f"{arrivals.count('a')} under way")
    return order


def test_a_report_waits_until_equal_bytes_are_gone() -> None:
    assert asyncio.run(_report_during_removal()) == ["removed", "brought, 1 under way", "0 under way"]
