"""What Prometheus reads after a real round, and who may read it."""

import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shoal.server.limits import Limits
from shoal.testing.clock import ManualClock
from tests.server.conftest import delta, report_body, spec
from tests.server.homes import serving, train


def scrape(served, **headers):
    answer = served.client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def test_a_round_is_counted(tmp_path):
    clock = ManualClock()
    with serving(tmp_path, clock, Limits(quota=10**9)) as served:
        task = served.publish(spec(rounds=1, goal=2)).id
        given = {name: served.check_in(name).assignment.id for name in ("bob", "alice")}
        assert served.check_in("carol").assignment is None
        sent = report_body(delta(1.0))
        assert served.report("bob", given["bob"], sent).status_code == 200
        assert served.report("bob", given["bob"], sent).status_code == 200
        assert served.report("bob", given["bob"], report_body(delta(2.0))).status_code == 409
        bad = report_body({**delta(1.0), "b": np.full((), np.nan, np.float32)})
        served.publish(spec(name="other", rounds=1, goal=1))
        other = served.check_in("carol", training=["other"]).assignment.id
        assert served.report("carol", other, bad).status_code == 422
        assert served.report("alice", given["alice"], report_body(delta(1.0))).status_code == 200
        assert served.versions(task, after=0).versions
        assert served.report("carol", "0" * 24, sent).status_code == 410
        clock.advance(60)
        found = scrape(served)
    assert found["shoal_check_ins_total", "assigned"] == 3
    assert found["shoal_check_ins_total", "waiting"] == 1
    assert found["shoal_assignments_total", "plain"] == 2
    assert found["shoal_reports_total", "", "accepted", "plain"] == 2
    assert found["shoal_reports_total", "", "plain", "repeated"] == 1
    assert found["shoal_reports_total", "conflict", "plain", "refused"] == 1
    assert found["shoal_reports_total", "other", "refused", "refused_update"] == 1
    assert found["shoal_reports_total", "", "gone", "late"] == 1
    assert found["shoal_rounds_total", "committed", "plain"] == 1
    assert found["shoal_tasks_ended_total", "finished"] == 1
    assert found["shoal_fold_seconds_count", "plain"] == 1
    assert found["shoal_commit_seconds_sum", "plain"] >= found["shoal_fold_seconds_sum", "plain"] > 0
    assert found["shoal_received_bytes_total",] > 5 * len(sent)
    assert found["shoal_sent_bytes_total",] > 1000
    assert found["shoal_devices_enrolled",] == found["shoal_devices_seen_last_hour",] == 3
    assert found["shoal_tasks_running",] == 1
    assert found["shoal_store_append_seconds_count",] >= 10
    assert found["shoal_store_group_size_sum",] == found["shoal_store_append_seconds_count",]
    assert found["shoal_disk_used_bytes",] > 10_000
    assert found["shoal_disk_free_bytes",] > 0
    assert found["shoal_disk_quota_bytes",] == 10**9
    assert found["shoal_open_long_polls",] == 0


@pytest.mark.slow
def test_a_round_that_fails_is_counted(served):
    served.publish(spec(goal=2, rounds=1))
    for _ in range(2):
        served.check_in("bob")
        served.clock.advance(61)
        served.coordinator.bell.ring()
        served.versions("plain", after=99, wait=1.5)
    found = scrape(served)
    assert found["shoal_rounds_total", "abandoned", "plain"] >= 1


def test_devices_that_called_long_ago_are_not_counted(served):
    served.check_in("bob")
    served.clock.advance(3601)
    served.check_in("alice")
    assert scrape(served)["shoal_devices_seen_last_hour",] == 1


@pytest.mark.slow
def test_a_held_request_is_counted(served):
    from concurrent.futures import ThreadPoolExecutor

    task = served.publish(spec()).id
    served.device("bob")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(served.check_in, "bob", training=["none"], statistics=False, wait=20.0)
        counts = (scrape(served)["shoal_open_long_polls",] for _ in range(1000))
        assert any(count == 1 for count in counts)
        served.coordinator.bell.close()
        assert held.result(20).assignment is None
    assert task


def test_labels_never_name_a_device(tmp_path):
    with serving(tmp_path, ManualClock()) as served:
        train(served, served.publish(spec(rounds=1, goal=1)).id, range(1, 2))
        assert "bob" not in served.client.get("/metrics").text


VIA_PROXY = [{"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}, {"Via": "1.1 proxy"}]


@pytest.mark.parametrize("header", VIA_PROXY, ids=str)
def test_strangers_need_a_token(served, header):
    answer = served.client.get("/metrics", headers=header)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorised")
    enrolment = served.client.get("/metrics", headers={**header, **served.people(served.enrolment)})
    assert enrolment.status_code == 403
    device = served.client.get("/metrics", headers={**header, **served.device("bob")})
    assert device.status_code == 403
    viewer = served.coordinator.identities.issue("viewer", 0.0)
    assert ("shoal_info", "0.1.0") in scrape(served, **header, **served.people(viewer))


def test_metrics_may_be_public(tmp_path):
    with serving(tmp_path, ManualClock(), metrics_public=True) as served:
        assert scrape(served, **VIA_PROXY[0])["shoal_tasks_running",] == 0


def test_the_page_lists_every_metric(served):
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    listed = set(re.findall(r"`(shoal_\w+)", page))
    families = text_string_to_metric_families(served.client.get("/metrics").text)
    there = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert listed == {name for name in there if not name.endswith("_created")}
