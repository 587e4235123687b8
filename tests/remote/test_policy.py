"""What leaves: nothing without a grant; with one, this and no more; and all of it is in the owner's log."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import shoal
from shoal.core.errors import ConfigurationError, CorruptStore, NotPermitted, OverLimit, RemoteFailure, StorageFull
from shoal.remote import requests
from shoal.remote.audit import Audit
from shoal.remote.catalogue import DataSet, Range
from shoal.remote.ledger import Ledger
from shoal.remote.policy import Grant, ModelGrant, Policy, ProgramGrant, read_policy
from shoal.remote.requests import Request, Requests, Terms

ROWS = 12


def houses() -> DataSet:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(ROWS, 3, generator=generator)
    columns = {"data": ("a", "b", "c")}
    return DataSet(
        "houses",
        {"data": x, "target": x.sum(1, keepdim=True)},
        ("#houses",),
        columns=columns,
        ranges={name: Range(0, 1) for name in "abc"},
    )


NOTHING = Policy()


def bob(policy: Policy = NOTHING, home: Path | None = None) -> shoal.VirtualWorker:
    return shoal.VirtualWorker("bob", data=[houses()], policy=policy, home=home)


def granting(**grants: object) -> Policy:
    return Policy((Grant("here", "houses", **grants),))  # type: ignore[arg-type]


def events(worker: shoal.VirtualWorker) -> list[str]:
    return [line["event"] for line in worker.desk.audit.lines()]


def key_of(worker: shoal.VirtualWorker, asked: torch.Tensor) -> Request:
    """The request that asking for this files."""
    with pytest.raises(NotPermitted, match="waits for the owner"):
        asked.get(reason="to see how it goes")
    return list(worker.desk.requests)[-1]


def colmeans(x: torch.Tensor) -> torch.Tensor:
    return x.mean(0)


# ---- programs


def test_the_result_of_an_approved_program_leaves_as_often_as_granted():
    worker = bob()
    program = shoal.record(colmeans)
    x = worker.open("houses")
    program(x), program(x)
    request = key_of(worker, program(x))
    assert request.kind == "program"
    assert request.inputs == ("houses.data float32[12, 3]",)
    assert "aten.mean.dim" in request.program
    worker.desk.requests.approve(request.id, Terms(times=2))
    assert torch.allclose(program(x).get(), houses().arrays["data"].mean(0))
    program(x).get()
    with pytest.raises(NotPermitted, match="as often as granted"):
        program(x).get()
    assert events(worker) == ["refused", "released", "released", "refused"]


def test_a_policy_names_the_program_by_its_digest():
    asking = bob()
    program = shoal.record(colmeans)
    x = asking.open("houses")
    program(x), program(x)
    key = key_of(asking, program(x)).key
    worker = bob(granting(program=(ProgramGrant(key),)))
    x, program = worker.open("houses"), shoal.record(colmeans)
    program(x), program(x)
    assert torch.allclose(program(x).get(), houses().arrays["data"].mean(0))


def test_an_approved_program_is_approved_with_its_parameters_and_on_whole_arrays():
    worker = bob()
    weighted = shoal.record(lambda x, w: (x * w).sum())
    x = worker.open("houses")
    flat = worker.send(torch.ones(ROWS, 1))
    weighted(x, flat), weighted(x, flat)
    request = key_of(worker, weighted(x, flat))
    worker.desk.requests.approve(request.id, Terms(times=9))
    weighted(x, flat).get()
    one_hot = worker.send(torch.eye(ROWS)[:, :1].contiguous())
    with pytest.raises(NotPermitted):
        weighted(x, one_hot).get()  # the same program with another parameter would give one row
    total = shoal.record(lambda x: x.sum())
    total(x), total(x)
    request = key_of(worker, total(x))
    worker.desk.requests.approve(request.id, Terms(times=9))
    total(x).get()
    changed = worker.open("houses")
    changed[0].zero_()
    with pytest.raises(NotPermitted):
        total(changed).get()  # differencing two sums would give one row


# ---- models


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x)


def training(worker: shoal.VirtualWorker, lr: float = 0.1):
    model = shoal.send(Net(), worker)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad()
        functional.mse_loss(model(x), y).backward()
        optimizer.step()

    recorded = shoal.record(step)
    started = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(2):  # rehearsed on rows of the client's own, which are recorded; then back to the start
        recorded(worker.send(torch.zeros(6, 3)), worker.send(torch.zeros(6, 1)))
    model.load_state_dict(started)
    return model, recorded


def run(worker: shoal.VirtualWorker, step, steps: int, size: int = 6) -> None:
    x, y = worker.open("houses"), worker.open("houses", "target")
    for at in range(steps):
        first = at * size % ROWS
        step(x[first : first + size], y[first : first + size])


def approved(steps: int, rows: int, clip: float, times: int = 1) -> tuple[shoal.VirtualWorker, nn.Module, object]:
    worker = bob()
    model, step = training(worker)
    run(worker, step, 3)
    request = key_of(worker, model.line.weight)
    assert request.kind == "model"
    assert set(request.inputs) == {"rows of houses.data float32[*, 3]", "rows of houses.target float32[*, 1]", "own"}
    worker.desk.requests.approve(request.id, Terms(times, rows, steps, clip))
    return worker, model, step


def test_a_model_leaves_after_enough_steps_over_enough_rows():
    worker, model, step = approved(steps=6, rows=ROWS, clip=1e9)
    with pytest.raises(NotPermitted, match="6 steps over 12 rows"):
        model.line.weight.get()
    run(worker, step, 10)
    got = model.line.weight.get()
    local, optimizer = Net(), None
    optimizer = torch.optim.SGD(local.parameters(), lr=0.1)
    x, y = houses().arrays["data"], houses().arrays["target"]
    for at in (*range(3), *range(10)):
        first = at * 6 % ROWS
        optimizer.zero_grad()
        functional.mse_loss(local(x[first : first + 6]), y[first : first + 6]).backward()
        optimizer.step()
    assert torch.allclose(got, local.line.weight, atol=1e-6)


def test_what_leaves_is_clipped_and_counts_from_itself():
    worker, model, step = approved(steps=4, rows=6, clip=0.25, times=2)
    run(worker, step, 10)
    first = model.line.weight.detach().get()
    assert float(torch.linalg.vector_norm(first - Net().line.weight.detach())) == pytest.approx(0.25, rel=1e-5)
    with pytest.raises(NotPermitted):
        model.line.weight.get()  # no step lies between: the next counts anew
    run(worker, step, 4)
    second = model.line.weight.detach().get()
    assert torch.linalg.vector_norm(second - first) <= 0.25 + 1e-5
    run(worker, step, 9)
    with pytest.raises(NotPermitted):
        model.line.weight.get()  # twice was granted


def test_one_batch_again_and_again_is_few_rows():
    worker, _, _ = approved(steps=4, rows=ROWS, clip=1.0)
    x, y = worker.open("houses"), worker.open("houses", "target")
    fresh, again = training(worker)
    for _ in range(9):
        again(x[:6], y[:6])
    with pytest.raises(NotPermitted, match="9 steps over 6 rows"):
        fresh.line.weight.get(reason="the same program")


def test_rows_taken_by_number_count_once_each():
    worker, _, _ = approved(steps=4, rows=ROWS, clip=1.0)
    model, step = training(worker)
    x, y = worker.open("houses"), worker.open("houses", "target")
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for numbers in torch.randperm(ROWS, generator=generator).split(6):
            at = worker.send(numbers)
            step(x.index_select(0, at), y.index_select(0, at))
    assert model.line.weight.detach().get().shape == (1, 3)


def test_who_writes_into_a_model_beside_its_training_gets_nothing():
    worker, model, step = approved(steps=2, rows=6, clip=1.0)
    run(worker, step, 6)
    x = worker.open("houses")
    with torch.no_grad():
        model.line.weight.copy_(x[:1])
    with pytest.raises(NotPermitted):
        model.line.weight.get()
    run(worker, step, 6)
    with pytest.raises(NotPermitted):
        model.line.weight.get()


def test_another_learning_rate_is_another_program():
    worker, _, _ = approved(steps=2, rows=6, clip=1.0)
    model, step = training(worker, lr=1e6)
    run(worker, step, 8)
    with pytest.raises(NotPermitted):
        model.line.weight.get()


# ---- single values, aggregates, mocks


def test_a_single_approval_is_for_this_value_once():
    worker = bob()
    x = worker.open("houses")
    total = x.sum() * 2
    request = key_of(worker, total)
    assert request.kind == "value"
    with pytest.raises(NotPermitted, match=f"{request.id} waits"):
        total.get(reason="again")
    assert len(list(worker.desk.requests)) == 1
    worker.desk.requests.approve(request.id, Terms())
    other = x.sum() * 2
    with pytest.raises(NotPermitted):
        other.get()  # an equal value elsewhere: that it is equal is not for clients to find out
    assert total.get() == pytest.approx(float(houses().arrays["data"].sum() * 2))
    with pytest.raises(NotPermitted):
        total.get()


def test_an_approved_value_that_was_written_again_stays():
    worker = bob()
    x = worker.open("houses")
    total = x.sum()
    worker.desk.requests.approve(key_of(worker, total).id, Terms())
    total += x[0, 0]
    with pytest.raises(NotPermitted):
        total.get()


def test_a_refusal_reaches_its_person():
    worker = bob()
    row = worker.open("houses")[0]
    worker.desk.requests.refuse(key_of(worker, row).id, "single rows stay")
    with pytest.raises(NotPermitted, match="was refused: single rows stay"):
        row.get()


def test_noisy_means_spend_an_epsilon_of_the_budget():
    worker = bob(granting(epsilon=30.0))
    real = houses().arrays["data"].double().mean(0)
    found = worker.aggregate("houses", "mean", epsilon=27.0)
    assert torch.allclose(found, real, atol=0.2)
    assert not torch.equal(found, real)
    with pytest.raises(NotPermitted, match="3 of your 30 is left"):
        worker.aggregate("houses", "sum", epsilon=4.0)
    with pytest.raises(ConfigurationError, match="epsilon"):
        worker.aggregate("houses", "mean", epsilon=0.0)
    with pytest.raises(ConfigurationError, match="have a range"):
        worker.aggregate("houses", "mean", array="target", epsilon=1.0)
    with pytest.raises(NotPermitted):
        bob().aggregate("houses", "mean", epsilon=0.1)


def test_the_noise_is_as_wide_as_it_says():
    worker = bob(granting(epsilon=1e9))
    real = houses().arrays["data"].double().sum(0)
    drawn = torch.stack([worker.aggregate("houses", "sum", epsilon=3.0) - real for _ in range(400)])
    # a Laplace variable of scale 1 (sensitivity 1, epsilon 1 for each of three columns) has a mean size of 1
    assert 0.85 < float(drawn.abs().mean()) < 1.15


def test_mock_rows_want_a_grant():
    with pytest.raises(NotPermitted, match="mock"):
        bob().mock("houses")
    worker = bob(granting(mock=True))
    rows = worker.mock("houses")
    assert rows.shape[1] == 3
    assert ((rows >= 0) & (rows <= 1)).all()
    assert events(worker) == ["released"]


@pytest.mark.parametrize("size", [4, 100_000], ids=["small", "in pieces"])
def test_a_tensor_moves_where_both_owners_let_it(size):
    alice, carol = shoal.VirtualWorker("alice"), shoal.VirtualWorker("carol", policy=Policy(largest=size * 4 - 1))
    worker = bob()
    mine = worker.send(torch.ones(size))
    assert torch.equal(mine.move(alice).get(), torch.ones(size))
    with pytest.raises(NotPermitted, match="its owner lets in"):
        mine.move(carol).get()
    assert events(carol) == ["refused"]
    assert events(alice) == []
    with pytest.raises(NotPermitted, match="houses"):
        worker.open("houses").move(alice)
    assert events(worker) == ["refused"]


def test_a_row_that_is_no_number_moves_no_sum_further_than_its_range():
    data = houses()
    data.arrays["data"][3] = float("nan")
    worker = shoal.VirtualWorker("bob", data=[data], policy=granting(epsilon=1e6))
    assert (worker.aggregate("houses", "sum", epsilon=1e3).abs() <= ROWS + 1).all()


# ---- failures


def test_failures_on_private_data_end_the_session_and_then_the_visits():
    worker = bob(Policy(failures=2))
    desk = worker.desk

    def fail(visitor: shoal.VirtualWorker) -> None:
        target = visitor.open("houses", "target").squeeze(1).long() + 1000
        weights = visitor.send(torch.zeros(3, 2))
        functional.embedding(target, weights)
        with pytest.raises(RemoteFailure, match="an operator failed on data that is not yours"):
            visitor.sync()

    fail(worker)
    fail_again = shoal.VirtualWorker("bob", data=[houses()])
    fail_again.host._rules = desk.rules
    assert desk.ledger.spent("failures", "here") == 1
    desk.rules("here").failed(houses().label)
    with pytest.raises(NotPermitted, match="2 failures"):
        desk.rules("here")


# ---- the papers


def test_the_log_is_a_chain(tmp_path):
    audit = Audit(tmp_path / "audit.jsonl")
    for at in range(4):
        audit.write(float(at), "released", person="carol", data=["houses"], what=f"number {at}")
    assert [line["number"] for line in audit.lines()] == [1, 2, 3, 4]
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    for damaged, first in (
        ([lines[0], lines[1].replace("number 1", "number 9"), *lines[2:]], 2),
        ([lines[0], *lines[2:]], 2),
        ([lines[0], lines[0], *lines[1:]], 2),
        ([lines[1], lines[0], *lines[2:]], 1),
        ([*lines[:3], lines[3][:20]], 4),
    ):
        (tmp_path / "audit.jsonl").write_text("\n".join(damaged) + "\n")
        with pytest.raises(CorruptStore, match=f"line {first} "):
            list(audit.lines())
    with pytest.raises(CorruptStore, match="cut off"):
        audit.write(5.0, "released")


def test_budgets_survive_a_restart(tmp_path):
    first = bob(granting(epsilon=2.0), tmp_path)
    first.aggregate("houses", "mean", epsilon=1.5)
    with pytest.raises(NotPermitted, match=r"0\.5 of your 2"):
        bob(granting(epsilon=2.0), tmp_path).aggregate("houses", "mean", epsilon=1.0)
    (tmp_path / "ledger.json").write_text("[")
    with pytest.raises(CorruptStore, match="ledger"):
        Ledger(tmp_path / "ledger.json")


def test_requests_are_few_and_their_ids_tell_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "MOST", 2)
    queue = Requests(tmp_path)
    made = Request("", "carol", 0.0, "value", "k", ("houses",), "a tensor", "please")
    assert [queue.file(made).id, queue.file(made).id] == ["carol-1", "carol-2"]
    with pytest.raises(OverLimit, match="2 requests"):
        queue.file(made)
    (tmp_path / "carol-1.json").unlink()
    assert queue.file(made).id == "carol-3"  # never the number of another
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.glob("*.json")} == {"0o600"}


def test_a_reason_says_nothing_to_a_terminal():
    worker = bob()
    with pytest.raises(NotPermitted):
        worker.open("houses").get(reason="please\x1b[2J\nstate: approved")
    [request] = worker.desk.requests
    assert request.reason == "please [2J state: approved"


def test_nothing_leaves_that_cannot_be_logged(tmp_path, monkeypatch):
    worker = bob(granting(mock=True, epsilon=2.0), tmp_path)
    worker.mock("houses")
    with monkeypatch.context() as full:
        full.setattr("os.fsync", _full)
        with pytest.raises(StorageFull):
            worker.mock("houses")
        with pytest.raises(StorageFull):
            worker.aggregate("houses", epsilon=1.0)
    assert events(worker) == ["released"]
    worker.aggregate("houses", epsilon=2.0)  # what was refused for want of room was not spent
    assert events(worker) == ["released"] * 2


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[[grant]]\nperson='a'", "data"),
        ("[[grant]]\nperson='a'\ndata='b'\nmok=true", "mok"),
        ("[[grant]]\nperson='a'\ndata='b'\nepsilon=-1", "epsilon"),
        ("[[grant]]\nperson='a'\ndata='b'\n[[grant.model]]\ndigest='x'\nrows=1\nsteps=5\nclip=1.0", "rows"),
        ("[[grant]]\nperson='a'\ndata='b'\n[[grant.program]]\ndigest='x'\ntimes=0", "times"),
        ("grant = 3", "grant"),
        ("[[grant]", "."),
    ],
)
def test_a_policy_with_something_else_in_it_is_refused(tmp_path, text, wrong):
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=wrong):
        read_policy(tmp_path / "policy.toml")


def test_a_policy_file_is_read_as_it_is_meant(tmp_path):
    (tmp_path / "policy.toml").write_text(
        "[[grant]]\nperson='*'\ndata='houses'\nmock=true\nepsilon=1\n"
        "[[grant.model]]\ndigest='d'\nrows=10\nsteps=5\nclip=1.0\ntimes=3\n"
    )
    policy = read_policy(tmp_path / "policy.toml")
    assert policy.grant[0].model == (ModelGrant("d", 10, 5, 1.0, 3),)
    assert policy.mock("anybody", "houses")
    assert not policy.mock("anybody", "others")
    assert policy.epsilon("carol", "houses") == 1.0
    assert math.isclose(np.float64(policy.epsilon("carol", "x")), 0.0)
