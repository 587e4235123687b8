"""A worker in this process: the same messages, the same checks and the same executor as one behind a socket."""

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shoal.core.errors import ConfigurationError
from shoal.remote.catalogue import Catalogue, DataSet
from shoal.remote.channel import Broken, Channel, Hear
from shoal.remote.host import Host, Tokens
from shoal.remote.limits import Limits
from shoal.remote.policy import Policy
from shoal.remote.reception import Reception
from shoal.remote.rules import Desk
from shoal.remote.session import Patience, Session
from shoal.remote.traffic import Traffic
from shoal.remote.worker import Worker


@dataclass(frozen=True, slots=True)
class Line:
    """What the line to a virtual worker is like: seconds one way, bytes a second, and how often a message is lost."""

    latency: float = 0.0
    bandwidth: float = float("inf")
    loss: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.latency < 0 or self.bandwidth <= 0 or not 0 <= self.loss < 1:
            raise ConfigurationError(
                f"a line with latency {self.latency}, bandwidth {self.bandwidth} and loss {self.loss}",
                "give latency from 0, bandwidth above 0, and a loss from 0 to below 1",
            )


class VirtualWorker(Worker):
    """A worker in this process, with data sets of its own and the `policy` of their owner.

    Requests, log and budgets are kept in the folder `home`, without one in memory; `desk` is where the owner decides.

    `latency`, `bandwidth` and `loss` describe a line: the time that it would take is counted in `traffic.seconds`,
    not waited for, and with a lost message the connection breaks and is taken up again.
    """

    def __init__(
        self,
        name: str,
        *,
        data: Sequence[DataSet] = (),
        policy: Policy = Policy(),  # noqa: B008  (it is frozen)
        home: Path | None = None,
        limits: Limits | None = None,
        latency: float = 0.0,
        bandwidth: float = float("inf"),
        loss: float = 0.0,
        seed: int = 0,
    ) -> None:
        token = secrets.token_urlsafe(16)
        self.desk = Desk(policy) if home is None else Desk.at(home, policy)
        self.host = Host(name, Tokens({"here": token}), Catalogue(data), limits or Limits(), self.desk.rules)
        self._line = Line(latency, bandwidth, loss, seed)
        self._chance = random.Random(seed)  # noqa: S311  (which messages are lost is no secret)
        self._carried = self._dials = 0
        self.person = self.host.admit(token)
        super().__init__(Session(self._dial, patience=Patience(), clock=self._clock))

    @property
    def traffic(self) -> Traffic:
        """What crossed the line so far, and how long that would have taken."""
        self.session.traffic.seconds = self._clock()
        return self.session.traffic

    def _clock(self) -> float:
        """Return the time that has passed on the line: bytes one after the other, and a way there and back a wait."""
        turns = self._dials + (self.session.traffic.waits if hasattr(self, "session") else 0)
        return self._carried / self._line.bandwidth + 2 * self._line.latency * turns

    def _dial(self, hear: Hear) -> Channel:
        self._dials += 1
        return _Loop(self, hear)

    def carry(self, size: int) -> None:
        """Let the time pass that a message takes on the line."""
        self._carried += size

    def lost(self) -> bool:
        """Whether the line breaks at this message."""
        return self._line.loss > 0 and self._chance.random() < self._line.loss


class _Loop:
    """A line to a virtual worker: a message is carried out while it is sent."""

    def __init__(self, worker: VirtualWorker, hear: Hear) -> None:
        self._worker = worker
        self._hear = hear
        self._reception = Reception(worker.host, worker.person, self._answer, worker._clock)
        self._open = True

    def send(self, data: bytes) -> None:
        if not self._open:
            raise Broken
        self._worker.carry(len(data))
        if self._worker.lost():
            self._break()
        self._reception.take(data)
        if not self._open:  # the message arrived, what was to come back did not
            raise Broken

    def _answer(self, data: bytes) -> None:
        if not self._open:
            return
        self._worker.carry(len(data))
        if self._worker.lost():
            self.close()
            return
        self._hear(data)

    def _break(self) -> None:
        self.close()
        raise Broken

    def close(self) -> None:
        if self._open:
            self._open = False
            self._reception.lost()
