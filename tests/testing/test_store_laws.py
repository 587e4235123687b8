"""The laws of stores and blobs fail for those that break them."""

from concurrent.futures import Future
from dataclasses import replace

import pytest

from shoal.store.memory import MemoryBlobs, MemoryBlobWriter, MemoryStore
from shoal.testing.laws import blobs_laws, store_laws


class Backwards(MemoryStore):
    def events(self, stream, after=0):
        return iter(list(super().events(stream, after))[::-1])


class Sorted(MemoryStore):
    def streams(self):
        return sorted(super().streams())


class Leaderless(MemoryStore):
    def submit(self, entry):
        epoch = self._streams[entry.stream].epoch if entry.stream in self._streams else 0
        return super().submit(replace(entry, epoch=epoch))


class Polite(MemoryStore):
    """Takes over what nobody leads, and leaves the rest to its leader."""

    def lead_every(self):
        return {name: self._streams[name].epoch for name in self.streams()}


class Leaky(MemoryStore):
    """Keeps the bytes of what it refuses."""

    def submit(self, entry):
        self._inline.update(entry.inline)
        return super().submit(entry)


class Hoarding(MemoryStore):
    def discard(self, digests):
        pass


class Stale(MemoryStore):
    """Keeps the snapshot that was saved last, however old."""

    def save_snapshot(self, stream, position, data):
        super().save_snapshot(stream, position, data)
        self._streams[stream].snapshot = (position, data)


class Forgiving(MemoryStore):
    def enrol(self, device, token):
        kept = self._devices.get(device.name)
        return super().enrol(device if kept is None else replace(device, public_key=kept.public_key), token)


class Generous(MemoryStore):
    """Looks at a token's uses, and counts none."""

    def enrol(self, device, token):
        kept = dict(self._tokens)
        try:
            return super().enrol(device, token)
        finally:
            self._tokens = kept


class Mute(MemoryStore):
    """Says it is durable and is not."""

    def submit(self, entry):
        done: Future[int] = Future()
        done.set_result(entry.expect + len(entry.events))
        return done


class Open(MemoryStore):
    def close(self):
        pass


@pytest.mark.parametrize(
    "broken", [Backwards, Sorted, Leaderless, Polite, Leaky, Hoarding, Stale, Forgiving, Generous, Mute, Open]
)
def test_a_broken_store_is_found(broken):
    with pytest.raises(AssertionError):
        store_laws(broken)


def test_a_store_that_forgets_is_found():
    with pytest.raises(AssertionError, match="opened again"):
        store_laws(MemoryStore, lambda store: MemoryStore())


class Early(MemoryBlobWriter):
    """Shows a blob before its commit."""

    def write(self, chunk):
        super().write(chunk)
        self.commit()


class EarlyBlobs(MemoryBlobs):
    def writer(self, namespace):
        return Early(self._lock, self._kept[namespace])


class WholeBlobs(MemoryBlobs):
    def open(self, digest, start=0, stop=None):
        return super().open(digest)


class LastingBlobs(MemoryBlobs):
    def delete(self, digest):
        pass


class HelpfulBlobs(MemoryBlobs):
    def namespace(self, digest):
        return super().namespace(digest.strip().lower())


@pytest.mark.parametrize("broken", [EarlyBlobs, WholeBlobs, LastingBlobs, HelpfulBlobs])
def test_broken_blobs_are_found(broken):
    with pytest.raises(AssertionError):
        blobs_laws(broken)
