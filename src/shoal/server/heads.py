"""A deadline for the head of a request: uvicorn has one between requests only, and would wait for ever for the rest.

Bodies have their own (`calls.body`).
"""

import asyncio

from shoal.server.whole import WholeAnswers

HEAD_SECONDS = 20.0
"""How long a peer may take from its connection, or from the first byte of a later request, to the end of the head."""

TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class HeadsInTime(WholeAnswers):
    """HTTP on one connection, which is closed when a head does not come in time."""

    _begun = False
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the wait."""
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is not whole now has so many seconds from its first byte on."""
        super().data_received(data)
        if self._begun and self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_message_begin(self) -> None:
        """Note that a head began."""
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that it is whole."""
        self._begun = False
        self._in_time()
        super().on_headers_complete()

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            if self._begun:
                self.transport.write(TOO_SLOW)
            self.transport.close()
