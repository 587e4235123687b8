"""What devices get with a version beside its arrays: the trees that a rule's devices share."""

from shoal.algorithms import registry
from shoal.algorithms.rule import shared_specs
from shoal.core.task import TaskSpec
from shoal.core.tree import Tree
from shoal.core.types import Assignment
from shoal.wire.http import Connection
from shoal.wire.models import fetch_tree


def fetch_shared(connection: Connection, assignment: Assignment, spec: TaskSpec) -> Tree:
    """Download the shared trees that belong to an assignment's version, as "<tree>/<array>"; nothing where all is zero.

    Raises CorruptStore, or TaskError naming the arrays that differ from the task's.
    """
    trees = registry.shared_trees(spec.local)
    if not trees or not assignment.checkpoint:
        return {}
    return fetch_tree(connection, assignment.checkpoint, shared_specs(spec.arrays, trees))
