"""Owners' rows against a task's schema, rows kept out of training, and what goes with a first report."""

import hashlib
import hmac

import numpy as np
import pytest
import torch
from torch import nn

from shoal.agent.data import ArrayData, TableData
from shoal.agent.policy import Policy
from shoal.agent.settings import LocalSettings
from shoal.core.errors import Abandoned, ConfigurationError, SchemaMismatch
from shoal.core.manifest import spec_digest
from shoal.core.seeds import derive, permutation
from shoal.core.tree import encode
from shoal.data.tables import Table
from shoal.train.data import ClientData
from shoal.train.evaluate import evaluate
from tests.agent.federation import Federation, line_data, line_task

RANGES = {"x": (-10.0, 10.0), "y": (-100.0, 100.0)}


def wrong_data(rows: int = 12) -> ArrayData:
    data = line_data("alice", rows)
    x = data.arrays["x"].copy()
    x[3, 1] = 250.0
    return ArrayData({**data.arrays, "x": x})


def test_an_owner_refuses_round_1_when_its_rows_are_not_what_the_task_asks(federation: Federation):
    code = line_task(ranges=RANGES)
    run = federation.researcher.publish(code, rounds=1, goal=1, plan=False)
    federation.start("bob", wrong_data(), code=lambda: code)
    said = federation.said.until("refused round 1")
    assert "'x' at [1] holds 250 in 1 of 12 rows, the task asks for -10 to 10" in said
    assert "'x' at [1] holds 250" in federation.researcher.status(run.id).refusals["bob"]
    assert federation.reported(run.id) == []
    (refusal,) = federation.home("bob").releases()
    assert refusal.kind == "refused"


def test_a_check_over_all_owners_tells_rows_and_ranges(federation: Federation):
    code = line_task(ranges=RANGES)
    owners = {name: line_data(name) for name in ("bob", "alice")}
    for name, data in owners.items():
        federation.start(name, data, code=lambda: code)
    found = federation.researcher.check(code, goal=2, within=20.0)
    assert (found.owners, found.rows) == (2, 24)
    together = np.concatenate([data.arrays["x"] for data in owners.values()])
    for column in range(3):
        assert found.columns[f"x[{column}]"] == (together[:, column].min(), together[:, column].max())
    assert federation.said.until("check: count, minimum, maximum of 4 columns over 12 rows")
    assert [status.phase for status in federation.researcher.tasks()] == ["finished"]
    run = federation.researcher.publish(code, rounds=1, goal=2, plan=False)
    assert [version.reports for version in run.follow()] == [2]


@pytest.mark.slow
def test_a_check_names_the_owner_whose_rows_do_not_fit_and_ends(federation: Federation):
    code = line_task(ranges=RANGES)
    federation.start("bob", code=lambda: code)
    federation.start("alice", wrong_data(), code=lambda: code)
    with pytest.raises(SchemaMismatch, match=r"owner 'alice': 'x' at \[1\] holds 250 in 1 of 12 rows"):
        federation.researcher.check(code, goal=2, within=20.0)
    assert [status.phase for status in federation.researcher.tasks()] == ["cancelled"]


@pytest.mark.slow
def test_a_check_is_for_those_who_have_the_tasks_code(federation: Federation):
    federation.start("bob", code=lambda: line_task(name="other"))
    with pytest.raises(Abandoned, match="line-check-1 has 0 of 1 reports"):
        federation.researcher.check(line_task(), goal=1, within=0.5)
    assert federation.researcher.tasks()[0].phase == "cancelled"


def test_labels_and_batches_of_several_arrays(federation: Federation):
    """A dict of arrays, two inputs, a loss(model, batch), and an accuracy here and at the owner."""
    rng = np.random.default_rng(1)
    rows = {
        "user": rng.integers(0, 5, 40),
        "item": rng.integers(0, 7, 40),
        "liked": rng.integers(0, 2, 40).astype(np.float64),  # the task takes float32
    }
    test = {name: array[:10].astype(np.float32) if name == "liked" else array[:10] for name, array in rows.items()}
    code = line_task(
        name="ratings",
        model=Ratings(),
        loss=ratings_loss,
        metrics={"accuracy": accuracy},
        example=test,
        test=test,
        roles={},
        ranges={"user": (0, 4), "item": (0, 6)},
    )
    federation.start("bob", ArrayData(rows), code=lambda: code, settings=LocalSettings(holdout=0.25))
    run = federation.researcher.publish(code, rounds=2, goal=1, plan=False)
    versions = list(run.follow())
    assert set(versions[1].metrics) == {"loss", "holdout_loss", "holdout_accuracy"}
    mine = run.evaluate(code, versions[1])
    assert set(mine) == {"loss", "accuracy"}
    assert mine == evaluate(code, run.params(2), ClientData("me", test))


class Ratings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.users, self.items = nn.Embedding(5, 4), nn.Embedding(7, 4)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        return (self.users(user) * self.items(item)).sum(-1)


def ratings_loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(model(batch["user"], batch["item"]), batch["liked"])


def accuracy(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return ((model(batch["user"], batch["item"]) > 0) == (batch["liked"] > 0.5)).float().mean()


def test_rows_held_out_are_not_trained_on_and_measure_the_downloaded_version(federation: Federation):
    code = line_task(metrics={"mae": nn.functional.l1_loss})
    data = line_data("bob", 50)
    run = federation.researcher.publish(code, rounds=1, goal=1, plan=False)
    federation.start("bob", data, code=lambda: code, settings=LocalSettings(holdout=0.2))
    (version,) = run.follow()
    held = permutation(derive(0, "bob", "holdout"), 50)[:10]
    rows = {name: array[held] for name, array in data.arrays.items()}
    expected = evaluate(code, run.params(0), ClientData("bob", rows))
    assert version.metrics["holdout_loss"] == pytest.approx(expected["loss"])
    assert version.metrics["holdout_mae"] == pytest.approx(expected["mae"])
    (report,) = federation.reported(run.id)
    assert report.weight == 40 << 16
    (release,) = federation.home("bob").releases()
    assert {"metric holdout_loss", "metric holdout_mae"} <= set(release.what)
    assert "learnt from 40 rows; also metric holdout_loss" in federation.said.until("releasing")


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_neither_part_is_smaller_than_the_policy_asks(share: float, federation: Federation):
    with pytest.raises(ConfigurationError, match="asks for at least 10 in each part"):
        federation.agent("bob", line_data("bob", 20), settings=LocalSettings(holdout=share))
    with pytest.raises(ConfigurationError, match="a holdout of 1"):
        LocalSettings(holdout=1.0)


def test_the_first_report_tells_where_it_comes_from_and_the_rest_do_not(federation: Federation):
    run = federation.researcher.publish(line_task(), rounds=2, goal=1, plan=False)
    data = line_data("bob")
    federation.start("bob", data, policy=Policy(data_digest=True))
    list(run.follow())
    first, second = federation.reported(run.id)
    assert second.origin is None
    assert first.origin is not None
    assert first.origin.environment == run.spec.origin.environment
    assert first.origin.code == run.spec.origin.code
    key = bytes.fromhex(spec_digest(run.spec))
    assert first.origin.data == hmac.new(key, encode(data.arrays), hashlib.sha256).hexdigest()
    releases = list(federation.home("bob").releases())
    assert releases[0].what[-3:] == ("versions", "digest of the code", "digest of the rows")
    assert "versions" not in releases[1].what


@pytest.mark.parametrize(("policy", "told"), [(Policy(), {"bob": ""}), (Policy(versions=False), {})])
def test_a_digest_of_rows_leaves_only_where_the_policy_lets_it(
    policy: Policy, told: dict[str, str], federation: Federation
):
    run = federation.researcher.publish(line_task(), rounds=1, goal=1, plan=False)
    federation.start("bob", policy=policy)
    list(run.follow())
    assert {name: origin.data for name, origin in run.manifest().owners.items()} == told


def test_wider_numbers_are_cast_and_other_kinds_are_not():
    like = {"x": np.zeros((1, 2), np.float32), "y": np.zeros(1, np.int8)}
    given = ArrayData({"x": np.ones((3, 2)), "y": np.array([1, 2, 300])})
    made = given.examples(like)
    assert made["x"].dtype == np.float32
    assert made["y"].dtype == np.int64  # 300 is no int8
    assert ArrayData({"x": np.ones((3, 2), int)}).examples(like)["x"].dtype == np.int64


def test_a_table_names_the_column(federation: Federation):
    table = Table(("a", "b", "c", "price"), np.full((12, 4), 3.0))
    code = line_task(ranges={"x": (0.0, 2.0)}, example=(np.ones((4, 3), np.float32), -np.ones(4, np.float32)))
    federation.researcher.publish(code, rounds=1, goal=1, plan=False)
    federation.start("bob", TableData(table, "price"), code=lambda: code)
    assert "column 'a' holds 3 in 12 of 12 rows" in federation.said.until("refused")
