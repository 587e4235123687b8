"""Traces of rounds over coordinator and agents, for OpenTelemetry (extra `otel`): off, and not imported, until started.

A round is one trace. Its id follows from the coordinator's key, the task's id and the round's number, so that all who
take part know it without being told; calls carry the span that they belong to in the header `traceparent` (W3C Trace
Context). Spans name tasks, rounds, devices and digests, never a value of an example or of a model.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from shoal.core.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from shoal.wire.spans import Spans

HEADER = b"traceparent"
VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Settings of OpenTelemetry itself; one of them starts the traces of `shoal server` and `shoal agent`."""

Value: TypeAlias = str | int | float | bool

_spans: "Spans | None" = None
_NOTHING: AbstractContextManager[None] = nullcontext()
_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Round:
    """A round of a task at the coordinator that has a key."""

    key: str
    task: str
    number: int

    @property
    def ids(self) -> tuple[int, int]:
        """The ids of its trace and of the span that is the whole round."""
        found = hashlib.sha256("\0".join((self.key, self.task, str(self.number))).encode()).digest()
        return int.from_bytes(found[:16]), int.from_bytes(found[16:24])


def now() -> int:
    """Return nanoseconds since 1970."""
    return time.time_ns()


def span(name: str, **told: Value) -> AbstractContextManager[None]:
    """Note how long what is inside takes, as a part of the span around it; without one nothing is noted."""
    return _NOTHING if _spans is None else _spans.inside(name, told)


def part(of: Round, name: str, began: int | None = None, **told: Value) -> AbstractContextManager[None]:
    """Note what is inside as a part of a round; it may have begun before."""
    return _NOTHING if _spans is None else _spans.part(of, name, began, told)


def past(name: str, began: int) -> None:
    """Note what began then and is over now, as a part of the span around it."""
    if _spans is not None:
        _spans.past(name, began)


def whole(of: Round, seconds: float, **told: Value) -> None:
    """Note a round that is over now, of which all its parts are parts."""
    if _spans is not None:
        _spans.whole(of, now() - int(seconds * 1e9), told)


def carried() -> Mapping[str, str]:
    """Return the header that tells the other side which span a call belongs to; nothing without one."""
    return _NO_HEADERS if _spans is None else _spans.carried()


def served(headers: Iterable[tuple[bytes, bytes]], method: str, path: str) -> AbstractContextManager[None]:
    """Note the answering of a call whose raw headers name a span; of others nothing."""
    if _spans is None:
        return _NOTHING
    given = next((value for name, value in headers if name == HEADER), None)
    return _NOTHING if given is None else _spans.served(given.decode("latin-1"), f"{method} {path}")


@contextmanager
def started(service: str, exporter: "SpanExporter | None" = None) -> Iterator[None]:
    """Trace what happens inside, and send what is left at the end; without an exporter over OTLP/HTTP.

    OpenTelemetry's own settings say where to, and how much (OTEL_TRACES_SAMPLER). Raises ConfigurationError without the
    extra `otel`, or where traces are started already.
    """
    global _spans
    if _spans is not None:
        raise ConfigurationError("traces are started already", "start them once in a process")
    try:
        from shoal.wire.spans import Spans
    except ImportError as error:
        raise ConfigurationError("opentelemetry is not installed", "pip install 'shoal[otel]'") from error
    _spans = Spans(service, exporter)
    try:
        yield
    finally:
        ended, _spans = _spans, None
        ended.close()


@contextmanager
def as_environment_says(service: str) -> Iterator[None]:
    """Trace what happens inside where OpenTelemetry's settings name an endpoint.

    They may be meant for other programs: without the extra `otel` that is said on standard error, and nothing traced.
    """
    if not any(os.environ.get(name) for name in VARIABLES):
        yield
        return
    tracing = started(service)
    try:
        tracing.__enter__()
    except ConfigurationError as error:
        sys.stderr.write(f"no traces: {error.problem}; {error.fix}\n")
        yield
        return
    try:
        yield
    finally:
        tracing.__exit__(None, None, None)
