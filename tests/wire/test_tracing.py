"""A round as one trace: in memory with all its spans, and over OTLP from real processes."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shoal.core.errors import ConfigurationError, DataError
from shoal.researcher.coordinator import Coordinator
from shoal.testing.server_process import ServerProcess
from shoal.wire import tracing
from tests.agent.conftest import federation as federation
from tests.agent.devices import offset_task, open_device, user_data
from tests.agent.federation import Federation, line_task

EXTRA = ("shoal.wire.spans", "opentelemetry.sdk", "opentelemetry.exporter")


class Seen:
    """Spans by name."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self.spans = exporter.get_finished_spans()

    def named(self, name: str):
        return [span for span in self.spans if span.name == name]

    def one(self, name: str):
        (span,) = self.named(name)
        return span


def test_a_round_is_one_trace_over_agents_and_coordinator(federation: Federation):
    exporter = InMemorySpanExporter()
    with tracing.started("test", exporter):
        agents = [federation.start(name) for name in ("bob", "alice")]
        run = federation.researcher.publish(line_task(), rounds=2, goal=2, plan=False)
        assert [version.number for version in run.follow()] == [1, 2]
        for agent in agents:
            agent.end()
    seen = Seen(exporter)
    rounds = {span.attributes["shoal.round"]: span for span in seen.named("round")}
    assert set(rounds) == {1, 2}
    assert rounds[1].attributes["reports"] == 2
    assert rounds[1].context.trace_id != rounds[2].context.trace_id
    for whole in rounds.values():
        assert whole.parent is None
        inside = [span for span in seen.spans if span.context.trace_id == whole.context.trace_id]
        names = [span.name for span in inside]
        of_each = ("take part", "check-in", "assign", "train", "report")
        for name, times in {**dict.fromkeys(of_each, 2), "fold": 1, "commit": 1}.items():
            assert names.count(name) == times, (name, sorted(names))
        assert names.count("download") >= 2
        by_id = {span.context.span_id: span for span in inside}
        parent = {span.name: by_id[span.parent.span_id].name for span in inside if span.parent is not None}
        assert parent["take part"] == parent["assign"] == parent["fold"] == parent["commit"] == "round"
        assert parent["check-in"] == parent["train"] == parent["download"] == parent["report"] == "take part"
        assert parent["POST /v1/assignments/{assignment}/report"] == "report"
        assert parent["GET /v1/blobs/{digest}"] == "download"
        assert {span.attributes["device"] for span in inside if span.name == "take part"} == {"bob", "alice"}
        assert all(span.start_time <= span.end_time for span in inside)


def test_a_device_of_an_app_is_traced_too(federation: Federation):
    exporter = InMemorySpanExporter()
    federation.researcher.publish(offset_task(), rounds=1, goal=1, plan=False)
    with tracing.started("app", exporter), open_device(federation, "bob") as device:
        device.observe(*user_data("bob"))
        assert device.sync()
    seen = Seen(exporter)
    assert seen.one("train").context.trace_id == seen.one("take part").context.trace_id


def test_what_goes_wrong_is_marked_and_its_text_stays_here():
    exporter = InMemorySpanExporter()
    of = tracing.Round("key", "line-1", 1)
    with tracing.started("test", exporter), pytest.raises(DataError), tracing.part(of, "train"):
        raise DataError("row 3 has the value 17.25", "mend it")
    span = exporter.get_finished_spans()[0]
    assert (span.status.status_code.name, span.status.description, span.events) == ("ERROR", "DataError", ())


def test_nothing_is_noted_before_the_start_nor_twice():
    assert tracing.span("x") is tracing.span("y") is tracing.part(tracing.Round("k", "t", 1), "z")
    assert tracing.carried() == {}
    with tracing.started("test", InMemorySpanExporter()):
        assert tracing.carried() == {}
        with pytest.raises(ConfigurationError, match="started already"), tracing.started("again"):
            pass
    assert tracing.span("x") is tracing.span("y")


def test_rounds_of_other_coordinators_are_other_traces():
    ids = {tracing.Round(key, task, number).ids for key in "ab" for task in ("t-1", "t-2") for number in (1, 2)}
    assert len(ids) == 8
    assert all(0 < trace < 1 << 128 and 0 < span < 1 << 64 for trace, span in ids)


def test_agents_and_coordinators_decide_alike_which_rounds_are_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    exported = []
    for service in ("coordinator", "agent"):
        exporter = InMemorySpanExporter()
        with tracing.started(service, exporter):
            for number in range(40):
                of = tracing.Round("key", "line-1", number)
                with tracing.part(of, "part"):
                    pass
                tracing.whole(of, 1.0)
        exported.append({(span.name, span.attributes["shoal.round"]) for span in exporter.get_finished_spans()})
    assert exported[0] == exported[1]
    parts, rounds = ({n for name, n in exported[0] if name == wanted} for wanted in ("part", "round"))
    assert parts == rounds
    assert 5 < len(rounds) < 35


def test_settings_for_other_programs_do_no_harm_without_the_package(monkeypatch, capsys):
    monkeypatch.setenv(tracing.VARIABLES[0], "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "shoal.wire.spans", None)
    with tracing.as_environment_says("shoal-agent"):
        assert tracing.span("x") is tracing.span("y")
    assert "no traces: opentelemetry is not installed; pip install 'shoal[otel]'" in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_is_imported_while_traces_are_off():
    code = f"import shoal.agent.agent, shoal.server.serve, sys; print([m for m in {EXTRA} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@contextmanager
def receiver() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A receiver of OTLP/HTTP on the loopback: its address, and what came."""
    came: list[ExportTraceServiceRequest] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = __import__("gzip").decompress(body)
            came.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", came
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


CODE = """
import numpy as np
from tests.agent.federation import line_data, line_task as task


def data():
    return line_data("bob").arrays
"""


@pytest.mark.processes
def test_processes_export_one_trace_of_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "code.py").write_text(CODE)
    with receiver() as (address, came):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        with ServerProcess(tmp_path / "server", tmp_path / "log") as server:
            server.start()
            arguments = ["agent", "--url", server.url, "--token", server.enrolment_token, "--name", "bob"]
            files = ["--home", str(tmp_path / "bob"), "--code", str(tmp_path / "code.py")]
            agent = subprocess.Popen(
                [sys.executable, "-m", "shoal", *arguments, *files],
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            try:
                with Coordinator.connect(server.url, token=server.admin_token) as coordinator:
                    run = coordinator.publish(line_task(), rounds=1, goal=1, plan=False)
                    assert [version.number for version in run.follow(within=100)] == [1]
            finally:
                agent.terminate()
                assert agent.wait(60) == 0
            server.stop()
    spans: dict[str, set[bytes]] = {}
    services: dict[str, set[str]] = {}
    for request in came:
        for resource in request.resource_spans:
            service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    spans.setdefault(span.name, set()).add(span.trace_id)
                    services.setdefault(service, set()).add(span.name)
    (trace_id,) = spans["round"]
    assert {"take part", "check-in", "train", "download", "report"} <= services["shoal-agent"]
    assert {"assign", "fold", "commit", "round", "POST /v1/assignments/{assignment}/report"} <= services["shoal-server"]
    assert all(trace_id in ids for ids in spans.values())
    assert np.all([len(ids) == 1 for ids in spans.values()])
