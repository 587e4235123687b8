"""OpenTelemetry's side of `tracing`, and the one place that imports it."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from shoal.wire.tracing import Round, Value

_given: ContextVar[tuple[int, int] | None] = ContextVar("_given", default=None)


class _Ids(RandomIdGenerator):
    """Random ids, but those of a whole round, which are known before it is over."""

    def generate_trace_id(self) -> int:
        given = _given.get()
        return super().generate_trace_id() if given is None else given[0]

    def generate_span_id(self) -> int:
        given = _given.get()
        return super().generate_span_id() if given is None else given[1]


class Spans:
    """Makes spans and exports them in the background."""

    def __init__(self, service: str, exporter: SpanExporter | None) -> None:
        resource = Resource.create({"service.name": service, "service.version": version("shoal")})
        self._provider = TracerProvider(resource=resource, id_generator=_Ids(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("shoal", version("shoal"))
        self._header = TraceContextTextMapPropagator()

    def inside(self, name: str, told: "Mapping[str, Value]") -> AbstractContextManager[None]:
        """Begin a part of the present span."""
        if not trace.get_current_span().get_span_context().is_valid:
            return nullcontext()
        return self._noted(name, None, None, told)

    def part(
        self, of: "Round", name: str, began: int | None, told: "Mapping[str, Value]"
    ) -> AbstractContextManager[None]:
        """Begin a part of a round."""
        return self._noted(name, self._within(of), began, {**_named(of), **told})

    def past(self, name: str, began: int) -> None:
        """Make a part of the present span that is over."""
        self._tracer.start_span(name, start_time=began).end()

    def whole(self, of: "Round", began: int, told: "Mapping[str, Value]") -> None:
        """Make the span of a round."""
        token = _given.set(of.ids)
        try:
            span = self._tracer.start_span("round", Context(), start_time=began, attributes={**_named(of), **told})
        finally:
            _given.reset(token)
        span.end()

    def carried(self) -> Mapping[str, str]:
        """Return the header of the present span."""
        headers: dict[str, str] = {}
        self._header.inject(headers)
        return headers

    def served(self, header: str, name: str) -> AbstractContextManager[None]:
        """Begin what is done for a call with this header."""
        return self._noted(name, self._header.extract({"traceparent": header}, Context()), None, {}, SpanKind.SERVER)

    @contextmanager
    def _noted(
        self,
        name: str,
        within: Context | None,
        began: int | None,
        told: "Mapping[str, Value]",
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Iterator[None]:
        span = self._tracer.start_span(name, within, kind, told, start_time=began)
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield
        except BaseException as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)  # its text may name a value of an example
            raise
        finally:
            span.end()

    def _within(self, of: "Round") -> Context:
        trace_id, span_id = of.ids
        # all who take part decide alike whether a round is among those that are looked at
        decision = self._provider.sampler.should_sample(Context(), trace_id, "round").decision
        wanted = decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags(TraceFlags.SAMPLED if wanted else TraceFlags.DEFAULT)
        return trace.set_span_in_context(NonRecordingSpan(SpanContext(trace_id, span_id, True, flags)), Context())

    def close(self) -> None:
        """Export what is left, and end."""
        self._provider.shutdown()


def _named(of: "Round") -> "dict[str, Value]":
    return {"shoal.task": of.task, "shoal.round": of.number}
