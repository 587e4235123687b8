"""What a device keeps of a task from round to round: arrays that stay with it, and the trees of its strategy's rule.

One file a task in the device's home, sealed with its key: local arrays under their own names, a rule's as
"<tree>/<array>". What an assignment made of it is proposed, and counts once the assignment's report has its receipt: an
update that was lost or refused leaves the state as it was. A device without a state begins at the task's own arrays and
at zeros.
"""

from hashlib import sha256
from pathlib import Path

from shoal.agent.sealed import Seal
from shoal.core.errors import BadRequest, CorruptStore, WrongKey
from shoal.core.tree import Tree
from shoal.core.tree import encode as encode_tree
from shoal.store.durable import write_durably
from shoal.wire.codec import decode_tree

FOLDER = "states"
NEXT = ".next"


class ClientStates:
    """The states in a device's home, by task."""

    def __init__(self, home: Path, seal: Seal) -> None:
        self._folder = home / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._seal = seal

    def of(self, task: str) -> Tree:
        """Return what was kept of a task, nothing before its first receipt. Raises CorruptStore."""
        path = self._path(task)
        return self._read(path)[1] if path.exists() else {}

    def propose(self, task: str, tree: Tree, assignment: str) -> None:
        """Keep what an assignment made of a task's state, durable on return, until it is settled."""
        path = self._path(task).with_suffix(NEXT)
        data = self._seal.seal(assignment.encode() + b"\n" + encode_tree(tree), FOLDER)
        write_durably(path, [data], 0o600)

    def settle(self, assignment: str, *, counted: bool) -> None:
        """Let what was proposed for this assignment, if anything, count or be forgotten."""
        for path in self._folder.glob(f"*{NEXT}"):
            if self._read(path)[0] == assignment:
                if counted:
                    path.replace(path.with_suffix(""))
                else:
                    path.unlink()

    def _path(self, task: str) -> Path:
        return self._folder / sha256(task.encode()).hexdigest()  # a name from the network becomes part of a path

    def _read(self, path: Path) -> tuple[str, Tree]:
        try:
            assignment, _, body = self._seal.open(path.read_bytes(), FOLDER).partition(b"\n")
            return assignment.decode(), decode_tree(body)
        except (BadRequest, UnicodeDecodeError, WrongKey) as error:
            raise CorruptStore(
                f"{path} is no state of this device: {error}", "remove it: the task's state begins anew"
            ) from error
