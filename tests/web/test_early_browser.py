"""Carol trains in a browser, bob and alice with Python agents, and every version is the exact mean of the three."""

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shoal.algorithms import registry
from shoal.algorithms.strategy import advance, trainable
from shoal.core.seeds import derive
from shoal.core.task import TaskSpec, weight_units
from shoal.core.tree import Tree, digest
from shoal.core.types import Update
from shoal.data import Table, boston_table, deal, split, write_csv
from shoal.data.boston import TARGET
from shoal.demo import regression
from shoal.researcher.coordinator import Coordinator
from shoal.researcher.run import Run
from shoal.train.data import ClientData
from shoal.train.loop import LoopTrainer
from shoal.train.task import Task
from shoal.wire.codec import decode_tree, head_length, read_head, split_trees
from shoal.wire.messages import ReportHead
from tests.web.early import FOLDER, PAGE, install, program

pytestmark = pytest.mark.processes

# models this small lose time to a second thread
torch.set_num_threads(1)

ROUNDS = 3
SEED = 7
OWNERS = ("bob", "alice", "carol")
TABLES = dict(zip(OWNERS, deal(split(boston_table())[0], len(OWNERS)), strict=True))


@contextmanager
def child(*arguments: str, token: str = "", pipe: bool = False) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal", *arguments],
        stdout=subprocess.PIPE if pipe else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "SHOAL_TOKEN": token},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def agent(url: str, name: str, folder: Path) -> list[str]:
    rows = ["--data", str(folder / f"{name}.csv"), "--target", TARGET]
    code = str(Path(regression.__file__))
    return ["agent", "--url", url, "--name", name, "--code", code, *rows, "--home", str(folder / name)]


def browse(**what: object) -> dict[str, Any]:
    """Let a user in headless Chromium do what `drive.mjs` says, and return what was seen."""
    done = subprocess.run(
        ["node", str(FOLDER / "drive.mjs")],
        input=json.dumps({"program": program("chromium"), **what}),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@dataclass(frozen=True)
class Seen:
    """What the run left: the task, every version's travelling arrays, and what the browser saw."""

    run: Run
    task: Task
    digests: list[str]
    params: list[Tree]
    browser: dict[str, Any]

    @property
    def spec(self) -> TaskSpec:
        return self.run.spec

    def carols(self) -> list[tuple[ReportHead, bytes]]:
        bodies = [base64.b64decode(report["body"]) for report in self.browser["reports"]]
        lengths = [4 + head_length(body) for body in bodies]
        return [(read_head(body[4:length]), body[length:]) for body, length in zip(bodies, lengths, strict=True)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    install()
    program("chromium")
    folder = tmp_path_factory.mktemp("early")
    for name, table in TABLES.items():
        write_csv(folder / f"{name}.csv", table)
    port = free_port()
    friend = f"http://localhost:{port}"
    home = ("server", "--home", str(folder / "home"), "--port", str(port), "--json")
    with ExitStack() as running:
        server = running.enter_context(child(*home, "--page", str(PAGE), "--allow-origin", friend, pipe=True))
        assert server.stdout is not None
        announced = json.loads(server.stdout.readline())
        url, token = announced["url"], announced["enrolment_token"]
        for name in ("bob", "alice"):
            running.enter_context(child(*agent(url, name, folder), token=token))
        coordinator = running.enter_context(Coordinator.connect(url, token=announced["admin_token"]))
        columns = (*TABLES["bob"].without(TARGET).columns, TARGET)
        task = regression.task(13, coordinator.statistics(columns, goal=2), lr=0.01)
        run = coordinator.publish(task, rounds=ROUNDS, goal=3, seed=SEED, plan=False)
        browser = browse(
            url=url,
            token=token,
            rows=str(folder / "carol.csv"),
            rounds=ROUNDS,
            profile=str(folder / "profile"),
            friend=friend,
            person=announced["admin_token"],
        )
        versions = list(run.follow(within=60.0))
        # version 0 is the task's own
        everything = [run.params(version) for version in coordinator.versions(run.id)]
        params = [{name: tree[name] for name in run.spec.travelling} for tree in everything]
        yield Seen(run, task, [version.digest for version in versions], params, browser)


def trained(seen: Seen, name: str, table: Table, number: int) -> Update:
    """Train an owner's rows for one round with the reference trainer."""
    rows = {"x": table.features(TARGET), "y": table.target(TARGET)}
    client = ClientData(name, rows, name, derive(SEED, number, name))
    (update,) = LoopTrainer(seen.task).train(seen.params[number - 1], seen.spec.local, [client])
    return update


def combined(seen: Seen, updates: list[Update], start: Tree) -> str:
    """Return the digest of the version that these updates make of `start`."""
    aggregator = registry.aggregator(seen.spec.aggregator)
    total = aggregator.init(seen.spec)
    for update in updates:
        total = aggregator.add(total, update)
    server = registry.server_optimizer(seen.spec.server)
    arrays = seen.spec.travelling
    delta = aggregator.finish(total)["delta"]
    moved, _ = advance(arrays, start, delta, server, server.init(trainable(arrays, start)))
    return digest(moved)


def test_each_version_is_the_exact_mean_of_the_three_updates(seen):
    carols = seen.carols()
    assert len(seen.digests) == len(carols) == ROUNDS
    for number, (head, data) in enumerate(carols, start=1):
        owners = [trained(seen, name, TABLES[name], number) for name in ("bob", "alice")]
        assert head.weight == weight_units(len(TABLES["carol"].values))
        browsers = Update("carol", split_trees(decode_tree(data))["delta"], head.weight)
        assert combined(seen, [browsers, *owners], seen.params[number - 1]) == seen.digests[number - 1]


def test_the_browser_trains_like_torch(seen):
    for number, (head, data) in enumerate(seen.carols(), start=1):
        expected = trained(seen, "carol", TABLES["carol"], number)
        delta = split_trees(decode_tree(data))["delta"]
        assert head.metrics["loss"] == pytest.approx(expected.metrics["loss"], rel=1e-5)
        assert delta.keys() == expected.delta.keys()
        for name, change in delta.items():
            start = seen.params[number - 1][name]
            wanted = start + expected.delta[name]
            error = np.abs(start + change - wanted).max() / np.abs(wanted).max()
            assert error < 1e-5, (number, name, error)
            assert np.abs(change).max() > 1e-4


def test_what_was_released_was_shown_and_received_once(seen):
    """The first reply was lost and the tab reloaded: the report came again, with the same bytes."""
    assert "got no answer" in seen.browser["lost"]
    assert [report["status"] for report in seen.browser["reports"]] == [200] * ROUNDS
    shown = {row[4]: row for row in seen.browser["table"]}
    for number, ((head, data), report) in enumerate(zip(seen.carols(), seen.browser["reports"], strict=True), start=1):
        assert head.digest == report["receipt"]["digest"] == sha256(data).hexdigest()
        assert shown[head.digest][:2] == [seen.run.id, str(number)]
        assert f"learnt from {len(TABLES['carol'].values)} rows" in shown[head.digest][2]
    assert [row[1] for row in seen.browser["table"]] == [str(number) for number in range(1, ROUNDS + 1)]


def test_the_page_works_under_a_policy_that_lets_nothing_leak(seen):
    assert seen.browser["leak"] == "connect-src"
    unexpected = [problem for problem in seen.browser["problems"] if "net::ERR_CONNECTION_RESET" not in problem]
    assert unexpected == []


def test_an_address_that_is_not_secure_is_named(seen):
    assert "not secure" in seen.browser["insecure"]


def test_only_the_origin_that_was_named_may_call(seen):
    assert seen.spec.name in seen.browser["friend"]
    assert seen.browser["stranger"] == "TypeError"
