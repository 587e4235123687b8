"""Uploads that may break off and go on, one at a time for each assignment: who comes last goes on with it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect

from shoal.core.errors import Conflict, NotFound, ShoalError, TooLarge, TooSlow, WrongOffset
from shoal.server.receive import TOGETHER
from shoal.store.failpoints import reached
from shoal.store.uploads import Upload, Uploads


@dataclass(slots=True)
class _Turn:
    number: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Uploading:
    """The uploads of one home, on its event loop.

    A device whose connection broke comes back before the coordinator knows that it broke: every call takes the upload
    over from the one before, which ends with Conflict.
    """

    def __init__(self, kept: Uploads) -> None:
        self._kept = kept
        self._turns: defaultdict[str, _Turn] = defaultdict(_Turn)
        self._open = {upload.assignment: upload for upload in kept.every()}

    async def begin(self, upload: Upload, *, anew: bool) -> int:
        """Begin an upload, or go on with the one that has begun unless `anew`; return where it stands."""
        turn = self._take_over(upload.assignment)
        async with turn.lock:
            if anew or self._begun(upload.assignment) != upload:
                await asyncio.to_thread(self._kept.begin, upload)
            self._open[upload.assignment] = upload
            return await asyncio.to_thread(self._kept.offset, upload.assignment)

    async def stands(self, assignment: str) -> tuple[Upload, int]:
        """Return an upload and how many of its bytes have arrived. Raises NotFound."""
        # maybe it was begun in another process on the same home
        self._open[assignment] = upload = self._kept.find(assignment)
        turn = self._take_over(assignment)
        async with turn.lock:
            offset = await asyncio.to_thread(self._kept.offset, assignment)
            return upload, offset

    async def append(self, assignment: str, offset: int, pieces: AsyncIterator[bytes]) -> int:
        """Add a body at `offset` and return where the upload stands then, durably.

        What arrived of a body that breaks off is kept, nothing of one that is wrong. Raises NotFound, WrongOffset,
        Conflict when another call took over, TooLarge for more than was announced, StorageFull.
        """
        upload, stands = await self.stands(assignment)
        if offset != stands:
            raise wrong_offset(f"bytes from {offset} on for an upload that stands at {stands}", stands)
        number = self._turns[assignment].number
        at, buffer = offset, bytearray()
        try:
            async for piece in pieces:
                buffer += piece
                _check_room(upload, at + len(buffer))
                if len(buffer) >= TOGETHER:
                    at, buffer = await self._write(assignment, number, at, buffer), bytearray()
                reached("mid_upload")
        except (TooSlow, ClientDisconnect):
            await self._write(assignment, number, at, buffer)
            raise
        except ShoalError as error:
            if not isinstance(error, Conflict):
                await self._write(assignment, number, offset, bytearray())
            raise
        at = await self._write(assignment, number, at, buffer)
        async with self._turns[assignment].lock:
            await asyncio.to_thread(self._kept.sync, assignment)
        reached("after_part")
        return at

    async def whole(self, assignment: str) -> AsyncIterator[bytes]:
        """Yield the bytes of an upload. Raises NotFound, WrongOffset when some have not arrived."""
        upload, stands = await self.stands(assignment)
        if stands != upload.length:
            raise wrong_offset(f"a report whose upload stands at {stands} of {upload.length} bytes", stands)
        pieces = self._kept.open(assignment)
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece

    async def remove(self, assignment: str) -> None:
        """Forget an upload; a call that still brings bytes ends with NotFound."""
        if self._open.pop(assignment, None) is not None:
            await asyncio.to_thread(self._kept.remove, assignment)
            self._turns.pop(assignment, None)

    async def sweep(self, awaited: Callable[[Upload], bool]) -> None:
        """Remove the uploads whose reports are not awaited any more."""
        doomed = [upload.assignment for upload in self._open.values() if not awaited(upload)]
        for assignment in doomed:
            await self.remove(assignment)

    async def _write(self, assignment: str, number: int, at: int, chunk: bytearray) -> int:
        turn = self._turns[assignment]
        async with turn.lock:
            if turn.number != number:
                raise Conflict(f"the upload for {assignment} was taken over by a later call", "nothing is to be done")
            await asyncio.to_thread(self._kept.write, assignment, at, memoryview(chunk))
        return at + len(chunk)

    def _begun(self, assignment: str) -> Upload | None:
        try:
            return self._kept.find(assignment)
        except NotFound:
            return None

    def _take_over(self, assignment: str) -> _Turn:
        turn = self._turns[assignment]
        turn.number += 1
        return turn


def wrong_offset(problem: str, stands: int) -> WrongOffset:
    """Return the error that says where an upload stands."""
    error = WrongOffset(problem, "go on from where it stands, as Upload-Offset says")
    error.offset = stands
    return error


def _check_room(upload: Upload, size: int) -> None:
    if size > upload.length:
        raise TooLarge(f"more than the {upload.length} bytes of this upload", "send as many as Upload-Length said")
