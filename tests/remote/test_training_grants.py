"""What a grant for a model covers and what not: which rows count, which arrays, what else a client may give."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import shoal
from shoal.core.errors import NotPermitted, RemoteFailure
from shoal.remote.operators import operator_of
from shoal.remote.provenance import Lineage, Source
from shoal.remote.requests import Terms
from shoal.remote.rules import _shortened
from tests.remote.test_policy import ROWS, Net, approved, bob, events, houses, key_of, run, training


def test_a_loader_over_rows_of_the_owner_trains():
    worker, _, _ = approved(steps=4, rows=ROWS, clip=1e9)
    model, step = training(worker)
    rows = TensorDataset(worker.open("houses"), worker.open("houses", "target"))
    local = Net()
    optimizer = torch.optim.SGD(local.parameters(), lr=0.1)
    for epoch in range(3):
        for x, y in DataLoader(rows, 6, shuffle=True, generator=torch.Generator().manual_seed(epoch)):
            step(x, y)
        mine = TensorDataset(houses().arrays["data"], houses().arrays["target"])
        for x, y in DataLoader(mine, 6, shuffle=True, generator=torch.Generator().manual_seed(epoch)):
            optimizer.zero_grad()
            functional.mse_loss(local(x), y).backward()
            optimizer.step()
    assert torch.allclose(model.line.weight.detach().get(), local.line.weight.detach(), atol=1e-6)


@pytest.mark.parametrize("numbers", [[3, 1], torch.tensor([3, 1]), torch.tensor([[-1, 0]])])
def test_rows_by_number_as_in_torch(numbers):
    worker, x = bob(), torch.arange(12.0).reshape(4, 3)
    mine = worker.send(x)
    before = worker.traffic.waits
    found = mine[numbers]
    assert worker.traffic.waits == before
    assert torch.equal(found.get(), x[numbers])
    rows = worker.open("houses")[numbers]
    assert rows.shape == houses().arrays["data"][numbers].shape
    with pytest.raises(NotPermitted):
        rows.get()
    private = (worker.open("houses", "target") * 0).long().squeeze(1)
    with pytest.raises(NotPermitted):
        mine[private].get()


def test_rows_by_number_are_recorded():
    worker = bob()
    pick = shoal.record(lambda x, at: x[at] * 2)
    mine, at = worker.send(torch.arange(4.0)), worker.send(torch.tensor([2, 0]))
    assert [pick(mine, at).tolist() for _ in range(4)] == [[4.0, 0.0]] * 4
    private = worker.open("houses")
    for _ in range(4):
        made = pick(private, at)
    with pytest.raises(NotPermitted):
        made.get()


def test_elements_are_set_as_in_torch():
    worker, x = bob(), torch.ones(3, 4)
    mine = worker.send(x.clone())
    other = bob().send(torch.ones(2))  # the last that was worked at is another worker
    assert other.sum().item() == 2
    for tensor in (x, mine):
        tensor[0] = 0
        tensor[:, 1] = 2.5
        tensor[2] = torch.arange(4.0)
        tensor[torch.tensor([1])] = 7
        tensor[-1, -1] += 1
    assert torch.equal(mine.get(), x)


def test_a_number_beyond_the_rows_is_a_failure_that_says_nothing():
    worker = bob()
    worker.open("houses")[torch.tensor([ROWS])]
    with pytest.raises(RemoteFailure, match="an operator failed on data that is not yours"):
        worker.sync()
    assert events(worker) == ["failed"]


def test_shapes_that_do_not_fit_are_told_and_cost_nothing():
    worker = bob()
    x = worker.open("houses")
    session = worker.session
    for name, args in (
        (torch.ops.aten.mm.default, [x._ref.ext, x._ref.ext]),
        (torch.ops.aten.select.int, [x._ref.ext, 0, 99]),
    ):
        ident = session.new_ident()
        session.step(operator_of(name), [ident], args, {})
        with pytest.raises((RuntimeError, IndexError), match=r"reduction dim|range") as raised:
            session.value(ident, None)
        assert not getattr(raised.value, "__notes__", [])
    assert events(worker) == []
    assert worker.sync()["objects"] >= 1


# ---- which rows


def source() -> Source:
    return Source("houses", "data", ROWS, 3, torch.float32)


def lineage() -> Lineage:
    start = torch.zeros(3)
    return Lineage("k", 0, "", (), (0, (3,), (1,), torch.float32), start, False)


def test_a_row_counts_with_half_the_part_of_the_most_used():
    found, every = lineage(), torch.arange(ROWS).numpy()
    for at in range(0, ROWS, 4):
        found.step([(0, source(), every[at : at + 4])])
    assert found.rows == {"houses": ROWS}
    for _ in range(3):  # one row alone, three times: now the others have a quarter of a step each
        found.step([(0, source(), every[5:6])])
    assert found.rows == {"houses": 1}


def test_of_two_arrays_the_one_with_fewer_rows_counts():
    found, every = lineage(), torch.arange(ROWS).numpy()
    for at in range(ROWS):
        found.step([(0, source(), every[2:3]), (1, source(), every[at : at + 1])])
    assert found.rows == {"houses": 1}


def test_one_row_among_targets_of_many_is_one_row():
    worker, _, _ = approved(steps=2, rows=ROWS, clip=1.0)
    model, step = training(worker)
    x, y = worker.open("houses"), worker.open("houses", "target")
    same = worker.send(torch.tensor([5] * 6))
    for at in (0, 6) * 4:
        step(x.index_select(0, same), y[at : at + 6])
    with pytest.raises(NotPermitted, match="8 steps over 1 rows"):
        model.line.weight.get()


def test_labels_of_the_clients_own_are_another_program():
    worker, _, _ = approved(steps=2, rows=6, clip=1.0)
    model, step = training(worker)
    x = worker.open("houses")
    for at in (0, 6) * 4:
        step(x[at : at + 6], worker.send(torch.zeros(6, 1)))
    request = key_of(worker, model.line.weight)
    assert request.state == "waiting"
    assert any(each.startswith("own ") for each in request.inputs)  # these labels, and no others
    worker.desk.requests.approve(request.id, Terms(1, 6, 2, 1.0))
    step(x[:6], worker.send(torch.ones(6, 1)))
    with pytest.raises(NotPermitted):
        model.line.weight.get()


# ---- which arrays


def with_moments(worker: shoal.VirtualWorker):
    model = shoal.send(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)), worker)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @shoal.record
    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=False)
        functional.mse_loss(model(x), y).backward()
        optimizer.step()

    for _ in range(3):
        step(worker.send(torch.rand(6, 3)), worker.send(torch.zeros(6, 1)))
    return model, optimizer, step


def test_gradients_and_moments_are_no_weights():
    worker = bob()
    model, optimizer, step = with_moments(worker)
    run(worker, step, 4)
    request = key_of(worker, model[1].weight)
    worker.desk.requests.approve(request.id, Terms(9, 6, 2, 1.0))
    model[1].weight.get()
    [moment, *_] = [state["momentum_buffer"] for state in optimizer.state.values()]
    for state in (model[1].weight.grad, moment, model[0].running_mean):
        with pytest.raises(NotPermitted, match="--state"):
            state.get()
    other = key_of(worker, (model[1].weight * 1).detach())
    assert other.kind == "value"
    worker.desk.requests.file(request.__class__(**{**_fields(request), "id": "", "state": "waiting"}))
    again = list(worker.desk.requests)[-1]
    worker.desk.requests.approve(again.id, Terms(9, 6, 2, 1.0, state=True))
    run(worker, step, 4)
    assert torch.linalg.vector_norm(model[0].running_mean.get()) < 2
    assert model[0].num_batches_tracked.get() == 3 + 4 + 4


def _fields(request: object) -> dict[str, object]:
    return {name: getattr(request, name) for name in request.__struct_fields__}  # type: ignore[attr-defined]


def test_the_same_shape_elsewhere_in_the_memory_is_no_weight():
    worker, model, step = approved(steps=2, rows=6, clip=1.0)
    run(worker, step, 6)
    weight = model.line.weight.detach()
    for other in (weight.view(torch.int32), weight.t().t().reshape(3)):
        with pytest.raises(NotPermitted):
            other.get()
    weight.clone()
    assert weight.get().shape == (1, 3)


@pytest.mark.parametrize(
    ("dtype", "end", "left"),
    [
        (torch.float32, [3.0, 4.0], [0.6, 0.8]),
        (torch.float32, [float("nan"), 4.0], [0.0, 0.0]),
        (torch.float32, [float("inf"), 4.0], [0.0, 0.0]),
        (torch.int64, [300, 400], [0, 0]),
        (torch.uint8, [200, 0], [1, 0]),
        (torch.bool, [True, False], [True, False]),
        (torch.complex64, [3 + 4j, 0], [0.6 + 0.8j, 0]),
        (torch.int64, [300], [7]),
    ],
)
def test_a_change_is_shortened(dtype, end, left):
    found = lineage()
    found.start, found.steps = torch.zeros(len(end), dtype=dtype), 7
    assert torch.allclose(_shortened(found, torch.tensor(end, dtype=dtype), 1.0), torch.tensor(left, dtype=dtype))
