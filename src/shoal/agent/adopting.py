"""Which version a device serves: fetched, checked on this device, kept on its disk; the one before where it fails."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from shoal.agent.examples import ExampleStore
from shoal.agent.learner import Learner
from shoal.agent.participant import GOLDEN_BYTES
from shoal.agent.personal import PersonalFile
from shoal.agent.versions import Held, Trees, VersionFiles, read_trees
from shoal.core.errors import CorruptStore, PlanError, ShoalError, TaskError
from shoal.core.task import TaskSpec
from shoal.plan.file import MOST_BYTES
from shoal.wire.http import Connection
from shoal.wire.messages import HeadsHere, LatestReply, UnfitRequest
from shoal.wire.models import fetch_bytes, file_size


class Adopting:
    """Brings a device to the version that the coordinator tells it to serve, if that works here.

    What fails (its bytes are not those of its digest, it is not of the task, the app's code is not the task's, no
    runtime here computes the plan, its loss on this device's held-out rows is not finite) is reported and not served.
    """

    def __init__(
        self,
        connection: Connection,
        learner: Learner,
        files: VersionFiles,
        personal: PersonalFile,
        examples: ExampleStore,
        say: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._learner = learner
        self._files = files
        self._personal = personal
        self._examples = examples
        self._say = say
        found = files.load()
        self.held = found if found is not None and found.by_plan == learner.by_plan else None
        self.problem = ""
        if self.held is not None:
            blobs = {digest: files.blob(digest) or b"" for digest in self.held.digests}
            trees = read_trees(self.held, blobs)
            learner.prove(self.held, trees)
            learner.adopt(trees)
        self._check_personal()

    def _check_personal(self) -> None:
        """Begin the personal model anew where it is of another model than the task's."""
        if self._learner.ready and not self._personal.now.fits(self._learner.arrays):
            self._say("the app has another model now: the personal one begins anew")
            self._personal.keep(replace(self._personal.now, arrays={}, local={}))

    def stays(self, told: Sequence[HeadsHere]) -> bool:
        """Take note of the answer to a check-in; whether this device serves what it says, and need not ask for more."""
        held = self.held
        wanted = {(heads.task, heads.serves_digest) for heads in told}
        if held is None or (held.task, held.version.digest) not in wanted:
            return False
        self.problem = ""
        return True

    def refresh(self) -> bool:
        """Ask which version to serve, and serve it; whether it is another one.

        Raises NotFound before the task is published, CodeMismatch when the app's code is not the task's model,
        RuntimeMismatch when no runtime here computes its plan.
        """
        return self.serve(self._connection.call("GET", f"/v1/tasks/{self._learner.name}/latest", None, LatestReply))

    def serve(self, told: LatestReply) -> bool:
        """Serve a version; whether it is another one. Raises CodeMismatch, CorruptStore, TaskError once reported."""
        known = self.held is not None and self.held.task == told.task
        if self.held is not None and known and self.held.version.digest == told.version.digest:
            self.problem = ""
            return False
        if told.version.digest in self._files.refused:
            self._report(told, self._files.refused[told.version.digest])
            return False
        spec = self.held.spec if self.held is not None and known else self._spec(told.task)
        return self._adopt(told, Held(told.task, spec, told.version, self._learner.by_plan))

    def _spec(self, task: str) -> TaskSpec:
        return self._connection.call("GET", f"/v1/tasks/{task}", None, TaskSpec)

    def _adopt(self, told: LatestReply, held: Held) -> bool:
        try:
            if held.by_plan and not held.spec.exported:
                raise PlanError(f"task {held.task!r} was published without a plan", "publish it with one")
            blobs = self._fetched(held)
            trees = read_trees(held, blobs)
            self._learner.prove(held, trees)
        except (CorruptStore, TaskError) as error:
            self._report(told, f"{error.code}: {error}")
            raise
        wrong = self._wrong(trees)
        if wrong:
            self._files.refuse(held.version.digest, wrong)
            self._report(told, wrong)
            return False
        self._files.keep(held, blobs)
        self._learner.adopt(trees)
        self._check_personal()
        self.held, self.problem = held, ""
        return True

    def _wrong(self, trees: Trees) -> str:
        rows = self._examples.rows(held=True)
        if not rows:
            return ""
        measured = self._learner.measure(trees.version, trees.frozen, self._personal.now.local, rows)
        loss = measured.get("loss", 0.0)
        return "" if math.isfinite(loss) else f"its loss on this device's held-out rows is {loss}"

    def _report(self, told: LatestReply, reason: str) -> None:
        self.problem = f"version {told.version.number} of {told.task} is not served here: {reason}"
        self._say(self.problem)
        try:
            path = f"/v1/tasks/{told.task}/unfit"
            self._connection.call("POST", path, UnfitRequest(told.version.digest, reason[:300]), UnfitRequest)
        except ShoalError as error:
            self._say(f"the coordinator could not be told: {error}")  # the next sync tells it again

    def _fetched(self, held: Held) -> dict[str, bytes]:
        spec = held.spec
        version = file_size(spec.travelling)
        most = {
            spec.golden: 2 * file_size(spec.arrays) + GOLDEN_BYTES,
            spec.frozen: file_size(held.frozen),
            spec.exported: MOST_BYTES,
        }
        return {
            digest: self._files.blob(digest) or self._download(digest, most.get(digest, version))
            for digest in held.digests
        }

    def _download(self, digest: str, most: int) -> bytes:
        try:
            return fetch_bytes(self._connection, digest, most)
        except CorruptStore:
            return fetch_bytes(self._connection, digest, most)  # a line may have damaged it once
