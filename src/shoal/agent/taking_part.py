"""What one device's examples, policy and personal model make of assignments, and how it comes by new versions."""

from collections.abc import Callable

from shoal.agent.examples import ExampleStore
from shoal.agent.learner import Learner
from shoal.agent.participant import GOLDEN_BYTES
from shoal.agent.personal import PersonalFile, trained
from shoal.agent.policy import Policy
from shoal.agent.versions import Held, VersionFiles, read_trees
from shoal.agent.work import Result
from shoal.agent.work import trained as described
from shoal.core.errors import NotPermitted, TaskError
from shoal.core.task import TaskSpec
from shoal.core.types import Assignment
from shoal.train.data import ClientData
from shoal.wire.http import Connection
from shoal.wire.messages import LatestReply
from shoal.wire.models import fetch_bytes, fetch_tree, file_size


class TakingPart:
    """Carries out a device's assignments; only updates come out of it."""

    ready = True

    def __init__(
        self,
        connection: Connection,
        learner: Learner,
        files: VersionFiles,
        personal: PersonalFile,
        examples: ExampleStore,
        policy: Policy,
        progress: Callable[[], None],
    ) -> None:
        self.connection = connection
        self._learner = learner
        self._files = files
        self._personal = personal
        self._examples = examples
        self._policy = policy
        self._progress = progress
        self.held = files.load()
        if self.held is not None:
            blobs = {digest: files.blob(digest) or b"" for digest in self.held.digests}
            learner.adopt(self.held, read_trees(self.held, blobs))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The name of the task that the app's code is for."""
        return (self._learner.task.name,)

    def load(self) -> None:
        """Do nothing: the code is the app's, and is here."""

    def refresh(self) -> bool:
        """Take the newest version, if there is a newer one; whether there was.

        Raises NotFound before the task is published, CodeMismatch when the app's code is not the task's model.
        """
        reply = self.connection.call("GET", f"/v1/tasks/{self._learner.task.name}/latest", None, LatestReply)
        known = self.held is not None and self.held.task == reply.task
        if self.held is not None and known and self.held.version.digest == reply.version.digest:
            return False
        spec = self.held.spec if self.held is not None and known else self._spec(reply.task)
        held = Held(reply.task, spec, reply.version)
        blobs = self._fetched(held)
        self._learner.adopt(held, read_trees(held, blobs))
        self._files.keep(held, blobs)
        self.held = held
        return True

    def _spec(self, task: str) -> TaskSpec:
        return self.connection.call("GET", f"/v1/tasks/{task}", None, TaskSpec)

    def _fetched(self, held: Held) -> dict[str, bytes]:
        spec = held.spec
        version = file_size(spec.travelling)
        most = {spec.golden: 2 * file_size(spec.arrays) + GOLDEN_BYTES, spec.frozen: file_size(held.frozen)}
        return {
            digest: self._files.blob(digest) or fetch_bytes(self.connection, digest, most.get(digest, version))
            for digest in held.digests
        }

    def work(self, assignment: Assignment) -> Result:
        """Train on the examples that are not held out; what stays here is proposed to the personal file.

        Raises NotPermitted, TaskError, DataError: reasons to give the assignment back.
        """
        if self.held is None or self.held.task != assignment.task:
            self.refresh()
        if self.held is None or self.held.task != assignment.task:
            raise TaskError(f"task {assignment.task} is not the newest {self._learner.task.name!r}", "wait for that")
        spec, rows = self.held.spec, self._examples.rows(held=False)
        if spec.kind != "training":
            raise NotPermitted(f"a task of kind {spec.kind!r}", "devices release updates of a model only")
        count = self._examples.count(held=False)
        self._policy.check(spec, assignment.round, count)
        params = fetch_tree(self.connection, assignment.version, spec.travelling)
        client = ClientData(assignment.device, rows, assignment.id, assignment.seed)
        personal = self._personal.now
        from_personal = spec.local.start == "personal"
        own = personal.arrays if from_personal and personal.arrays else personal.local
        learnt = self._learner.train(params, own, spec.local.at_round(assignment.round), client, self._progress)
        local = {name: learnt.staying[name] for name in self._learner.local}
        arrays = learnt.staying if from_personal else {}
        self._personal.propose(trained(personal, arrays, local, assignment.version), assignment.id)
        return described(assignment, learnt.update, count)
