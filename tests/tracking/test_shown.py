"""What notebooks show: tables that are escaped and small, comparisons, drawings."""

import re
import warnings

import numpy as np
import pytest
import torch

import shoal
from shoal.core import html
from shoal.core.errors import ConfigurationError, Unreachable
from shoal.core.task import LocalPlan
from shoal.core.types import Costs, ModelVersion
from shoal.researcher.run import Run
from shoal.wire.http import Connection
from tests.agent.conftest import federation as federation
from tests.agent.devices import offset_task, open_device, user_data
from tests.agent.federation import URL, Faulty, Federation, line_task
from tests.simulation.cohorts import regression_clients, regression_task

HOSTILE = "<script>alert('x')</script>"
PLAN = LocalPlan(batch_size=4, optimizer=shoal.sgd(0.05))


def shown(thing) -> str:
    """What a notebook would show: well-formed, small, and with nothing to load."""
    text = thing._repr_html_()
    assert "<script" not in text
    assert not re.search(r"\b(src|href|on\w+|style)=", text)
    assert len(text) < 20_000
    open_tags = re.findall(r"<(\w+)", text)
    assert sorted(open_tags) == sorted(re.findall(r"</(\w+)>", text))
    return text


def simulated(rounds=3, test=False, **options):
    rows = (np.ones((4, 4), np.float32), np.ones((4, 1), np.float32))
    task = regression_task(PLAN, **({"test": rows} if test else {}))
    return shoal.simulate(task, regression_clients(), rounds=rounds, trainer="loop", **options)


def test_cells_are_escaped_and_cut():
    assert html.cell(HOSTILE) == "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;"
    assert html.cell({HOSTILE: 1.0}).startswith("&lt;script&gt;")
    assert html.cell([HOSTILE]).startswith("&lt;script&gt;")
    assert html.cell(np.float64(0.1234567)) == "0.12346"
    assert len(html.cell("a" * 10_000)) < 200
    assert html.table(["n"], [[n] for n in range(1000)]).count("<tr>") == 1 + html.MOST_ROWS


def test_a_simulated_run_and_its_versions():
    run = simulated(test=True)
    text = shown(run)
    assert "3 of 3" in text
    assert "test_loss" in text
    assert run.versions[-1].digest[:12] in text
    assert run.versions[-1].digest in shown(run.versions[-1])
    assert shown(run.history).count("<tr>") == 4


def test_a_version_with_hostile_metrics():
    version = ModelVersion(3, "ab" * 32, "cd" * 32, 0.0, reports=2, metrics={HOSTILE: 1.5}, costs=Costs(bytes_up=12345))
    assert "12,345 bytes up" in shown(version)


def test_a_partition():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 2)).astype(np.float32), rng.integers(0, 3, 60)
    parts = shoal.data.by_id(x, y, [HOSTILE if i % 2 else "bob" for i in range(60)])
    assert "<th>2</th>" in shown(parts)
    many = shoal.data.iid(x, rng.standard_normal(60), 60)
    assert "the last 50 of 60 rows" in shown(many)


def test_a_remote_tensor_shows_no_value():
    bob = shoal.VirtualWorker("bob")
    sent = bob.send(torch.full((2, 3), 7.25), tags=("#x",), description=HOSTILE)
    text = shown(sent)
    assert "(2, 3)" in text
    assert "bob" in text
    assert "#x" in text
    assert "7.25" not in text
    assert "<td>bob</td><td>2</td>" in shown(shoal.FederatedTensor.deal(torch.ones(2, 2), [bob]))


@pytest.mark.slow
def test_a_published_run_also_while_its_coordinator_is_away(federation: Federation):
    federation.start("bob")
    run = federation.researcher.publish(line_task(), rounds=2, goal=1, plan=False)
    run.track(show=False)
    assert "2 of 2" in shown(run)
    assert shown(run.history).count("<tr>") == 3
    away = Faulty(federation.transport, "/versions", [Unreachable("no", "wait")], after=False)
    text = shown(Run(Connection(URL, federation.admin, transport=away), run.id, run.spec))
    assert run.id in text
    mixed = shoal.compare([run, simulated(rounds=1)])
    assert [row["rounds"] for row in mixed.rows()] == [2, 1]


@pytest.mark.slow
def test_a_device(federation: Federation):
    federation.researcher.publish(offset_task(), rounds=1, goal=1, plan=False)
    with open_device(federation, "bob") as device:
        device.observe(*user_data("bob"))
        text = shown(device)
    assert "device bob" in text
    assert "global" in text


def test_runs_are_compared_by_name_and_in_a_list():
    one, two = simulated(rounds=2, test=True), simulated(rounds=4, test=True)
    compared = shoal.compare({HOSTILE: one, "longer": two})
    assert compared.column == "test_loss"
    losses = two.history.column("test_loss")
    row = compared.rows()[1]
    assert (row["rounds"], row["first"], row["last"]) == (4, losses[0], losses[-1])
    assert (row["best"], row["at round"]) == (min(losses), 1 + losses.index(min(losses)))
    assert compared.best in ("longer", HOSTILE)
    assert "longer" in shown(compared)
    assert shoal.compare([one, two], "loss", highest=True).rows()[0]["best"] == max(one.history.column("loss"))
    assert [row["run"] for row in shoal.compare([one, two]).rows()] == [one.spec.name, f"{one.spec.name} 2"]
    with pytest.raises(ConfigurationError, match="no column 'accuracy'"):
        shoal.compare([one], "accuracy")
    with pytest.raises(ConfigurationError, match="no runs"):
        shoal.compare([])


@pytest.mark.slow
def test_runs_are_drawn_in_one_picture():
    one, two = simulated(rounds=2), simulated(rounds=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # matplotlib's own
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

        compared = shoal.compare({"short": one, "long": two})
        axes, own = compared.plot(), one.plot()
        pyplot.close("all")
    assert [line.get_label() for line in axes.lines] == ["short", "long"]
    assert axes.lines[1].get_ydata().tolist() == two.history.column("loss")
    assert own.lines[0].get_ydata().tolist() == one.history.column("loss")
    assert compared.to_pandas().to_dict("records")[1]["rounds"] == 4
