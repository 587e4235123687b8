"""The operators that may run at a worker: a positive list, checked on both sides, and what each does to its arguments.

A name is allowed with those of its overloads that make tensors anew or write in place. Left out on purpose: what opens
files or takes storage away (from_file, set_, resize_), kernels that do not check their indices (embedding_bag,
max_unpool), what reads a value to choose a shape and does not say so, everything that is not aten.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._ops import OpOverload

from shoal.core.errors import RefusedOperator
from shoal.remote.trusting import CHECKED

_POINTWISE = """
abs acos acosh add addcdiv addcmul asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil
celu clamp clamp_max clamp_min copysign cos cosh div elu eq erf erfc exp exp2 expm1 floor floor_divide fmod frac ge
gelu glu gt hardshrink hardsigmoid hardswish hardtanh hypot isfinite isinf isnan le leaky_relu lerp log log10 log1p log2
log_sigmoid_forward logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit lt maximum minimum mish
mul nan_to_num ne neg positive pow prelu _prelu_kernel reciprocal relu remainder round rsqrt rsub sgn sigmoid sign
silu sin sinc sinh softplus softshrink sqrt square sub subtract tan tanh threshold trunc where xlogy
multiply divide true_divide negative absolute special_expit
"""
_REDUCTIONS = """
all amax amin any argmax argmin argsort cummax cummin cumprod cumsum linalg_vector_norm log_softmax _log_softmax
logsumexp max mean median min norm prod _softmax softmax sort std std_mean sum topk var var_mean aminmax
"""
_LINEAR = """
addbmm addmm addmv addr baddbmm bmm dot linear matmul mm mv outer convolution _convolution einsum linalg_matrix_norm
"""
_SHAPES = """
_reshape_alias _unsafe_view alias as_strided broadcast_tensors cat clone constant_pad_nd contiguous copy copy_ detach
detach_ diag diag_embed diagonal expand expand_as flatten flip im2col col2im index_select lift lift_fresh movedim
narrow permute pixel_shuffle reflection_pad1d reflection_pad2d repeat repeat_interleave replication_pad1d
replication_pad2d reshape roll rot90 select slice split split_with_sizes squeeze squeeze_ stack swapaxes t to _to_copy
transpose tril triu unbind unfold unsafe_chunk unsafe_split unsqueeze view view_as_complex view_as_real vstack hstack
transpose_ t_ unsqueeze_ unsafe_split_with_sizes select_scatter slice_scatter diagonal_scatter as_strided_scatter
"""
_INDEXING = """
embedding embedding_dense_backward gather index index_add index_copy index_fill index_put _unsafe_index one_hot
masked_fill masked_scatter scatter scatter_add take_along_dim index_put_ bucketize searchsorted masked_select nonzero
unique_dim _unique2 take
"""
_FACTORIES = """
arange empty empty_like empty_strided eye fill full full_like linspace new_empty new_empty_strided new_full new_ones
new_zeros ones ones_like scalar_tensor zero zeros zeros_like
"""
_RANDOM = """
bernoulli exponential normal native_dropout rand rand_like randint randint_like randn randn_like randperm uniform
multinomial random dropout normal_functional
"""
_NETWORKS = """
_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d binary_cross_entropy
binary_cross_entropy_with_logits huber_loss l1_loss max_pool2d_with_indices max_pool3d_with_indices mse_loss
native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional _batch_norm_with_update
_batch_norm_no_update native_group_norm native_layer_norm nll_loss2d_forward
nll_loss_forward smooth_l1_loss soft_margin_loss kl_div upsample_nearest2d upsample_bilinear2d _weight_norm_interface
_thnn_fused_lstm_cell _thnn_fused_gru_cell rms_norm _fused_rms_norm
_scaled_dot_product_flash_attention_for_cpu _safe_softmax mkldnn_rnn_layer
"""
_BACKWARD = """
_adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward adaptive_max_pool2d_backward avg_pool2d_backward
avg_pool3d_backward binary_cross_entropy_backward convolution_backward elu_backward gelu_backward glu_backward
hardsigmoid_backward hardswish_backward hardtanh_backward huber_loss_backward leaky_relu_backward
log_sigmoid_backward _log_softmax_backward_data max_pool2d_with_indices_backward max_pool3d_with_indices_backward
mish_backward mse_loss_backward native_batch_norm_backward native_dropout_backward native_group_norm_backward
native_layer_norm_backward nll_loss2d_backward nll_loss_backward _prelu_kernel_backward select_backward
sigmoid_backward silu_backward slice_backward smooth_l1_loss_backward soft_margin_loss_backward _softmax_backward_data
softplus_backward tanh_backward threshold_backward unfold_backward upsample_nearest2d_backward
upsample_bilinear2d_backward value_selecting_reduction_backward diagonal_backward reflection_pad1d_backward
reflection_pad2d_backward replication_pad1d_backward replication_pad2d_backward softshrink_backward
hardshrink_backward batch_norm_backward _weight_norm_interface_backward _fused_rms_norm_backward
logit_backward
_scaled_dot_product_flash_attention_for_cpu_backward mkldnn_rnn_layer_backward _masked_softmax _masked_softmax_backward
"""
_OPTIMIZERS = """
_foreach_abs _foreach_add _foreach_addcdiv _foreach_addcmul _foreach_copy _foreach_div _foreach_lerp _foreach_maximum
_foreach_mul _foreach_neg _foreach_norm _foreach_pow _foreach_reciprocal _foreach_sign _foreach_sqrt _foreach_sub
_foreach_zero _foreach_clamp_max _foreach_clamp_min _foreach_minimum _fused_adagrad _fused_adam _fused_adamw _fused_sgd
"""

ALLOWED = frozenset(
    name
    for names in (
        _POINTWISE,
        _REDUCTIONS,
        _LINEAR,
        _SHAPES,
        _INDEXING,
        _FACTORIES,
        _RANDOM,
        _NETWORKS,
        _BACKWARD,
        _OPTIMIZERS,
    )
    for name in names.split()
)
"""Base names in aten; the in-place form `add_` is allowed with `add`."""


REFUSED = frozenset({"aten.where.default", "aten.repeat_interleave.self_Tensor", "aten.narrow.Tensor"})
"""Overloads whose shape or place depends on values, though torch does not mark them."""

BY_NUMBERS = frozenset({"aten.index.Tensor"})
"""Operators whose shape depends on values only where they are indexed with masks."""

UNDECLARED = {"aten.native_batch_norm.default": (("running_mean", "running_var"), 5)}
"""What some operators write without saying so in their schema, if the argument of this number is true."""


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """One overload: how to call it, which arguments it writes, which outputs are views of which argument."""

    name: str
    call: Any
    arguments: tuple[str, ...]
    writes: tuple[tuple[int, str], ...]
    views: tuple[int | None, ...]
    returns_written: bool
    returns: int
    random: bool
    data_dependent: bool
    """Whether its output's shape, or a number it gives, may depend on the values of its inputs."""
    out: tuple[str, ...]
    """Names of the arguments whose memory a call may take anew, to fit what it writes there."""
    plain: tuple[int, ...]
    """Places of the arguments that are no tensors: a tensor there would be read for its value."""
    tensors: frozenset[str]
    """Names of those that are."""

    def tells_values(self, args: Any) -> bool:
        """Whether the shape of this call's result depends on the values of its inputs."""
        if not self.data_dependent or self.name not in BY_NUMBERS:
            return self.data_dependent
        return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])

    def written(self, args: Any, kwargs: Any) -> list[Any]:
        """Return the arguments that this call writes."""
        if self.name in UNDECLARED and not args[UNDECLARED[self.name][1]]:
            return []
        return [
            args[at] if at < len(args) else kwargs[name] for at, name in self.writes if at < len(args) or name in kwargs
        ]


_by_call: dict[int, Operator] = {}
_by_name: dict[str, Operator] = {}


def operator_of(call: OpOverload) -> Operator:
    """Return what is known about an overload. Raises RefusedOperator for one that is not on the list."""
    found = _by_call.get(id(call))
    if found is None:
        found = _by_call[id(call)] = _described(call)
    return found


def operator_named(name: str) -> Operator:
    """Return the operator of a name such as `aten.add.Tensor`, as a worker calls it.

    Raises RefusedOperator unless it is on the list.
    """
    found = _by_name.get(name)
    if found is None:
        found = operator_of(_overload(name))
        if name in CHECKED:
            found = replace(found, call=CHECKED[name])
        _by_name[name] = found
    return found


def _overload(name: str) -> OpOverload:
    parts = name.split(".")
    if len(parts) != 3 or parts[0] != "aten" or not _allowed(parts[1]):
        raise _refusal(name)
    packet = getattr(torch.ops.aten, parts[1], None)
    if packet is None or parts[2] not in packet.overloads():
        raise _refusal(name)
    overload: OpOverload = getattr(packet, parts[2])
    return overload


def _allowed(base: str) -> bool:
    return base in ALLOWED or (base.endswith("_") and not base.endswith("__") and base[:-1] in ALLOWED)


def _refusal(name: str) -> RefusedOperator:
    return RefusedOperator(
        f"operator {name[:100]!r} is not on the list of those that run at a worker",
        "write it with others, or ask for its addition: the list is in shoal/remote/operators.py",
    )


def _described(call: OpOverload) -> Operator:
    schema = call._schema
    name = str(call)
    namespace, _, base = schema.name.partition("::")
    if namespace != "aten" or not _allowed(base) or name in REFUSED or not _on_tensors(schema):
        raise _refusal(name)
    taking = [str(argument.type) in _TENSORS for argument in schema.arguments]
    sources = {
        alias: at
        for at, argument in enumerate(schema.arguments)
        if argument.alias_info is not None
        for alias in argument.alias_info.before_set
    }
    return Operator(
        name,
        call,
        tuple(argument.name for argument in schema.arguments),
        tuple(
            (at, argument.name)
            for at, argument in enumerate(schema.arguments)
            if (argument.alias_info is not None and argument.alias_info.is_write)
            or argument.name in UNDECLARED.get(name, ((), 0))[0]
        ),
        tuple(_source(returned, sources) for returned in schema.returns),
        any(returned.alias_info is not None and returned.alias_info.is_write for returned in schema.returns),
        len(schema.returns),
        torch.Tag.nondeterministic_seeded in call.tags,
        torch.Tag.dynamic_output_shape in call.tags or torch.Tag.data_dependent_output in call.tags,
        tuple(argument.name for argument in schema.arguments if argument.is_out),
        tuple(at for at, takes in enumerate(taking) if not takes),
        frozenset(argument.name for argument, takes in zip(schema.arguments, taking, strict=True) if takes),
    )


_TENSORS = frozenset({"Tensor", "Optional[Tensor]", "List[Tensor]", "List[Optional[Tensor]]"})


def _on_tensors(schema: Any) -> bool:
    """Whether an overload gives tensors or writes them in place, and nothing else."""
    if schema.returns:
        return all(str(returned.type) in _TENSORS for returned in schema.returns)
    return any(str(argument.type) in _TENSORS for argument in schema.arguments)


def _source(returned: Any, sources: dict[str, int]) -> int | None:
    if returned.alias_info is None:
        return None
    return next((sources[alias] for alias in returned.alias_info.before_set if alias in sources), None)
