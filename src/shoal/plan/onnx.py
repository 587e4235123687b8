"""From a traced program to an ONNX graph."""

from collections.abc import Mapping

import onnx

from shoal.core.errors import NotExportable
from shoal.plan.graph import Operation, Program
from shoal.plan.lowering.dense import DENSE
from shoal.plan.lowering.emitter import Emitter
from shoal.plan.lowering.pointwise import POINTWISE, Lowering
from shoal.plan.lowering.shapes import SHAPES

LOWERINGS: Mapping[str, Lowering] = {**POINTWISE, **SHAPES, **DENSE}
"""How each core operator of torch is written in ONNX."""

TRUSTED = "leave it out, or publish without a plan for owners who install the code: plan=False, or --no-plan"


def onnx_model(name: str, program: Program, *, named: bool = False) -> onnx.ModelProto:
    """Return a program as an ONNX model, checked; with `named` its nodes tell where they come from.

    Raises NotExportable naming operator, module and line.
    """
    emitter = Emitter(program, named=named)
    for operation in program.operations:
        emitter.bind(operation, _lowering(operation)(emitter, operation))
    model = emitter.model(name)
    onnx.checker.check_model(model, full_check=True)
    return model


def _lowering(operation: Operation) -> Lowering:
    found = LOWERINGS.get(operation.name)
    if found is None:
        raise NotExportable(f"operator {operation.name} {operation.where}", TRUSTED)
    return found
