"""Downloads in ranges and compressed, and a client that goes on where a line broke."""

import asyncio
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.agent.home import AgentHome
from shoal.core.errors import BadRequest, CorruptStore, NotACoordinator, OutOfRange, Unreachable
from shoal.server.app import build_app
from shoal.server.coordinator import Coordinator
from shoal.server.variants import Variants
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.testing.clock import ManualClock
from shoal.testing.transport import InMemoryTransport
from shoal.wire.downloads import pieces, resumed
from shoal.wire.http import Connection
from shoal.wire.ranges import accepts, etag, lists, read_range
from tests.server.conftest import Served

EMPTY = bytes(300_000)
NOISE = np.random.default_rng(1).bytes(300_000)


def keep(blobs: MemoryBlobs, data: bytes) -> str:
    writer = blobs.writer("published")
    writer.write(data)
    return writer.commit()


def published(served: Served, data: bytes) -> str:
    digest = keep(served.coordinator.storage.blobs, data)
    served.coordinator.housekeeping.sent(digest)
    return digest


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    clock = ManualClock()
    coordinator = Coordinator(MemoryStore(), MemoryBlobs(), clock, variants=tmp_path / "variants")
    tokens = [coordinator.identities.issue(role, clock()) for role in ("admin", "enrolment")]
    transport = InMemoryTransport(build_app(coordinator))
    with transport, httpx.Client(transport=transport, base_url="http://shoal") as client:
        yield Served(client, coordinator, clock, *tokens)


def get(served: Served, digest: str, method: str = "GET", **headers: str) -> httpx.Response:
    fields = {field.replace("_", "-"): value for field, value in headers.items()}
    identity = {"Accept-Encoding": "identity"}
    return served.client.request(method, f"/v1/blobs/{digest}", headers={**served.people(), **identity, **fields})


def test_a_part_is_206_and_says_of_what(served: Served):
    digest = published(served, NOISE)
    answer = get(served, digest, Range="bytes=100-199")
    assert (answer.status_code, answer.content) == (206, NOISE[100:200])
    assert answer.headers["content-range"] == "bytes 100-199/300000"
    assert get(served, digest, Range="bytes=299999-").content == NOISE[-1:]
    assert get(served, digest, Range="bytes=-5").content == NOISE[-5:]
    assert get(served, digest, Range="bytes=5-", If_Range=etag(digest)).status_code == 206
    assert get(served, digest, Range="bytes=5-", If_Range='"other"').status_code == 200
    beyond = get(served, digest, Range="bytes=300000-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */300000")


def test_all_of_it_may_be_kept_for_ever_and_is_not_sent_to_who_has_it(served: Served):
    digest = published(served, NOISE)
    answer = get(served, digest)
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (200, NOISE, etag(digest))
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert (answer.headers["vary"], answer.headers["accept-ranges"]) == ("Accept-Encoding", "bytes")
    again = get(served, digest, If_None_Match=f'"x", {etag(digest)}')
    assert (again.status_code, again.content) == (304, b"")
    head = get(served, digest, "HEAD")
    assert (head.status_code, head.headers["content-length"]) == (200, "300000")


def test_what_shrinks_comes_compressed_and_is_compressed_once(served: Served, tmp_path: Path):
    digest = published(served, EMPTY)
    answer = get(served, digest, Accept_Encoding="br, gzip;q=0.5")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["etag"] == etag(digest, "gzip")
    assert int(answer.headers["content-length"]) < 3000
    assert answer.content == EMPTY
    [kept] = (tmp_path / "variants").iterdir()
    assert gzip.decompress(kept.read_bytes()) == EMPTY
    marked = gzip.compress(b"made before")
    kept.write_bytes(marked)
    assert get(served, digest, Accept_Encoding="gzip").content == b"made before"
    assert "content-encoding" not in get(served, digest, Accept_Encoding="gzip;q=0").headers
    assert get(served, digest, Accept_Encoding="gzip", Range="bytes=0-9").content == bytes(10)
    served.coordinator.variants.forget(digest)
    assert list((tmp_path / "variants").iterdir()) == []


def test_what_does_not_shrink_comes_as_it_is(served: Served, tmp_path: Path):
    for data in (NOISE, bytes(100)):
        digest = published(served, data)
        answer = get(served, digest, Accept_Encoding="gzip")
        assert "content-encoding" not in answer.headers
        assert answer.content == data
    assert list((tmp_path / "variants").iterdir()) == []


async def found(variants: Variants, digests: list[str]) -> list[bytes]:
    asked = [await variants.find(digest, len(EMPTY)) for digest in digests]
    return [b"".join(variant.pieces()) for variant in asked if variant is not None]


def test_variants_stay_under_their_bound_and_the_newest_stay(tmp_path: Path):
    blobs = MemoryBlobs()
    digests = [keep(blobs, EMPTY[:-1] + bytes([n])) for n in range(4)]
    (tmp_path / "old.partial").write_bytes(b"left by a crash")
    packed = asyncio.run(found(Variants(tmp_path, blobs, most=3000), digests))
    assert [gzip.decompress(data)[-1] for data in packed] == [0, 1, 2, 3]
    assert {path.name for path in tmp_path.iterdir()} == {f"{digest}.gz" for digest in digests[2:]}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000


def test_the_client_inflates_under_its_cap(served: Served):
    digest = published(served, EMPTY)
    with Connection("http://shoal", served.admin, transport=served.client._transport) as line:
        assert line.download(digest, len(EMPTY)) == EMPTY
        with pytest.raises(BadRequest, match="longer than 299999 bytes"):
            line.download(digest, len(EMPTY) - 1)


def answer(content: bytes, **headers: str) -> httpx.Response:
    return httpx.Response(
        200,
        headers={field.replace("_", "-"): value for field, value in headers.items()},
        stream=httpx.ByteStream(content),
    )


def test_a_bomb_is_not_inflated():
    bomb = answer(zlib.compress(bytes(1 << 23), wbits=31), content_encoding="gzip")
    held: list[int] = []
    with pytest.raises(BadRequest):
        held.extend(len(piece) for piece in pieces(bomb, "0" * 64, 0, 1 << 20))
    assert max(held, default=0) <= 1 << 18
    assert sum(held) <= 1 << 20
    for content, encoding in ((b"no gzip", "gzip"), (b"", "zstd")):
        with pytest.raises(NotACoordinator):
            list(pieces(answer(content, content_encoding=encoding), "0" * 64, 0, 99))


def test_an_answer_with_everything_is_cut_to_what_is_missing():
    assert b"".join(pieces(answer(b"abcdef"), "0" * 64, 4, 6)) == b"ef"


@given(st.binary(max_size=50), st.lists(st.integers(0, 9), max_size=20), st.integers(0, 60))
def test_a_download_that_breaks_off_goes_on_until_nothing_comes(data: bytes, breaks: list[int], start: int):
    start = min(start, len(data))
    lengths = iter(breaks)
    asked: list[int] = []

    def attempt(at: int) -> Iterator[bytes]:
        asked.append(at)
        length = next(lengths, None)
        if at > 0 and at == len(data):
            raise OutOfRange("a", "b")
        yield from (data[at + n : at + n + 1] for n in range(len(data) - at if length is None else length))
        if length is not None:
            raise Unreachable("cut", "wait")

    found = bytearray()
    try:
        for piece in resumed(attempt, start):
            found += piece
    except Unreachable:
        assert asked[-1] == start + len(found)
    else:
        assert found == data[start:]
    assert data[start:].startswith(found)
    assert asked == sorted(asked)


def test_a_home_goes_on_with_what_a_download_left_also_after_a_restart(tmp_path: Path):
    digest = hashlib.sha256(NOISE).hexdigest()

    def cut(_: int) -> Iterator[bytes]:
        yield NOISE[:1000]
        raise Unreachable("cut", "wait")

    starts: list[int] = []

    def rest(start: int) -> Iterator[bytes]:
        starts.append(start)
        yield NOISE[start:]

    with AgentHome(tmp_path) as home, pytest.raises(Unreachable):
        home.keep_version(digest, cut)
    with AgentHome(tmp_path) as home:
        assert home.version(digest) is None
        assert home.keep_version(digest, rest).read_bytes() == NOISE
        with pytest.raises(CorruptStore):
            home.keep_blob(digest, lambda _: [b"other"])
        assert not any((tmp_path / "blobs").iterdir())
    assert starts == [1000]


@given(st.integers(1, 99), st.integers(0, 120), st.integers(0, 120))
def test_ranges_are_those_of_a_slice(size: int, first: int, last: int):
    try:
        found = read_range(f"bytes={first}-{last}", size)
    except OutOfRange:
        assert first >= size
        assert last >= first
        return
    everything = range(size)
    assert (everything if found is None else everything[slice(*found)]) == (
        everything[first : last + 1] if first <= last else everything
    )


@pytest.mark.parametrize("value", [None, "", "bytes=-", "bytes=a-b", "bytes=0-1,4-5", "items=0-1"])
def test_what_is_no_single_range_asks_for_everything(value: str | None):
    assert read_range(value, 10) is None


def test_encodings_and_validators_are_read_as_lists():
    assert accepts("br, GZIP ; q=0.1", "gzip")
    assert not accepts("gzip;q=0.000", "gzip")
    assert not accepts(None, "gzip")
    assert lists('W/"a", "b"', '"a"')
    assert lists("*", '"a"')
    assert not lists(None, '"a"')
