"""A plan as a file, and what is refused of it. The plan under plans/ was exported once; nothing here traces."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import shoal.plan
from shoal.core.errors import PlanError, RuntimeMismatch
from shoal.core.tree import Array, encode
from shoal.plan.manifest import OPSET
from shoal.plan.noise import mix, uniform
from shoal.plan.operators import read
from shoal.plan.run import Plan, from_bytes
from shoal.plan.selftest import mismatches, proved, start

PLANS = Path(__file__).parent / "plans"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return shoal.plan.load(PLANS / "mlp-sgd.plan")


def changed(plan: Plan, parts: Mapping[str, Array]) -> bytes:
    return encode({**plan.tree, **parts})


def manifest(plan: Plan, **changes: object) -> Array:
    text = bytes(plan.tree["manifest"])
    return np.frombuffer(json.dumps({**json.loads(text), **changes}).encode(), np.uint8)


def test_a_saved_plan_is_the_same_plan(plan: Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "again.plan")
    again = shoal.plan.load(tmp_path / "again.plan")
    assert again.digest == plan.digest
    assert again.manifest == plan.manifest


@pytest.mark.slow
def test_training_lowers_the_loss_on_real_rows_and_prediction_follows(plan: Plan) -> None:
    from tests.plan.zoo import batches, houses

    params = start(plan.manifest, plan.golden)
    x, y = houses()["x"][:64], houses()["y"][:64]
    before, rows = plan.evaluate(params, (x, y))
    after, losses = plan.train(params, batches("mlp-sgd", 200))
    assert rows == 64
    assert len(losses) == 200
    assert plan.evaluate(after, (x, y))[0]["loss"] < before["loss"] / 4
    assert plan.evaluate(after, (x, y))[0]["loss"] == pytest.approx(
        np.mean((plan.predict(after, x) - y) ** 2), rel=1e-5
    )


def test_the_golden_step_passes_here(plan: Plan) -> None:
    assert proved(plan) is plan


def test_a_runtime_that_is_wrong_is_not_used(plan: Plan) -> None:
    wrong = Plan(plan.manifest, plan.graphs, {**plan.golden, "loss": plan.golden["loss"] + 1})
    with pytest.raises(RuntimeMismatch, match="the loss is off by 1"):
        proved(wrong)
    assert len(list(mismatches(wrong))) == 1


def test_the_next_runtime_is_tried(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Plan.run

    def bad_when_optimized(self: Plan, graph: str, given: Mapping[str, Array]) -> dict[str, Array]:
        found = run(self, graph, given)
        return {name: array * 2 for name, array in found.items()} if self.runtime == "onnxruntime" else found

    monkeypatch.setattr(Plan, "run", bad_when_optimized)
    assert proved(plan).runtime == "onnxruntime without optimizations"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "format 2"),
        ({"graphs": {}}, "with the graphs"),
        ({"batch": "x"}, "manifest cannot be read"),
        ({"arrays": [{"name": "a"}]}, "manifest cannot be read"),
    ],
)
def test_a_manifest_that_is_not_of_its_graphs_is_refused(plan: Plan, changes: dict[str, object], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        from_bytes(changed(plan, {"manifest": manifest(plan, **changes)}))


def test_what_is_no_plan_is_refused(plan: Plan) -> None:
    for data, said in ((encode({}), "without a manifest"), (b"x" * 20, "cannot be read"), (b"", "cannot be read")):
        with pytest.raises(PlanError, match=said):
            from_bytes(data)
    with pytest.raises(PlanError, match="not bytes"):
        from_bytes(changed(plan, {"manifest": np.zeros(3, np.float32)}))
    with pytest.raises(PlanError, match="not what the manifest says"):
        from_bytes(changed(plan, {"graph/predict": plan.tree["graph/train"]}))


def graph(*nodes: onnx.NodeProto, domain: str = "", **more: object) -> bytes:
    made = helper.make_graph(list(nodes), "g", [], [])
    opsets = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(made, opset_imports=opsets, ir_version=8, **more).SerializeToString()


def test_operators_outside_the_list_are_refused() -> None:
    inner = helper.make_graph([], "inner", [], [])
    stored = onnx.TensorProto(name="w", data_location=onnx.TensorProto.EXTERNAL)
    stored.external_data.add(key="location", value="/etc/passwd")
    cases = {
        "operator Loop": graph(helper.make_node("Loop", [], [], body=inner)),
        "operator evil.Run": graph(helper.make_node("Run", [], [], domain="evil")),
        "operator sets": graph(domain="evil"),
        "a graph within": graph(helper.make_node("Identity", [], [], body=inner)),
        "in another file": graph(helper.make_node("Constant", [], [], value=stored)),
        "is no ONNX model": b"\xff\xff\xff",
        "functions": graph(functions=[helper.make_function("f", "F", [], [], [], [])]),
    }
    for said, data in cases.items():
        with pytest.raises(PlanError, match=said):
            read("train", data)


def test_a_batch_of_another_kind_is_refused(plan: Plan) -> None:
    params = start(plan.manifest, plan.golden)
    with pytest.raises(PlanError, match="a batch of"):
        plan.train(params, [{"x": np.zeros((2, 13))}])
    with pytest.raises(PlanError, match="rows of shape"):
        plan.predict(params, np.zeros((2, 5)))
    with pytest.raises(PlanError, match="params lack"):
        plan.predict({}, np.zeros((2, 13)))


def reference(seed: int, step: int, index: int, element: int) -> float:
    """The numbers of docs/plans.md, in Python's integers."""

    def hashed(h: int) -> int:
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
            h ^= h >> shift
            h = h * factor % 2**32
        return h

    key = 0
    for part in (seed % 2**32, seed // 2**32, step, index):
        key = (hashed(key ^ part) + 1) % 2**32
    return (hashed((hashed(element ^ key) + key) % 2**32) >> 8) / 2**24


def test_noise_is_what_the_page_says() -> None:
    drawn = uniform(2**40 + 17, 5, 3, (40, 5))
    assert [reference(2**40 + 17, 5, 3, e) for e in (0, 1, 77, 199)] == drawn.reshape(-1)[[0, 1, 77, 199]].tolist()
    assert len(np.unique(mix(np.arange(1000, dtype=np.uint32)))) == 1000


def test_noise_is_even() -> None:
    many = np.concatenate([uniform(seed, step, 0, (5000,)) for seed in range(4) for step in range(4)])
    counts, _ = np.histogram(many, 16, (0, 1))
    expected = len(many) / 16
    assert ((counts - expected) ** 2 / expected).sum() < 37.7  # chi-squared, 15 degrees of freedom, one in a thousand
    assert abs(np.corrcoef(many[:-1], many[1:])[0, 1]) < 0.02
