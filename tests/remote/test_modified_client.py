"""What a client program that was changed may send: frames that ours never would. None of them brings rows out."""

from types import SimpleNamespace

import pytest
import torch

import shoal
from shoal.core.errors import BadRequest, NotPermitted, NotRecordable, RefusedOperator, SessionLost
from shoal.remote import frames
from shoal.remote.catalogue import DataSet
from shoal.remote.operators import operator_named
from shoal.remote.requests import Terms

ROWS = 8


def x() -> torch.Tensor:
    return torch.arange(ROWS * 2, dtype=torch.float32).reshape(ROWS, 2) + 1


class Client:
    """Speaks for itself: numbers instead of handles, and any step."""

    def __init__(self) -> None:
        data = DataSet("rows", {"data": x(), "target": x().sum(1, keepdim=True)})
        self.worker = shoal.VirtualWorker("bob", data=[data])
        self.session = self.worker.session

    def own(self, values: torch.Tensor) -> int:
        ident = self.session.new_ident()
        self.session.put(values, ident)
        return ident

    def open(self, array: str = "data") -> int:
        ident = self.session.new_ident()
        self.session.ask("open", name="rows", array=array, ident=ident)
        return ident

    def step(self, name: str, idents: list[int], *args: object, **named: object) -> list[object]:
        number = self.session.number(SimpleNamespace(name=name))  # type: ignore[arg-type]
        return [number, idents, list(args), named]

    def call(self, name: str, *args: object, **named: object) -> int:
        ident = self.session.new_ident()
        self.session._add(self.step(name, [ident], *args, **named))
        return ident

    def write(self, name: str, *args: object, **named: object) -> None:
        self.session._add(self.step(name, [], *args, **named))

    def define(self, steps: list[list[object]], inputs: list[int], outputs: list[int]) -> int:
        program = self.session.new_ident()
        self.session.flush()
        self.session.define(program, steps, inputs, outputs, [])
        return program

    def run(self, program: int, inputs: list[int], results: int = 1) -> list[int]:
        made = [self.session.new_ident() for _ in range(results)]
        self.session.run(program, [inputs], [made])
        return made

    def free(self, ident: int) -> None:
        self.session.gone(ident)
        self.session.flush()

    def get(self, ident: int, reason: str | None = None) -> torch.Tensor:
        return self.session.value(ident, reason)

    def refused(self, ident: int) -> None:
        with pytest.raises((NotPermitted, RefusedOperator, BadRequest, SessionLost)):
            self.get(ident)

    def approve(self, ident: int, **terms: object) -> None:
        with pytest.raises(NotPermitted, match="waits"):
            self.get(ident, "please")
        [*_, request] = self.worker.desk.requests
        self.worker.desk.requests.approve(request.id, Terms(**terms))  # type: ignore[arg-type]


@pytest.fixture
def client() -> Client:
    return Client()


ref = frames.ref


# ---- labels


def test_memory_that_only_programs_hold_keeps_its_label(client):
    mine, private = client.own(torch.zeros(ROWS, 2)), client.open()
    write = client.define([client.step("aten.copy_.default", [], ref(private), ref(private))], [private], [])
    client.free(write)
    given = client.own(torch.zeros(ROWS, 2))
    write = client.define([client.step("aten.copy_.default", [], ref(mine), ref(given))], [given], [])
    seen = client.session.new_ident()
    look = client.define([client.step("aten.detach.default", [seen], ref(mine))], [given], [seen])
    client.free(mine)
    [view] = client.run(look, [given])
    client.run(write, [private], 0)
    client.refused(view)
    again = client.run(look, [given])
    client.refused(again[0])


HIDDEN_VIEWS = {
    "unsafe_view": ("aten._unsafe_view.default", lambda mine: (ref(mine), [ROWS, 2])),
    "unsafe_split": ("aten.unsafe_split.Tensor", lambda mine: (ref(mine), ROWS)),
    "unsafe_chunk": ("aten.unsafe_chunk.default", lambda mine: (ref(mine), 1)),
    "broadcast": ("aten.broadcast_tensors.default", lambda mine: ([ref(mine)],)),
    "einsum": ("aten.einsum.default", lambda mine: ("ij->ij", [ref(mine)])),
    "dropout": ("aten.dropout.default", lambda mine: (ref(mine), 0.5, False)),
    "reshape": ("aten.reshape.default", lambda mine: (ref(mine), [ROWS, 2])),
    "contiguous": ("aten.contiguous.default", lambda mine: (ref(mine),)),
}


@pytest.mark.parametrize(("name", "args"), HIDDEN_VIEWS.values(), ids=HIDDEN_VIEWS)
def test_what_a_program_writes_through_a_view_is_written(client, name, args):
    mine, private = client.own(torch.zeros(ROWS, 2)), client.open()
    view = client.session.new_ident()
    steps = [client.step(name, [view], *args(mine)), client.step("aten.copy_.default", [], ref(view), ref(private))]
    client.run(client.define(steps, [private], []), [private], 0)
    with pytest.raises(NotPermitted):
        client.get(mine)


def test_a_view_at_one_layout_is_not_taken_for_a_copy_at_another(client):
    tall = client.call("aten.t.default", ref(client.own(torch.zeros(2, ROWS))))
    flat, private = client.session.new_ident(), client.open()
    steps = [
        client.step("aten.reshape.default", [flat], ref(tall), [ROWS * 2]),
        client.step("aten.zero_.default", [], ref(flat)),
    ]
    program = client.define(steps, [tall], [])
    [made] = client.run(client.define(steps, [tall], [flat]), [client.own(torch.ones(ROWS, 2))])
    with pytest.raises(BadRequest, match="recorded with others"):
        client.get(made)
    client.run(program, [private], 0)
    client.refused(private)


def test_the_layout_of_what_is_outside_does_not_change(client):
    mine = client.own(torch.zeros(ROWS, 2))
    client.define([client.step("aten.t_.default", [], ref(mine))], [client.own(torch.zeros(1))], [])
    with pytest.raises(NotRecordable, match=r"aten\.t_"):
        client.session.ask("sync")


# ---- values in shapes


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("aten.slice.Tensor", lambda own, private: (own, 0, 0, private)),
        ("aten.select.int", lambda own, private: (own, 0, private)),
        ("aten.as_strided.default", lambda own, private: (own, [private], [1])),
        ("aten.zeros.default", lambda own, private: ([private],)),
        ("aten.narrow.default", lambda own, private: (own, 0, 0, private)),
        ("aten.narrow.Tensor", lambda own, private: (own, 0, private, 1)),
        ("aten.where.default", lambda own, private: (private,)),
        ("aten.repeat_interleave.self_Tensor", lambda own, private: (own, private)),
        ("aten.index.Tensor", lambda own, private: (own, [private])),
        ("aten.one_hot.default", lambda own, private: (private, -1)),
    ],
)
@pytest.mark.parametrize("recorded", [False, True])
def test_no_shape_is_chosen_by_a_value(client, name, args, recorded):
    own = client.own(torch.zeros(100))
    row = client.call("aten.select.int", ref(client.open()), 0, 0)
    number = client.call("aten.select.int", ref(row), 0, 0)
    private = client.call("aten._to_copy.default", ref(number), dtype=frames.Ext(frames.DTYPE, b"int64"))
    if name.startswith("aten.index"):
        private = client.call("aten.gt.Scalar", ref(own), 0)
        client.write("aten.logical_and_.default", ref(private), ref(client.call("aten.gt.Scalar", ref(number), 0)))
    given = args(ref(own), ref(private))
    made = client.session.new_ident()
    if recorded:
        client.define([client.step(name, [made], *given)], [private], [made])
    else:
        client.session._add(client.step(name, [made], *given))
    with pytest.raises((NotPermitted, RefusedOperator, BadRequest, NotRecordable)):
        client.session.ask("layouts", idents=[made])


@pytest.mark.parametrize("name", ["aten.mul.left_t", "aten.add.int", "aten.sort.any", "aten.eq.str"])
def test_overloads_on_other_things_are_refused(client, name):
    made = client.call(name, 1, 1)
    with pytest.raises(RefusedOperator, match=name):
        client.get(made)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
def test_a_write_takes_no_more_memory(client, recorded):
    small, large = client.own(torch.zeros(1)), client.own(torch.zeros(1000))
    step = client.step("aten.add.out", [], ref(large), ref(large), out=ref(small))
    if recorded:
        client.run(client.define([step], [large], []), [large], 0)
    else:
        client.session._add(step)
    with pytest.raises((BadRequest, ValueError), match="another shape"):
        client.get(small)


# ---- approvals


def test_an_approved_result_is_that_and_no_other_part_of_its_memory(client):
    private = client.open()
    ordered, places, middle = (client.session.new_ident() for _ in range(3))
    steps = [
        client.step("aten.sort.default", [ordered, places], ref(private), 0),
        client.step("aten.select.int", [middle], ref(ordered), 0, ROWS // 2),
    ]
    program = client.define(steps, [private], [middle])
    [made] = client.run(program, [private])
    client.approve(made, times=5)
    assert torch.equal(client.get(made), x()[ROWS // 2])
    client.refused(client.call("aten.as_strided.default", ref(made), [ROWS, 2], [2, 1], 0))
    client.refused(client.call("aten.view.dtype", ref(made), frames.Ext(frames.DTYPE, b"uint8")))


@pytest.mark.parametrize("dtype", ["int16", "uint8", "int32"])
def test_whole_arrays_are_whole_in_their_own_dtype(client, dtype):
    private, made = client.open(), client.session.new_ident()
    steps = [client.step("aten.sum.default", [made], ref(private))]
    [total] = client.run(client.define(steps, [private], [made]), [private])
    client.approve(total, times=9)
    assert client.get(total) == x().sum()
    bits = client.call("aten.view.dtype", ref(private), frames.Ext(frames.DTYPE, dtype.encode()))
    part = client.call("aten.as_strided.default", ref(bits), [ROWS, 2], [2, 1], 0)
    [other] = client.run(client.define(steps, [part], [made]), [part])
    client.refused(other)


def test_a_number_in_a_program_is_approved_with_all_its_digits(client):
    private, made = client.open(), client.session.new_ident()

    def weighted(by: float) -> int:
        number = frames.Ext(frames.SCALAR, b"float64:" + torch.tensor(by, dtype=torch.float64).numpy().tobytes())
        steps = [client.step("aten.mul.Tensor", [made], ref(private), number)]
        return client.run(client.define(steps, [private], [made]), [private])[0]

    client.approve(weighted(1.0), times=9)
    client.get(weighted(1.0))
    client.refused(weighted(1.00000001))


def test_a_shape_of_the_same_rows_is_another_program(client):
    private, made = client.open(), client.session.new_ident()
    steps = [client.step("aten.amax.default", [made], ref(private), [-1])]
    [largest] = client.run(client.define(steps, [private], [made]), [private])
    client.approve(largest, times=9)
    deeper = client.call("aten.view.default", ref(private), [ROWS, 2, 1])
    client.refused(client.run(client.define(steps, [deeper], [made]), [deeper])[0])


# ---- kernels that would read or write beyond


FAR = torch.full((1, 1, 2, 2), 10**9)
ONES, ONE = torch.ones(4, 400), torch.ones(1)
BEYOND = {
    "max_pool2d_with_indices_backward": (
        ONE.reshape(1, 1, 1, 1).expand(1, 1, 2, 2).contiguous(),
        torch.zeros(1, 1, 4, 4),
        [2, 2],
        [2, 2],
        [0, 0],
        [1, 1],
        False,
        FAR,
    ),
    "adaptive_max_pool2d_backward": (torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 4, 4), FAR),
    "native_batch_norm": (ONES, ONE, ONE, ONE, ONE, False, 0.1, 1e-5),
    "native_batch_norm_backward": (ONES, ONES, None, None, None, ONE, ONE, True, 1e-5, [True] * 3),
    "_batch_norm_no_update": (ONES, None, None, ONE, ONE, 0.1, 1e-5),
    "native_layer_norm_backward": (ONES, ONES, [400], ONE, ONE, torch.ones(400), torch.ones(400), [True] * 3),
    "_weight_norm_interface_backward": (ONES, ONES, torch.ones(4, 1), ONE, 0),
    "_log_softmax_backward_data": (torch.ones(2, 3), ONES, 1, torch.float32),
}


@pytest.mark.parametrize(("name", "args"), BEYOND.items(), ids=BEYOND)
def test_a_kernel_that_trusts_its_arguments_is_not_called_with_wrong_ones(name, args):
    with pytest.raises(ValueError, match="do not belong together"):
        operator_named(f"aten.{name}.default").call(*args)


@pytest.mark.parametrize("lists", [([ONES], [ONE], []), ([ONES], [], [])])
def test_a_fused_optimizer_wants_a_gradient_of_each_shape(lists):
    settings = {"weight_decay": 0.0, "momentum": 0.0, "lr": 0.1, "dampening": 0.0}
    flags = {"nesterov": False, "maximize": False, "is_first_step": False}
    with pytest.raises(ValueError, match="a fused optimizer"):
        operator_named("aten._fused_sgd_.default").call(*lists, **settings, **flags)
