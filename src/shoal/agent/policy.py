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
    """

    training: bool = True
    statistics: bool = True
    minimum_rows: int = 10
    versions: bool = True
    data_digest: bool = False

    def check(self, spec: TaskSpec, number: int, rows: int) -> None:
        """Raise NotPermitted when round `number` of a task must not see these rows; says what would be allowed."""
        if spec.kind == "statistics":
            self._check_statistics(spec, number)
        elif not self.training:
            raise NotPermitted(_asked(spec), f"this owner allows {self._allowed()}")
        if rows < self.minimum_rows:
            raise NotPermitted(
                f"{_asked(spec)} about {rows} rows", f"this owner's policy asks for at least {self.minimum_rows}"
            )

    def _check_statistics(self, spec: TaskSpec, number: int) -> None:
        if not self.statistics:
            raise NotPermitted(_asked(spec), f"this owner allows {self._allowed()}")
        # a third pass would tell how many values lie between bounds that the coordinator chose
        if number > PASSES:
            raise NotPermitted(f"pass {number} of task {spec.name!r}", f"statistics take {PASSES} passes")

    def _allowed(self) -> str:
        allowed = [name for name, on in (("updates of a model", self.training), ("statistics", self.statistics)) if on]
        return " and ".join(allowed) or "nothing"


def _asked(spec: TaskSpec) -> str:
    kind = "statistics" if spec.kind == "statistics" else "an update"
    return f"{kind} for task {spec.name!r}"
