"""Everything that can go wrong, each with a code, an HTTP status and a way out.

ShoalError
├── ConfigurationError            a setting, file or option is wrong
│   ├── UnknownSetting            a key nobody reads
│   ├── WrongKey                  what is kept here was sealed with another key
│   ├── NewerDatabase             the home was written by a later version
│   └── OlderDatabase             the home was written by an earlier version
├── DataError                     an owner's data cannot be used
│   ├── NotNumeric                text where numbers belong
│   ├── SchemaMismatch            rows that are not what the task's schema says
│   └── NoRows                    nothing to train on
├── TaskError                     a task cannot be published or run
│   ├── BroadcastingLoss          output and target shapes would broadcast
│   ├── UnsupportedArray          a dtype or shape that cannot travel
│   ├── SimulationOnly            a strategy that devices cannot carry out
│   ├── NotTraceable              a training step that cannot be recorded and replayed
│   ├── CodeMismatch              installed code is not the task's model
│   ├── NotExportable             a model, loss or operator that cannot be part of a plan
│   ├── PlanError                 a plan that cannot be used
│   ├── RuntimeMismatch           no runtime here computes a plan's golden step
│   └── NotFinite                 training produced NaN or infinity
├── RequestError                  the coordinator will not serve this request
│   ├── BadRequest       400      the message cannot be read
│   ├── Unauthorised     401      no token or key, or one that is not known here
│   ├── BadSignature     401      a device's call is not signed as it arrived, or for the second time
│   ├── Forbidden        403      the token's role does not reach this
│   ├── NotFound         404      no such task, assignment, device or blob
│   ├── Conflict         409      it exists already, with other content
│   │   └── WrongOffset           bytes for another place than where the upload stands
│   ├── Gone             410      too late: the round no longer needs it
│   ├── TooSlow          408      a body did not arrive in the time it may take
│   ├── TooLarge         413      a header or body over its cap
│   ├── UnknownEncoding  415      a compressed body
│   ├── OutOfRange       416      a part of a blob that it does not have
│   ├── RefusedUpdate    422      the update is not what the task asks for
│   ├── WrongProtocol    426      client and coordinator speak other versions
│   └── Unavailable      503      try again after a while
│       └── Pending               a person has to let the device in
├── StoreError                    the store cannot keep what it was given
│   ├── StreamConflict            somebody else appended first
│   │   └── Superseded            another process leads the stream now
│   ├── CorruptStore              what is on disk is not what was written
│   └── StorageFull               no space left
├── RemoteError                   a worker, or what is asked of it, is not right
│   ├── RemoteFailure             an operator failed at the worker
│   ├── RefusedOperator           an operator that workers do not run
│   ├── WrongPlace                tensors that are not where they would have to be
│   ├── NotRecordable             a function that cannot become a recorded program
│   ├── OverLimit                 more than the worker gives one client
│   └── SessionLost               the worker has freed what this client had
├── NotPermitted                  the owner's policy does not let this leave
├── Unreachable                   the coordinator or worker did not answer in time
│   ├── WrongCertificate          the worker's certificate is not trusted
│   └── NotACoordinator           something else answers at the address
│       └── WrongReceipt          a receipt that the coordinator did not sign
└── Abandoned                     a task ended without a result
"""

from collections.abc import Iterator
from typing import ClassVar

from shoal.core.receipt import Receipt


class ShoalError(Exception):
    """Base of all errors here: `problem` names the thing and the value, `fix` the way out."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}: {self.fix}"


class ConfigurationError(ShoalError):
    """A setting, file or option is wrong."""

    code = "configuration"
    status = 400


class UnknownSetting(ConfigurationError):
    """A key that nobody reads; the fix names the nearest one that exists."""

    code = "unknown_setting"


class WrongKey(ConfigurationError):
    """What a device keeps was sealed with another key, with none, or with one that was not given."""

    code = "wrong_key"


class NewerDatabase(ConfigurationError):
    """The home was written by a later version of Shoal."""

    code = "newer_database"


class OlderDatabase(ConfigurationError):
    """The home was written by an earlier version of Shoal, and waits for `shoal server migrate`."""

    code = "older_database"


class DataError(ShoalError):
    """An owner's data cannot be used."""

    code = "data"
    status = 422


class NotNumeric(DataError):
    """Text, or nothing, where a number belongs."""

    code = "not_numeric"


class SchemaMismatch(DataError):
    """An owner's rows are not what the task's schema says; the problem names column, value and number of rows."""

    code = "schema_mismatch"


class NoRows(DataError):
    """There is nothing to train on."""

    code = "no_rows"


class TaskError(ShoalError):
    """A task cannot be published or run."""

    code = "task"
    status = 422


class BroadcastingLoss(TaskError):
    """The model's output and the target have shapes that would silently broadcast."""

    code = "broadcasting_loss"


class UnsupportedArray(TaskError):
    """A parameter or buffer has a dtype or a size that cannot travel."""

    code = "unsupported_array"


class SimulationOnly(TaskError):
    """A strategy needs what only a simulation has, so that it cannot be published."""

    code = "simulation_only"


class NotTraceable(TaskError):
    """A training step cannot be recorded and replayed, or its replay does something else."""

    code = "not_traceable"


class CodeMismatch(TaskError):
    """The code an owner installed is not the model that the task describes."""

    code = "code_mismatch"


class NotExportable(TaskError):
    """A model, a loss or an operator that cannot be part of a plan; the problem names module and line."""

    code = "not_exportable"


class PlanError(TaskError):
    """A plan that cannot be read, holds what none may, or is not for the task's model."""

    code = "plan"


class RuntimeMismatch(TaskError):
    """No runtime of this device computes a plan's golden step as torch did, so it does not train."""

    code = "runtime_mismatch"


class NotFinite(TaskError):
    """Training produced NaN or infinity."""

    code = "not_finite"


class RequestError(ShoalError):
    """The coordinator will not serve this request."""

    code = "request"
    status = 400


class BadRequest(RequestError):
    """The message cannot be read."""

    code = "bad_request"
    status = 400


class Unauthorised(RequestError):
    """No token or key, or one that the coordinator does not know or takes no more."""

    code = "unauthorised"
    status = 401


class BadSignature(RequestError):
    """A device's call is unsigned, changed on its way, too old, or came before; `server_time` is what to sign with."""

    code = "bad_signature"
    status = 401
    server_time: float | None = None


class Forbidden(RequestError):
    """The token is known, its role does not reach this."""

    code = "forbidden"
    status = 403


class NotFound(RequestError):
    """No such task, assignment, device or blob."""

    code = "not_found"
    status = 404


class Conflict(RequestError):
    """It exists already, with other content; for a report, `receipt` is that of the first one."""

    code = "conflict"
    status = 409
    receipt: "Receipt | None" = None


class WrongOffset(Conflict):
    """Bytes of an upload for another place than `offset`, where it stands."""

    code = "wrong_offset"
    offset: int = 0


class Gone(RequestError):
    """Too late: the round no longer needs it."""

    code = "gone"
    status = 410


class TooSlow(RequestError):
    """A body did not arrive in the time that its size allows."""

    code = "too_slow"
    status = 408


class TooLarge(RequestError):
    """A header or body is over its cap."""

    code = "too_large"
    status = 413


class UnknownEncoding(RequestError):
    """A body is compressed, which no route takes: nothing is inflated that was not measured."""

    code = "unknown_encoding"
    status = 415


class OutOfRange(RequestError):
    """A range that begins behind the last byte; there are `size`."""

    code = "out_of_range"
    status = 416
    size: int = 0


class RefusedUpdate(RequestError):
    """The update is not what the task asks for: names, shapes, dtypes, values or weight."""

    code = "refused_update"
    status = 422


class WrongProtocol(RequestError):
    """Client and coordinator speak different versions of the protocol."""

    code = "wrong_protocol"
    status = 426


class Unavailable(RequestError):
    """The coordinator cannot do this now; try again after a while."""

    code = "unavailable"
    status = 503


class Pending(Unavailable):
    """A device asked to join without a token, and waits until a person approves it."""

    code = "pending"


class StoreError(ShoalError):
    """The store cannot keep what it was given."""

    code = "store"
    status = 503


class StreamConflict(StoreError):
    """Somebody else appended to the stream first, or leads it now."""

    code = "stream_conflict"


class Superseded(StreamConflict):
    """Another process leads the stream now, and only it may append."""

    code = "superseded"


class CorruptStore(StoreError):
    """What is on disk is not what was written."""

    code = "corrupt_store"
    status = 500


class StorageFull(StoreError):
    """No space is left on the device that holds the home."""

    code = "storage_full"
    status = 507


class RemoteError(ShoalError):
    """A worker of remote tensors, or what is asked of it, is not right."""

    code = "remote"
    status = 422


class RemoteFailure(RemoteError):
    """An operator failed at the worker; it is also an IndexError, ValueError, TypeError or RuntimeError, as there."""

    code = "remote_failure"


class RefusedOperator(RemoteError):
    """An operator that is not on the list of those that workers run."""

    code = "refused_operator"
    status = 403


class WrongPlace(RemoteError):
    """Tensors of two workers, or remote and local ones, in one operator; or something that cannot be where it is."""

    code = "wrong_place"


class NotRecordable(RemoteError):
    """A function does something that a recorded program cannot do, or does something else each time."""

    code = "not_recordable"


class OverLimit(RemoteError):
    """More tensors, bytes, time or sessions than the worker gives one client."""

    code = "over_limit"
    status = 429


class SessionLost(RemoteError):
    """The session is over and its tensors are freed: the client was gone for longer than its lease, or left."""

    code = "session_lost"
    status = 410


class NotPermitted(ShoalError):
    """The owner's policy does not let this leave."""

    code = "not_permitted"
    status = 403


class Unreachable(ShoalError):
    """The coordinator, or a worker, did not answer in time."""

    code = "unreachable"
    status = 504


class WrongCertificate(Unreachable):
    """The certificate that a worker shows is signed by nobody who is trusted, or is not the one that was pinned."""

    code = "wrong_certificate"
    status = 502


class NotACoordinator(Unreachable):
    """Something else answers at the address: a web server, a proxy, or the page at which a network asks for money."""

    code = "not_a_coordinator"
    status = 502


class WrongReceipt(NotACoordinator):
    """A receipt that was not signed with the key which the device pinned when it enrolled."""

    code = "wrong_receipt"


class Abandoned(ShoalError):
    """A task ended without the result that was asked for."""

    code = "abandoned"
    status = 500


def every_error() -> Iterator[type[ShoalError]]:
    """Yield every class of error, the base first."""
    pending: list[type[ShoalError]] = [ShoalError]
    while pending:
        kind = pending.pop(0)
        yield kind
        pending.extend(kind.__subclasses__())


def from_code(code: str, problem: str, fix: str) -> ShoalError:
    """Rebuild the error that travelled as `code`; an unknown code gives the base class."""
    kind = next((kind for kind in every_error() if kind.code == code), ShoalError)
    return kind(problem, fix)
