"""Recurrent layers as torch computes them on a processor, which is what a worker has.

On a device that it does not know torch uses other kernels, and the last bits differ. The order of operators here is
that of ATen's `native/RNN.cpp` and `native/mkldnn/RNN.cpp`.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

aten = torch.ops.aten

Tensors: TypeAlias = Sequence[torch.Tensor]
Cell: TypeAlias = Callable[[torch.Tensor, Tensors, Tensors], list[torch.Tensor]]
"""From a step's inputs, multiplied by their weights already, the states, and the weights, to the next states."""

LSTM = 2
"""mkldnn's number for this kind of layer."""


def _hidden(states: Tensors, params: Tensors) -> torch.Tensor:
    return torch.nn.functional.linear(states[0], params[1], params[3] if len(params) > 2 else None)


def _inputs(rows: torch.Tensor, params: Tensors) -> torch.Tensor:
    return torch.nn.functional.linear(rows, params[0], params[2] if len(params) > 2 else None)


def _gru(inputs: torch.Tensor, states: Tensors, params: Tensors) -> list[torch.Tensor]:
    of_input = inputs.unsafe_chunk(3, 1)
    of_hidden = _hidden(states, params).unsafe_chunk(3, 1)
    reset = of_hidden[0].add_(of_input[0]).sigmoid_()
    update = of_hidden[1].add_(of_input[1]).sigmoid_()
    new = of_input[2].add(of_hidden[2].mul_(reset)).tanh_()
    return [(states[0] - new).mul_(update).add_(new)]


def _lstm(inputs: torch.Tensor, states: Tensors, params: Tensors) -> list[torch.Tensor]:
    gates = _hidden(states, params).add_(inputs).unsafe_chunk(4, 1)
    into, forget = gates[0].sigmoid_(), gates[1].sigmoid_()
    cell, out = gates[2].tanh_(), gates[3].sigmoid_()
    carried = (forget * states[1]).add_(into * cell)
    hidden = out * carried.tanh()
    if len(params) in (3, 5):
        hidden = hidden.matmul(params[-1].t())
    return [hidden, carried]


def _tanh(inputs: torch.Tensor, states: Tensors, params: Tensors) -> list[torch.Tensor]:
    return [torch.tanh(_hidden(states, params).add_(inputs))]


def _relu(inputs: torch.Tensor, states: Tensors, params: Tensors) -> list[torch.Tensor]:
    return [torch.relu(_hidden(states, params).add_(inputs))]


def _layer(
    cell: Cell, rows: torch.Tensor, states: Tensors, params: Tensors, back: bool
) -> tuple[torch.Tensor, Tensors]:
    steps = _inputs(rows, params).unbind(0)
    outputs = []
    for step in reversed(steps) if back else steps:
        states = cell(step, states, params)
        outputs.append(states[0])
    return torch.stack(outputs[::-1] if back else outputs, 0), states


Layer: TypeAlias = Callable[[torch.Tensor, Tensors, Tensors, bool], tuple[torch.Tensor, Tensors]]


def _layers(
    layer: Layer,
    x: torch.Tensor,
    states: Sequence[Tensors],
    params: Sequence[Tensors],
    dropout: float,
    directions: int,
    batch_first: bool,
) -> tuple[torch.Tensor, ...]:
    """Compute all layers: the output, then each last state of all of them."""
    rows = x.transpose(0, 1) if batch_first else x
    last: list[Tensors] = []
    for first in range(0, len(params), directions):
        outputs = []
        for at in range(first, first + directions):
            output, state = layer(rows, states[at], params[at], at > first)
            outputs.append(output)
            last.append(state)
        rows = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        if dropout and first + directions < len(params):
            rows = torch.dropout(rows, dropout, train=True)
    output = rows.transpose(0, 1) if batch_first else rows
    return (output, *(torch.stack(list(each), 0) for each in zip(*last, strict=True)))


def _parts(params: Tensors, count: int) -> list[Tensors]:
    each = len(params) // count
    return [params[at : at + each] for at in range(0, len(params), each)]


def of_one_state(cell: Cell) -> Callable[..., Any]:
    """Return torch's operator for a layer with a hidden state, such as `aten.gru.input`."""

    def compute(
        x: torch.Tensor, hx: torch.Tensor, params: Tensors, _: bool, num_layers: int, dropout: float, train: bool,
        bidirectional: bool, batch_first: bool,
    ) -> Any:  # fmt: skip
        directions = 2 if bidirectional else 1
        states = [[each] for each in hx.unbind(0)]
        parts = _parts(params, num_layers * directions)

        def layer(rows: torch.Tensor, state: Tensors, each: Tensors, back: bool) -> tuple[torch.Tensor, Tensors]:
            return _layer(cell, rows, state, each, back)

        return _layers(layer, x, states, parts, dropout if train else 0.0, directions, batch_first)

    return compute


def lstm(
    x: torch.Tensor, hx: Tensors, params: Tensors, has_biases: bool, num_layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool,
) -> Any:  # fmt: skip
    """Compute torch's LSTM: output, last hidden states, last cell states."""
    directions = 2 if bidirectional else 1
    parts = _parts(params, num_layers * directions)
    projected = len(parts[0]) in (3, 5)
    in_one_kernel = x.dtype == torch.float32 and x.numel() > 0 and not projected
    size = hx[0].shape[2]

    def kernel(rows: torch.Tensor, state: Tensors, each: Tensors, back: bool) -> tuple[torch.Tensor, Tensors]:
        first, second, *biases = each
        biases = biases or [torch.zeros_like(first[:, 0]), torch.zeros_like(second[:, 0])]
        made = aten.mkldnn_rnn_layer.default(
            rows, first, second, *biases, *state, back, [], LSTM, size, num_layers, has_biases, bidirectional,
            batch_first, torch.is_grad_enabled(),
        )  # fmt: skip
        return made[0], made[1:3]

    def layer(rows: torch.Tensor, state: Tensors, each: Tensors, back: bool) -> tuple[torch.Tensor, Tensors]:
        return _layer(_lstm, rows, state, each, back)

    if in_one_kernel:
        x = (x.transpose(0, 1) if batch_first else x).contiguous()
        hidden, cell = hx[0].contiguous(), hx[1].contiguous()
        states = [[hidden[at], cell[at]] for at in range(len(parts))]
        output, *last = _layers(kernel, x, states, parts, dropout if train else 0.0, directions, False)
        return (output.transpose(0, 1) if batch_first else output, *last)
    pairs = [list(each) for each in zip(hx[0].unbind(0), hx[1].unbind(0), strict=True)]
    return _layers(layer, x, pairs, parts, dropout if train else 0.0, directions, batch_first)


def _cell(cell: Cell, single: bool) -> Callable[..., Any]:
    def compute(
        x: torch.Tensor, hx: Any, w_ih: torch.Tensor, w_hh: torch.Tensor, b_ih: Any = None, b_hh: Any = None
    ) -> Any:
        params = [w_ih, w_hh] if b_ih is None else [w_ih, w_hh, b_ih, b_hh]
        made = cell(_inputs(x, params), [hx] if single else hx, params)
        return made[0] if single else tuple(made)

    return compute


WHOLE: dict[Any, Callable[..., Any]] = {
    aten.lstm.input: lstm,
    aten.gru.input: of_one_state(_gru),
    aten.rnn_tanh.input: of_one_state(_tanh),
    aten.rnn_relu.input: of_one_state(_relu),
    aten.lstm_cell.default: _cell(_lstm, single=False),
    aten.gru_cell.default: _cell(_gru, single=True),
    aten.rnn_tanh_cell.default: _cell(_tanh, single=True),
    aten.rnn_relu_cell.default: _cell(_relu, single=True),
}
"""By torch's operator."""
