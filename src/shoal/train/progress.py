"""How far every client of a cohort has come in a round, and what its optimizer needs to know of that."""

from dataclasses import dataclass

import torch

from shoal.core.rate import CONSTANT
from shoal.core.task import LocalPlan
from shoal.train.functional import Arrays, StackedOptimizer
from shoal.train.packing import Turn


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """How many steps every client has `taken` [C]."""

    optimizer: StackedOptimizer
    plan: LocalPlan
    round: int
    taken: torch.Tensor

    def next(self, turn: Turn) -> Arrays:
        """Count the step of a turn and return the optimizer's factors for it."""
        if not self.optimizer.counts_steps:
            return []
        self.taken[turn.stepping] += 1
        steps = self.taken[turn.which]
        return self.optimizer.factors(steps, self._rates(steps))

    def _rates(self, steps: torch.Tensor) -> torch.Tensor:
        if not scheduled(self.plan):
            return torch.ones(len(steps), dtype=torch.float64)
        of_round = self.plan.per_round.at(self.round - 1)
        # surplus clients, who do not take the step, may have taken none
        known = {step: of_round * self.plan.per_step.at(max(0, step - 1)) for step in set(steps.tolist())}
        return torch.tensor([known[step] for step in steps.tolist()], dtype=torch.float64)


def scheduled(plan: LocalPlan) -> bool:
    """Whether the learning rate changes from step to step or from round to round."""
    return plan.per_round != CONSTANT or plan.per_step != CONSTANT
