"""One thread that writes for all: it takes whatever has been submitted and commits it in one transaction.

A commit waits for the disk once, however many writes it holds, so that many devices cost about what one does.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError

from shoal.core.errors import StoreError, StreamConflict
from shoal.store.appending import Append, append_all
from shoal.store.failpoints import reached

T = TypeVar("T")

OWN = (DataError, IntegrityError, InterfaceError, ProgrammingError)
"""Errors of a database that are the fault of one write; the others are its own."""

Watch: TypeAlias = Callable[[Sequence[float]], None]
"""Is told, from the writer's thread, for how many seconds each write of a transaction waited to be durable."""

Guard: TypeAlias = Callable[[Connection], None]
"""Raises, at the start of a transaction that writes, when this process may write no longer."""

GROUP = 256
"""Writes in one transaction at most, which bounds how long the first of them waits."""


def unguarded(connection: Connection) -> None:
    """Let every transaction write."""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Append | Callable[[Connection], Any]
    since: float = field(default_factory=time.perf_counter)
    future: Future[Any] = field(default_factory=Future[Any])


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any = None
    error: Exception | None = None


class Writer:
    """Carries out appends and other writes in the order in which they came; one that fails takes no other with it.

    When the database itself fails (no space, no lock), the whole group fails, and nothing of it is kept. Every
    future is settled, also when the thread ends for a reason nobody foresaw.
    """

    def __init__(self, engine: Engine, explain: Callable[[DBAPIError], StoreError], watch: Watch, guard: Guard) -> None:
        self._engine = engine
        self._watch = watch
        self._guard = guard
        self._explain = explain
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="shoal-store-writer", daemon=True)
        self._thread.start()

    def append(self, append: Append) -> Future[int]:
        """Queue an append; the future holds the stream's new position, once that is durable."""
        return self._put(_Job(append))

    def submit(self, write: Callable[[Connection], T]) -> Future[T]:
        """Queue another write; the future holds what it returned, once that is durable."""
        return self._put(_Job(write))

    def _put(self, job: _Job) -> Future[Any]:
        with self._changed:
            if self._closed:
                job.future.set_exception(_closed())
            else:
                self._jobs.append(job)
                self._changed.notify()
        return job.future

    def close(self, timeout: float) -> None:
        """Finish what was queued and end the thread. Raises StoreError when that takes longer than `timeout`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise StoreError(f"the store did not finish writing within {timeout:g} s", "look at the disk's health")

    def _run(self) -> None:
        group: list[_Job] = []
        try:
            while group := self._take():
                self._commit(group)
        finally:
            self._give_up(group)

    def _take(self) -> list[_Job]:
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return []
                queued = [self._jobs.popleft() for _ in range(min(GROUP, len(self._jobs)))]
                group = [job for job in queued if job.future.set_running_or_notify_cancel()]
                if group:
                    return group

    def _commit(self, group: Sequence[_Job]) -> None:
        try:
            with self._engine.begin() as connection:
                self._guard(connection)
                outcomes = _carry_out(connection, group)
                reached("mid_commit")
        except (DBAPIError, StoreError) as error:
            outcomes = [_Outcome(error=error) for _ in group]
        reached("after_commit")
        now = time.perf_counter()
        self._watch([now - job.since for job in group])
        for job, outcome in zip(group, outcomes, strict=True):
            self._settle(job.future, outcome)

    def _settle(self, future: Future[Any], outcome: _Outcome) -> None:
        if isinstance(outcome.error, DBAPIError):
            future.set_exception(self._explain(outcome.error))
        elif outcome.error is not None:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome.value)

    def _give_up(self, group: Sequence[_Job]) -> None:
        with self._changed:
            self._closed = True
            left = [*group, *self._jobs]
            self._jobs.clear()
        for job in left:
            if not job.future.done():
                job.future.set_exception(_closed())


def _carry_out(connection: Connection, group: Sequence[_Job]) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    for _, jobs in groupby(group, lambda job: isinstance(job.work, Append)):
        works = [job.work for job in jobs]
        appends = [work for work in works if isinstance(work, Append)]
        others = [work for work in works if not isinstance(work, Append)]
        outcomes += _append(connection, appends) if appends else [_attempt(connection, work) for work in others]
    return outcomes


def _append(connection: Connection, appends: Sequence[Append]) -> list[_Outcome]:
    together = _attempt(connection, lambda inside: append_all(inside, appends))
    if together.error is None:
        results: list[int | StreamConflict] = together.value
        return [_Outcome(error=r) if isinstance(r, StreamConflict) else _Outcome(r) for r in results]
    if len(appends) == 1:
        return [together]
    # One of them holds what the database cannot keep; the others are not to suffer for it.
    return [outcome for append in appends for outcome in _append(connection, [append])]


def _attempt(connection: Connection, write: Callable[[Connection], Any]) -> _Outcome:
    savepoint = connection.begin_nested()
    try:
        value = write(connection)
    except Exception as error:
        if isinstance(error, DBAPIError) and (error.connection_invalidated or not isinstance(error, OWN)):
            raise  # the database failed, not this write
        savepoint.rollback()
        return _Outcome(error=error)
    savepoint.commit()
    return _Outcome(value)


def _closed() -> StoreError:
    return StoreError("the store is closed", "open it again")
