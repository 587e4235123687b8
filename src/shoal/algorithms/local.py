"""Optimizers for local training, as plain data.

Each function names one torch.optim class and takes that class's own parameter names; nothing else is accepted when a
task arrives at a device, so a task can never name code to run.
"""

from shoal.core.task import OptimizerSpec


def sgd(
    lr: float,
    *,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> OptimizerSpec:
    """torch.optim.SGD."""
    options = {
        "lr": lr,
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
    }
    return OptimizerSpec("sgd", options)


def adam(
    lr: float = 1e-3,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> OptimizerSpec:
    """torch.optim.Adam; its `betas` pair is given as beta1 and beta2."""
    return OptimizerSpec("adam", {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay})


def adamw(
    lr: float = 1e-3,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> OptimizerSpec:
    """torch.optim.AdamW; its `betas` pair is given as beta1 and beta2."""
    return OptimizerSpec("adamw", {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay})
