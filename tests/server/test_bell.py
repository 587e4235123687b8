"""Who is woken, and how often: counted, for ten thousand devices that wait."""

import asyncio
from collections.abc import Callable

import pytest

from shoal.core.task import ArraySpec, Bounds, RoundPlan, TaskSpec
from shoal.rounds.events import CheckedIn, Published, Released
from shoal.rounds.state import TaskState
from shoal.server.bell import Bell
from shoal.server.summons import Line, Offer, Summons
from shoal.wire.messages import CheckInRequest

NOW = 1000.0
LONG = 60.0
WAITING: list[asyncio.Task[None]] = []


def state(name: str, goal: int) -> TaskState:
    plan = RoundPlan(goal=goal, deadline=1e6, lease=1e5)
    spec = TaskSpec(name, {"w": ArraySpec((1,), "float32")}, 9, plan, bounds=Bounds(max_updates=1024), initial="0")
    return TaskState.begin(Published(f"{name}-1", spec), NOW)


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def crowd(bell: Line, number: int, names: tuple[str, ...], take: Callable[[str], bool]) -> list[str]:
    """Let devices stand in line until they get work or are dismissed; return who was woken, in order."""
    woken = list[str]()

    async def wait(device: str) -> None:
        with bell.in_line(device, Offer(CheckInRequest(training=names))) as place:
            while await bell.called(place, LONG) is not None:
                woken.append(device)
                if place.over or take(device):
                    return
                place.called.clear()

    WAITING[:] = [
        asyncio.create_task(wait(f"d{i}")) for i in range(number)
    ]  # the loop itself holds them weakly, and cancels them at its end
    await turns(2)
    return woken


@pytest.mark.slow
def test_a_round_of_20_wakes_20_of_10_000() -> None:
    async def test() -> None:
        bell, task = Line(), state("a", 20)
        woken = await crowd(bell, 10_000, ("a",), lambda d: bool(task.handle(CheckedIn(d), NOW)))
        summons = Summons(bell, lambda: NOW)
        summons.look(task)
        await turns()
        assert woken == [f"d{i}" for i in range(20)]
        for _ in range(5):
            summons.look(task)
        await turns()
        assert (len(woken), bell.woken, bell.waiting) == (20, 20, 9_980)

    asyncio.run(test())


def test_a_place_that_is_given_back_wakes_one() -> None:
    async def test() -> None:
        bell, task = Line(), state("a", 2)
        [given] = task.handle(CheckedIn("early"), NOW)
        task.handle(CheckedIn("other"), NOW)
        summons = Summons(bell, lambda: NOW)
        woken = await crowd(bell, 50, ("a",), lambda d: bool(task.handle(CheckedIn(d), NOW)))
        summons.look(task)
        await turns()
        assert woken == []
        task.handle(Released(given.assignment.id, "early", "flat battery"), NOW)
        summons.look(task)
        await turns()
        assert woken == ["d0"]

    asyncio.run(test())


def test_who_would_get_nothing_is_passed_over() -> None:
    async def test() -> None:
        bell, task = Line(), state("a", 2)
        [given] = task.handle(CheckedIn("d0"), NOW)
        task.handle(Released(given.assignment.id, "d0", "busy"), NOW)
        woken = await crowd(bell, 3, ("a",), lambda d: bool(task.handle(CheckedIn(d), NOW)))
        Summons(bell, lambda: NOW).look(task)
        await turns()
        assert woken == ["d1", "d2"]

    asyncio.run(test())


def test_devices_of_another_task_sleep_on() -> None:
    async def test() -> None:
        bell, task = Line(), state("b", 20)
        woken = await crowd(bell, 30, ("a",), lambda d: True)
        Summons(bell, lambda: NOW).look(task)
        await turns()
        assert (woken, bell.waiting) == ([], 30)

    asyncio.run(test())


def test_one_device_is_dismissed_and_the_others_wait() -> None:
    async def test() -> None:
        bell = Line()
        woken = await crowd(bell, 30, ("a",), lambda d: False)
        bell.dismiss("d7")
        await turns()
        assert (woken, bell.waiting) == (["d7"], 29)
        bell.close()
        await turns()
        assert (len(woken), bell.waiting) == (30, 0)

    asyncio.run(test())


def test_who_comes_after_the_close_is_not_held() -> None:
    bell: Bell[str] = Bell()
    bell.close()
    with bell.in_line("late", "work") as place:
        assert place.over


def test_waiting_ends_when_its_time_is_up() -> None:
    async def test() -> None:
        bell: Bell[str] = Bell()
        with bell.in_line("d", "work") as place:
            assert await bell.called(place, 0.001) is None
        assert bell.woken == 0

    asyncio.run(test())
