"""What people try who want rows: each is refused, and one changed row changes nothing that a client can see."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import shoal
from shoal.core.errors import NotPermitted, ShoalError
from shoal.remote import virtual
from shoal.remote.catalogue import DataSet

ROWS = 6


def rows(changed: float | None = None) -> torch.Tensor:
    x = torch.arange(ROWS * 3, dtype=torch.float32).reshape(ROWS, 3) / 10
    if changed is not None:
        x[2] = changed
    return x


def worker(changed: float | None = None) -> shoal.VirtualWorker:
    x = rows(changed)
    target = (x.sum(1) > 1).long()
    return shoal.VirtualWorker("bob", data=[DataSet("rows", {"data": x, "target": target}, ("#rows",))])


def one_hot(bob, x):
    return bob.send(torch.eye(ROWS)[2:3]) @ x


def gradient(bob, x):
    weight = bob.send(torch.zeros(3, 1)).requires_grad_()
    (x[2:3] @ weight).sum().backward()
    return weight.grad


def huge_rate(bob, x):
    weight = bob.send(torch.zeros(3, 1)).requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=1e9)
    (x[2:3] @ weight).sum().backward()
    optimizer.step()
    return weight


def labels_through_the_loss(bob, x):
    target = bob.open("rows", "target")
    return functional.cross_entropy(bob.send(torch.eye(2)[[0] * ROWS]), target)


def differences(bob, x):
    return x.sum(0) - x[torch.arange(ROWS).ne(2).nonzero().squeeze(1)[0] :].sum(0)


def written_into_my_own(bob, x):
    mine = bob.send(torch.zeros(ROWS, 3))
    mine.copy_(x)
    return mine


def through_a_view_of_my_own(bob, x):
    mine = bob.send(torch.zeros(ROWS, 3))
    mine[1:2].add_(x[2:3])
    return mine


def through_a_buffer(bob, x):
    norm = shoal.send(nn.BatchNorm1d(3), bob)
    with bob.here():
        norm(x)
    return norm.running_mean


ATTACKS = {
    "indexing": lambda bob, x: x[2],
    "times one": lambda bob, x: x * 1,
    "a copy": lambda bob, x: x.clone(),
    "no values at all": lambda bob, x: x * 0,
    "one-hot product": one_hot,
    "one sum": lambda bob, x: x.sum(),
    "two sums": differences,
    "sorting": lambda bob, x: x.sort(dim=0).values,
    "the largest": lambda bob, x: x.topk(1, dim=0).values,
    "its place": lambda bob, x: x.argmax(),
    "a comparison": lambda bob, x: (x[2] > 0.5).all(),
    "gradient of one row": gradient,
    "a huge learning rate": huge_rate,
    "labels through the loss": labels_through_the_loss,
    "into my own": written_into_my_own,
    "into a view of my own": through_a_view_of_my_own,
    "into a buffer": through_a_buffer,
    "as integers": lambda bob, x: (x * 10).long(),
    "by random choice": lambda bob, x: functional.dropout(x, 0.1),
    "stacked with mine": lambda bob, x: torch.cat([x, bob.send(torch.zeros(1, 3))])[-1],
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_nothing_made_of_a_row_leaves(attack):
    bob = worker()
    made = attack(bob, bob.open("rows"))
    for way in (
        lambda: made.get(),
        lambda: made.detach().get(reason="please"),
        lambda: shoal.get(made.detach()),
        lambda: made.tolist(),
        lambda: made.detach().reshape(-1)[0].item(),
        lambda: made.detach().numpy(),
        lambda: bool(made.detach().reshape(-1)[0] > 0),
        lambda: made.move(shoal.VirtualWorker("mine")),
    ):
        with pytest.raises(NotPermitted):
            way()
    assert "tensor(" not in repr(made)
    assert {line["event"] for line in bob.desk.audit.lines()} == {"refused"}


@pytest.mark.parametrize(
    "ask",
    [lambda x: x.nonzero(), lambda x: x[x > 0.5], lambda x: x.unique(), lambda x: torch.masked_select(x, x > 0)],
    ids=["nonzero", "a mask", "unique", "masked_select"],
)
def test_a_shape_that_depends_on_values_is_refused(ask):
    bob = worker()
    with pytest.raises(NotPermitted, match="shape of its result would show values"):
        ask(bob.open("rows")).get()


# ---- one changed row


OPERATIONS = {
    "add": lambda bob, a, b: a + b,
    "product": lambda bob, a, b: a.t() @ b,
    "rows": lambda bob, a, b: a[: max(1, len(a) // 2)],
    "sum": lambda bob, a, b: a.sum(),
    "sort": lambda bob, a, b: a.sort().values,
    "write": lambda bob, a, b: a.add_(b.sum()),
    "divide by it": lambda bob, a, b: 1 / (a - a),
    "mask": lambda bob, a, b: a[a > 0.3],
    "wrong shapes": lambda bob, a, b: a @ b.reshape(-1)[:5],
    "look up": lambda bob, a, b: functional.embedding(b.long().clamp(0, 4), bob.send(torch.zeros(5, 2))),
    "get": lambda bob, a, b: a.get(reason="to see"),
    "item": lambda bob, a, b: a.sum().item(),
    "print": lambda bob, a, b: repr(a),
    "search": lambda bob, a, b: [each.shape for each in bob.search("#rows", "#data")],
    "catalogue": lambda bob, a, b: str(bob.catalogue()),
    "mock": lambda bob, a, b: bob.mock("rows"),
    "aggregate": lambda bob, a, b: bob.aggregate("rows", epsilon=1.0),
    "sync": lambda bob, a, b: bob.sync(),
}


def seen(changed: float | None, plan: list[tuple[str, int, int]]) -> list[object]:
    """Everything that a client without a grant can see: results, errors, and every byte of the worker."""
    said: list[object] = []
    answer = virtual._Loop._answer

    def heard(loop, data):
        said.append(data)
        answer(loop, data)

    with mock.patch.object(virtual._Loop, "_answer", heard):
        bob = worker(changed)
        said.clear()  # the greeting names the session, at random
        _carry_out(bob, plan, said)
    return said


def _carry_out(bob: shoal.VirtualWorker, plan: list[tuple[str, int, int]], said: list[object]) -> None:
    held = [bob.open("rows"), bob.send(torch.ones(ROWS, 3)), bob.open("rows", "target").float().reshape(-1, 1)]
    for name, left, right in plan:
        try:
            made = OPERATIONS[name](bob, held[left % len(held)], held[right % len(held)])
        except ShoalError as error:
            said.append((type(error).__name__, str(error)))
            continue
        except (RuntimeError, IndexError) as error:
            said.append((type(error).__name__, str(error)))
            continue
        if isinstance(made, torch.Tensor) and type(made).__name__ == "RemoteTensor":
            held.append(made)
            said.append((tuple(made.shape), made.dtype, made.stride()))
        else:
            said.append(str(made))
    said.append(bob.sync())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 9), st.integers(0, 9)), max_size=8),
    st.sampled_from([0.0, -5.0, 1e30, float("nan"), float("inf")]),
)
def test_one_changed_row_changes_nothing_that_a_client_can_see(plan, changed):
    assert seen(None, plan) == seen(changed, plan)
