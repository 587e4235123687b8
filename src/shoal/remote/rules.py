"""What one person may have of an owner's data: the policy, what the owner approved, and what was spent of it.

Every release and every refusal is in the owner's log before the client hears of it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from shoal.core.errors import NotPermitted
from shoal.remote.audit import Audit
from shoal.remote.labels import OWN, Aggregate, Label, Release, names
from shoal.remote.ledger import Ledger
from shoal.remote.operators import Operator
from shoal.remote.policy import Policy
from shoal.remote.provenance import Lineage, value_key
from shoal.remote.requests import REASON_LETTERS, Kind, Request, Requests, Terms


@dataclass(frozen=True, slots=True)
class Desk:
    """What an owner decides by and keeps: the policy, the queue of requests, the log, and what was spent."""

    policy: Policy = Policy()
    requests: Requests = field(default_factory=Requests)
    audit: Audit = field(default_factory=Audit)
    ledger: Ledger = field(default_factory=Ledger)
    clock: Callable[[], float] = time.time

    @classmethod
    def at(cls, home: Path, policy: Policy) -> "Desk":
        """Return the desk whose papers lie in a folder."""
        return cls(policy, Requests(home / "requests"), Audit(home / "audit.jsonl"), Ledger(home / "ledger.json"))

    def rules(self, person: str) -> "Rules":
        """Return the gate of a person. Raises NotPermitted for one who caused too many failures on private data."""
        failures = self.ledger.spent("failures", person)
        if failures >= self.policy.failures:
            raise NotPermitted(
                f"{person!r} caused {failures:.0f} failures on private data",
                "ask the owner, who may raise `failures` in the policy",
            )
        return Rules(self, person)


class Rules:
    """The gate of one person: what was made of its own tensors only is its own; of the rest it holds handles."""

    def __init__(self, desk: Desk, person: str) -> None:
        self._desk = desk
        self._person = person

    def operate(self, operator: Operator, label: Label, *, tells_values: bool) -> None:
        """Refuse what would show values in a shape."""
        if not (tells_values and label.private):
            return
        what = f"{operator.name} on data set {names(label)}"
        self._log("refused", label, what=what)
        raise NotPermitted(
            f"{what}: the shape of its result would show values", "use torch.where or a product with a mask"
        )

    def accept(self, nbytes: int) -> None:
        """Refuse what is larger than the policy lets a client bring, from here or from another worker."""
        most = self._desk.policy.largest
        if most is None or nbytes <= most:
            return
        self._log("refused", OWN, what=f"to bring a tensor of {nbytes} bytes")
        raise NotPermitted(f"to bring a tensor of {nbytes} bytes", f"its owner lets in {most} bytes at once")

    def release(self, asked: Release) -> torch.Tensor:
        """Return what may leave: one's own, what a grant covers, or what the owner approved. Raises NotPermitted."""
        if not asked.label.private:
            return asked.tensor
        for way in (self._trained, self._resulted, self._approved):
            released = way(asked)
            if released is not None:
                return released
        raise self._refusal(asked)

    # ---- ways out

    def _resulted(self, asked: Release) -> torch.Tensor | None:
        """Release the result of a program that the owner approved with its parameters."""
        made = asked.held.made
        if made is None:
            return None
        granted = [self._programs(data, made.key) for data in asked.label.sources]
        most = min(granted) + sum(request.terms.times for request in self._requests(made.key))
        if not self._spend(most, "program", made.key, str(made.place)):
            return None
        self._log("released", asked.label, what=str(asked), reason=asked.reason, program=made.key)
        return asked.tensor

    def _programs(self, data: str, key: str) -> int:
        grants = self._desk.policy.of(self._person, data)
        return sum(program.times for grant in grants for program in grant.program if program.digest == key)

    def _trained(self, asked: Release) -> torch.Tensor | None:
        """Release an array that an approved program trained, its change shortened."""
        lineage = asked.held.lineage
        if lineage is None:
            return None
        for terms in self._terms(asked.label, lineage):
            enough = lineage.steps >= terms.steps and _fewest(lineage, asked.label) >= terms.rows
            enough = enough and terms.state >= lineage.state
            if enough and self._spend(terms.times, "model", lineage.key, str(lineage.place)):
                left = _shortened(lineage, asked.tensor, terms.clip)
                rows, steps = lineage.rows, lineage.steps
                lineage.begin_again(left.clone())
                self._log(
                    "released",
                    asked.label,
                    what=str(asked),
                    reason=asked.reason,
                    program=lineage.key,
                    rows=rows,
                    steps=steps,
                    clip=terms.clip,
                )
                return left
        return None

    def _terms(self, label: Label, lineage: Lineage) -> list[Terms]:
        granted = [self._models(data, lineage.key) for data in sorted(label.sources)]
        shared = [terms for terms in granted[0] if all(terms in others for others in granted[1:])]
        return shared + [request.terms for request in self._requests(lineage.key)]

    def _models(self, data: str, key: str) -> list[Terms]:
        grants = self._desk.policy.of(self._person, data)
        found = [model for grant in grants for model in grant.model if model.digest == key]
        return [Terms(model.times, model.rows, model.steps, model.clip, model.state) for model in found]

    def _approved(self, asked: Release) -> torch.Tensor | None:
        """Release a value that the owner approved, once: this very one, in the place where it was asked for."""
        number = asked.held.storage.tickets.get(asked.held.geometry)
        if number is None:
            return None
        request = self._desk.requests.find(number)
        if request.kind != "value" or request.state != "approved" or not self._spend(1, "value", number):
            return None
        self._log("released", asked.label, what=str(asked), reason=asked.reason, request=number)
        return asked.tensor

    def _requests(self, key: str) -> list[Request]:
        return [each for each in self._desk.requests.approved(self._person, key) if each.kind != "value"]

    def _spend(self, most: int, *key: str) -> bool:
        try:
            self._desk.ledger.spend(
                1, most, lambda _: NotPermitted("it", "was had as often as granted"), self._person, *key
            )
        except NotPermitted:
            return False
        return True

    # ---- refusals

    def _refusal(self, asked: Release) -> NotPermitted:
        kind, key = _subject(asked)
        number = asked.held.storage.tickets.get(asked.held.geometry)
        if asked.reason and number is None:
            number = self._file(asked, kind, key)
        self._log("refused", asked.label, what=str(asked), reason=asked.reason, request=number)
        return NotPermitted(str(asked), self._way_out(asked, kind, number))

    def _way_out(self, asked: Release, kind: Kind, number: str | None) -> str:
        lineage = asked.held.lineage
        if kind == "model" and lineage is not None and (granted := self._terms(asked.label, lineage)):
            terms = granted[-1]
            if lineage.state > terms.state:
                return (
                    "its training writes it before it reads it, as a gradient, a moment or a running statistic, which "
                    "may show the last batch: its owner can approve that with --state"
                )
            return (
                f"it may leave {terms.times} times, each after {terms.steps} steps over {terms.rows} rows; "
                f"{lineage.steps} steps over {_fewest(lineage, asked.label)} rows so far"
            )
        if number is None and self._had(asked):
            return "it was had as often as granted"
        if number is None:
            return 'keep it at the worker, or file a request with get(reason="...")'
        request = self._desk.requests.find(number)
        if request.state == "refused":
            return f"request {number} was refused" + (f": {request.note}" if request.note else "")
        if request.state == "approved":
            return f"request {number} was approved, and had as often as granted"
        return f"request {number} waits for the owner; ask again when it is approved"

    def _had(self, asked: Release) -> bool:
        made = asked.held.made
        return made is not None and self._desk.ledger.spent(self._person, "program", made.key, str(made.place)) > 0

    def _file(self, asked: Release, kind: Kind, key: str) -> str:
        storage = asked.held.storage
        lineage = asked.held.lineage
        origin = lineage if kind == "model" else asked.held.made
        request = Request(
            "",
            self._person,
            self._desk.clock(),
            kind,
            key,
            tuple(sorted(asked.label.sources)),
            str(asked),
            _printable(asked.reason or "")[:REASON_LETTERS],
            "" if origin is None else origin.text,
            () if origin is None else origin.inputs,
            0 if lineage is None else lineage.steps,
            {} if lineage is None else lineage.rows,
        )
        number = self._desk.requests.file(request).id
        storage.tickets[asked.held.geometry] = number
        return number

    def mock(self, data: str, *, real: bool) -> None:
        """Give made-up rows where the policy grants them."""
        label = Label(frozenset({data}))
        if not self._desk.policy.mock(self._person, data):
            self._log("refused", label, what="mock rows")
            raise NotPermitted(f"mock rows of data set {data!r}", "ask its owner for a grant with mock = true")
        self._log("released", label, what="mock rows" + (", drawn from the real ones" if real else ""))

    def aggregate(self, asked: Aggregate) -> None:
        """Spend an epsilon of what was granted for a person and a data set."""
        most = self._desk.policy.epsilon(self._person, asked.data)
        label = Label(frozenset({asked.data}))
        what = f"noisy {asked.statistic} of {asked.array}, epsilon {asked.epsilon:g}"

        def refusal(spent: float) -> NotPermitted:
            self._log("refused", label, what=what)
            return NotPermitted(
                f"{what} of data set {asked.data!r}",
                f"{max(0.0, most - spent):g} of your {most:g} is left; ask for less, or its owner for more",
            )

        self._desk.ledger.spend(asked.epsilon, most, refusal, "epsilon", self._person, asked.data)
        self._log("released", label, what=what)

    def traceback(self, label: Label) -> bool:
        """Describe failures on the client's own data only."""
        return not label.private

    def failed(self, label: Label) -> None:
        """Count a failure on private data."""
        self._log("failed", label, what="an operator failed on private data; the session was ended")
        self._desk.ledger.spend(1, float("inf"), lambda _: NotPermitted("", ""), "failures", self._person)

    def _log(self, event: str, label: Label, **facts: object) -> None:
        desk = self._desk
        desk.audit.write(desk.clock(), event, person=self._person, data=sorted(label.sources), **facts)


def _subject(asked: Release) -> tuple[Kind, str]:
    """Return what a request for it would be about, and the key of that."""
    lineage, made = asked.held.lineage, asked.held.made
    if lineage is not None:
        return "model", lineage.key
    if made is not None:
        return "program", made.key
    return "value", value_key(asked.tensor)


def _printable(text: str) -> str:
    """Return a text without what a terminal would take for commands."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _fewest(lineage: Lineage, label: Label) -> int:
    return min(lineage.rows.get(data, 0) for data in label.sources)


def _shortened(lineage: Lineage, tensor: torch.Tensor, clip: float) -> torch.Tensor:
    """Return an array whose change since its start has at most this norm; a counter moves by a step at most."""
    start = lineage.start
    if tensor.is_complex():
        real = torch.view_as_real(tensor).double() - torch.view_as_real(start).double()
        return start + torch.view_as_complex(_within(real, clip)).to(tensor.dtype)
    change = tensor.double() - start.double()
    if tensor.is_floating_point():
        return start + _within(change, clip).to(tensor.dtype)
    most = lineage.steps if tensor.numel() == 1 else clip
    return (start + _within(change, most).trunc().to(torch.int64)).to(tensor.dtype)


def _within(change: torch.Tensor, most: float) -> torch.Tensor:
    norm = float(torch.linalg.vector_norm(change))
    scale = min(1.0, most / norm) if norm == norm and norm not in (0.0, float("inf")) else float(norm == 0.0)
    return torch.nan_to_num(change) * scale
