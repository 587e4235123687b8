"""What an owner lets leave."""

from dataclasses import dataclass

from shoal.algorithms.statistics import PASSES
from shoal.core.errors import NotPermitted
from shoal.core.task import TaskSpec


@dataclass(frozen=True, slots=True)
class Policy:
    """What an owner releases: updates of a model, statistics of columns, and neither about fewer rows than this.

    `versions` lets the digest of the code and the versions of this machine's software go with a task's first report;
    `data_digest` a keyed digest of the rows too, which tells whoever can guess all of them that they guessed right.
    `evaluation` lets metrics of a version on rows that are held out go into the mean over owners, `own_metrics` also
    where this owner may be the only one in it. `distributions` adds histograms and quantiles to statistics: how many
    rows lie between bounds that the coordinator chose.
    """

    training: bool = True
    statistics: bool = True
    minimum_rows: int = 10
    versions: bool = True
    data_digest: bool = False
    evaluation: bool = True
    own_metrics: bool = False
    distributions: bool = False

    def check(self, spec: TaskSpec, number: int, rows: int) -> None:
        """Raise NotPermitted when round `number` of a task must not see these rows; says what would be allowed."""
        if not self._allows(spec):
            raise NotPermitted(_asked(spec), f"this owner allows {self._allowed()}")
        # a third pass would tell how many values lie between bounds that the coordinator chose
        if spec.kind == "statistics" and number > PASSES:
            raise NotPermitted(f"pass {number} of task {spec.name!r}", f"statistics take {PASSES} passes")
        if spec.kind == "evaluation" and spec.plan.minimum < 2 and not self.own_metrics:
            raise NotPermitted(f"{_asked(spec)} of one owner alone", "this owner asks for a mean over at least 2")
        if rows < self.minimum_rows:
            raise NotPermitted(
                f"{_asked(spec)} about {rows} rows", f"this owner's policy asks for at least {self.minimum_rows}"
            )

    def _allows(self, spec: TaskSpec) -> bool:
        match spec.kind:
            case "training":
                return self.training
            case "evaluation":
                return self.evaluation
            case "statistics":
                return self.statistics
            case _:
                return self.statistics and self.distributions

    def _allowed(self) -> str:
        known = (
            ("updates of a model", self.training),
            ("statistics", self.statistics),
            ("histograms and quantiles", self.statistics and self.distributions),
            ("metrics of a version", self.evaluation),
        )
        return " and ".join(name for name, on in known if on) or "nothing"


ASKED = {"training": "an update", "evaluation": "metrics"}
"""What kinds of task ask for, where their own name does not say it."""


def _asked(spec: TaskSpec) -> str:
    return f"{ASKED.get(spec.kind, spec.kind)} for task {spec.name!r}"
