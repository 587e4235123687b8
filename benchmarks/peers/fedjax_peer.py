"""FedJAX's federated averaging on a workload, by its own compiled loop over clients.

Install `fedjax==0.0.17 jax==0.4.30 jaxlib==0.4.30 dm-haiku==0.0.12 optax==0.2.3 "numpy<2"` in a venv, and then
`python simulate.py --workload w1 --fedjax-venv VENV`.
"""

import fedjax
import jax
import workloads
from jax import Array, lax
from jax import numpy as jnp
from meter import Meter, cpu_seconds, run


def output(name: str, params: list[Array], x: Array) -> Array:
    if name == "w3":
        return x @ params[0].T + params[1]
    if name == "w2":
        for weight, bias in (params[:2], params[2:4]):
            x = _pooled(jax.nn.relu(_convolved(x, weight, bias)))
        return x.reshape(len(x), -1) @ params[4].T + params[5]
    for weight, bias in zip(params[:-2:2], params[1:-2:2], strict=True):
        x = jax.nn.relu(x @ weight.T + bias)
    return x @ params[-2].T + params[-1]


def _convolved(x: Array, weight: Array, bias: Array) -> Array:
    order = ("NCHW", "OIHW", "NCHW")
    return lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=order) + bias[None, :, None, None]


def _pooled(x: Array) -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def loss(name: str, params: list[Array], x: Array, y: Array) -> Array:
    found = output(name, params, x)
    if name in workloads.MLP:
        return ((found - y) ** 2).mean()
    return -jnp.take_along_axis(jax.nn.log_softmax(found), y[:, None], 1).mean()


def measured(meter: Meter) -> None:
    name, work = meter.name, meter.work
    rows = workloads.data(work)
    clients = [fedjax.ClientDataset({"x": x, "y": y}) for x, y in rows]
    gradient = jax.grad(lambda params, batch, _: loss(name, params, batch["x"], batch["y"]))
    batches = fedjax.ShuffleRepeatBatchHParams(batch_size=work.batch, num_epochs=1, skip_shuffle=True)
    averaging = fedjax.algorithms.fed_avg.federated_averaging(
        gradient, fedjax.optimizers.sgd(work.lr), fedjax.optimizers.sgd(1.0), batches
    )
    state = averaging.init([jnp.asarray(array) for array in workloads.initial(name)])
    keys = jax.random.split(jax.random.PRNGKey(0), work.cohort)
    for number, cohort in enumerate(workloads.cohorts(work, meter.rounds)):
        chosen = [(str(client), clients[client], key) for client, key in zip(cohort, keys, strict=True)]
        state, _ = averaging.apply(state, chosen)
        jax.block_until_ready(state.params)
        if number == 0:
            meter.warmed_up()
    spent = cpu_seconds() - meter.warm
    x, y = workloads.test_rows(name, rows)
    meter.tell("fedjax", f"0.0.17, jax {jax.__version__}", float(loss(name, state.params, x, y)), spent)


if __name__ == "__main__":
    run(measured)
