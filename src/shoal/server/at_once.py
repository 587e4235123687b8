"""Answering what needs no waiting as soon as its last byte is there, without what is made for a call that waits.

uvicorn makes a task, an event and a cycle of messages for every call, before its body is there. For the answers that
`come_back` can give, this is most of the work.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from shoal.server.come_back import METHOD, PATH
from shoal.server.heads import HeadsInTime
from shoal.wire.messages import HELD

Answer: TypeAlias = Callable[[Mapping[bytes, bytes], bytes], bytes | None]
"""Takes the header fields (names in lower case) and the body of a check-in; returns a body, or None."""

HEAD = (
    b"HTTP/1.1 200 OK\r\n%scontent-type: application/json\r\ncontent-length: %d\r\n"
    + f"{HELD.lower()}: {0.0:.4f}\r\n\r\n".encode()
)


class AtOnce(HeadsInTime):
    """HTTP on one connection; `answer` is asked first about check-ins that arrive in one piece."""

    def __init__(self, *args: Any, answer: Answer, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._answer = answer
        self._held: bytes | None = None

    def data_received(self, data: bytes) -> None:
        """Read on; a call whose body is not whole now goes the ordinary way."""
        super().data_received(data)
        if self._held is not None and self.parser is not None:
            self._let_go()

    def on_headers_complete(self) -> None:
        """Begin the call, unless it may be answered at once."""
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.url == PATH and self.parser.get_method() == METHOD:
            self._held = b""
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held += body

    def on_message_complete(self) -> None:
        """Answer the call, or begin it now that it is whole."""
        if self._held is not None:
            if self._answered(self._held):
                return
            self._let_go()
        super().on_message_complete()

    def _answered(self, body: bytes) -> bool:
        if not self.parser.should_keep_alive() or self.transport.is_closing():
            return False
        # of fields that stand there twice the first one counts
        answer = self._answer(dict(reversed(self.headers)), body)
        if answer is None:
            return False
        self._held = None
        self._in_time()
        date = b"".join([b"%s: %s\r\n" % field for field in self.server_state.default_headers])
        self.transport.write(HEAD % (date, len(answer)) + answer)
        self.on_response_complete()
        return True

    def _let_go(self) -> None:
        held, self._held = self._held, None
        super().on_headers_complete()
        if held:
            super().on_body(held)
