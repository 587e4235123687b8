"""Every panel of the Grafana dashboard asks for series, labels and outcomes that a coordinator really has."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shoal.server.limits import Limits
from shoal.testing.clock import ManualClock
from tests.server.conftest import delta, report_body, spec
from tests.server.homes import serving

BOARD = json.loads((Path(__file__).parents[2] / "deploy" / "grafana" / "shoal.json").read_text())
SERIES = re.compile(r"\b(shoal_\w+)(\{[^}]*\})?")
OF_PROMETHEUS = {"job", "le"}


def expressions() -> list[tuple[str, str]]:
    found = [(panel["title"], target["expr"]) for panel in BOARD["panels"] for target in panel["targets"]]
    listed = BOARD["templating"]["list"]
    variables = [(each["name"], each["query"]["query"]) for each in listed if each["name"] != "source"]
    return [*found, *variables]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory) -> dict[str, dict[str, set[str]]]:
    """What /metrics says after a round: the labels of every series, and their values."""
    clock = ManualClock()
    with serving(tmp_path_factory.mktemp("home"), clock, Limits(quota=10**9)) as served:
        task = served.publish(spec(rounds=1, goal=1)).id
        bad = report_body({**delta(1.0), "b": np.full((), np.nan, np.float32)})
        given = served.check_in("bob").assignment.id
        assert served.check_in("carol").assignment is None
        assert served.report("bob", given, report_body(delta(1.0))).status_code == 200
        assert served.versions(task, after=0).versions
        served.publish(spec(name="other", rounds=1, goal=1))
        other = served.check_in("carol", training=["other"]).assignment.id
        assert served.report("carol", other, bad).status_code == 422
        assert served.report("carol", "0" * 24, bad).status_code == 410
        text = served.client.get("/metrics").text
    series: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = series.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return series


@pytest.mark.parametrize(("panel", "expression"), expressions())
def test_a_panel_asks_for_what_there_is(panel, expression, exposed):
    asked = SERIES.findall(expression)
    assert asked
    for name, selector in asked:
        assert name in exposed, f"{panel}: {name} is not one of {sorted(exposed)}"
        wanted = set(re.findall(r"(\w+)[=!~]+\"", selector))
        assert wanted <= {*exposed[name], *OF_PROMETHEUS}, f"{panel}: {wanted} of {name}"
    labels = {label for name, _ in asked for label in exposed[name]} | OF_PROMETHEUS
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert {each.strip() for each in group.split(",")} <= labels
    for outcomes in re.findall(r'outcome=~"([^"]*)"', expression):
        assert set(outcomes.split("|")) <= exposed[asked[0][0]]["outcome"]


def test_legends_name_labels_and_panels_do_not_overlap(exposed):
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        columns, rows = (range(place[at], place[at] + place[size]) for at, size in (("x", "w"), ("y", "h")))
        cells = {(x, y) for x in columns for y in rows}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert labels <= {label for name, _ in SERIES.findall(target["expr"]) for label in exposed[name]}
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_no_series_of_the_coordinator_is_left_out(exposed):
    shown = {name for _, expression in expressions() for name, _ in SERIES.findall(expression)}
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in exposed}
    assert families == {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in shown}
