"""Taking a large body into the blobs, in pieces, without holding it."""

import asyncio
from collections.abc import AsyncIterator

from shoal.store.failpoints import reached
from shoal.store.store import Blobs, Namespace
from shoal.wire.messages import BlobReply

TOGETHER = 1 << 18
"""Bytes that are gathered before they are written and hashed; each upload under way holds about twice as many."""


async def receive(blobs: Blobs, namespace: Namespace, pieces: AsyncIterator[bytes], first: bytes = b"") -> BlobReply:
    """Write a body to a blob; return its digest and size once it is durable. Nothing is left of one that breaks off."""
    writer = blobs.writer(namespace)
    buffer = bytearray(first)
    size = 0
    try:
        async for piece in pieces:
            buffer += piece
            if len(buffer) >= TOGETHER:
                full, buffer = buffer, bytearray()
                size += len(full)
                await asyncio.to_thread(writer.write, memoryview(full))
            reached("mid_upload")
        size += len(buffer)
        await asyncio.to_thread(writer.write, memoryview(buffer))
        return BlobReply(await asyncio.to_thread(writer.commit), size)
    finally:
        writer.abort()
