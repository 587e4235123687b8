"""Updates that arrive in parts: where they stand, what is refused, and what becomes of those that nobody finishes."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.errors import BadRequest, NotFound
from shoal.core.receipt import Receipt
from shoal.core.task import weight_units
from shoal.server.uploading import Uploading
from shoal.server.verify import largest_report
from shoal.store.uploads import FolderUploads, MemoryUploads, Upload, Uploads
from shoal.wire.codec import encode_trees, frame
from shoal.wire.digests import CONTENT_DIGEST, digest_field, read_digest_field
from shoal.wire.messages import ReportHead
from shoal.wire.signing import EMPTY_DIGEST
from tests.server.conftest import Served, delta, spec

ARRAYS = encode_trees({"delta": delta(1.0)})
DIGEST = hashlib.sha256(ARRAYS)
HEAD = ReportHead(DIGEST.hexdigest(), len(ARRAYS), weight_units(10.0), uploaded=True)
BEGIN = {"Upload_Length": str(len(ARRAYS)), "Repr_Digest": digest_field(DIGEST.digest()), "Upload_Complete": "?0"}


@pytest.fixture
def path(served: Served) -> str:
    served.publish(spec(rounds=1, goal=2))
    assignment = served.check_in("bob").assignment
    assert assignment is not None
    return f"/v1/assignments/{assignment.id}"


def begin(served: Served, path: str, **changes: str) -> httpx.Response:
    return served.call("bob", "POST", f"{path}/upload", b"", **{**BEGIN, **changes})


def go_on(served: Served, path: str, start: int, part: bytes, **changes: str) -> httpx.Response:
    complete = "?1" if start + len(part) == len(ARRAYS) else "?0"
    fields = {"Content_Type": "application/partial-upload", "Upload_Offset": str(start), "Upload_Complete": complete}
    return served.call("bob", "PATCH", f"{path}/upload", part, **{**fields, **changes})


def stands(served: Served, path: str) -> tuple[int, str, str]:
    answer = served.call("bob", "HEAD", f"{path}/upload")
    assert answer.status_code == 204, answer.status_code
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"]), answer.headers["upload-complete"], answer.headers["upload-length"]


def test_an_update_in_two_parts_is_counted_and_its_report_names_it(served: Served, path: str):
    begun = begin(served, path)
    assert (begun.status_code, begun.headers["location"]) == (201, f"{path}/upload")
    assert begun.headers["upload-limit"] == f"max-size={largest_report(served.coordinator.tasks['plain-1'].state.spec)}"
    assert go_on(served, path, 0, ARRAYS[:100]).headers["upload-offset"] == "100"
    assert stands(served, path) == (100, "?0", str(len(ARRAYS)))
    assert begin(served, path).headers["upload-offset"] == "100"
    assert go_on(served, path, 100, ARRAYS[100:]).status_code == 204
    assert stands(served, path) == (len(ARRAYS), "?1", str(len(ARRAYS)))
    answer = served.call("bob", "POST", f"{path}/report", frame(HEAD, b""))
    assert msgspec.json.decode(answer.content, type=Receipt).digest == HEAD.digest
    # it is a receipt from now on, and no upload: a repeat sends nothing but the report
    assert begin(served, path).headers["upload-complete"] == "?1"
    assert served.call("bob", "POST", f"{path}/report", frame(HEAD, b"")).content == answer.content
    assert served.call("bob", "HEAD", f"{path}/upload").status_code == 404


def test_a_body_for_another_place_changes_nothing_and_is_told_the_right_one(served: Served, path: str):
    begin(served, path)
    go_on(served, path, 0, ARRAYS[:100])
    for start in (0, 99, 101):
        answer = go_on(served, path, start, b"?" * 10)
        assert (answer.status_code, answer.json()["code"]) == (409, "wrong_offset")
        assert answer.headers["upload-offset"] == "100"
    assert stands(served, path)[0] == 100


def test_of_a_body_that_is_not_what_its_digest_says_nothing_is_kept(served: Served, path: str):
    begin(served, path)
    go_on(served, path, 0, ARRAYS[:100])
    answer = go_on(served, path, 100, b"?" * 100, Content_Digest=digest_field(DIGEST.digest()))
    assert (answer.status_code, answer.json()["code"]) == (401, "bad_signature")
    assert stands(served, path)[0] == 100


def test_bytes_that_are_not_those_announced_are_refused_with_the_report_and_go(served: Served, path: str):
    begin(served, path)
    go_on(served, path, 0, ARRAYS[:-1] + b"!")
    answer = served.call("bob", "POST", f"{path}/report", frame(HEAD, b""))
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert begin(served, path).headers["upload-offset"] == "0"


def test_a_report_of_an_upload_that_is_not_whole_is_told_where_it_stands(served: Served, path: str):
    begin(served, path)
    go_on(served, path, 0, ARRAYS[:100])
    answer = served.call("bob", "POST", f"{path}/report", frame(HEAD, b""))
    assert (answer.json()["code"], answer.headers["upload-offset"]) == ("wrong_offset", "100")
    assert "100 of" in answer.json()["problem"]


def test_sizes_are_capped_before_anything_is_taken(served: Served, path: str):
    most = largest_report(served.coordinator.tasks["plain-1"].state.spec)
    assert begin(served, path, Upload_Length=str(most + 1)).status_code == 413
    assert begin(served, path, Upload_Length="9" * 16).status_code == 400
    assert begin(served, path, Repr_Digest="sha-256=:AAAA:").status_code == 400
    begin(served, path)
    assert go_on(served, path, 0, ARRAYS + b"?", Upload_Complete="?0").status_code == 413
    assert stands(served, path)[0] == 0
    assert go_on(served, path, 0, ARRAYS[:5], Upload_Complete="?1").status_code == 400
    assert go_on(served, path, 5, b"", Content_Type="application/json").status_code == 415
    assert go_on(served, path, 5, b"", Upload_Complete="yes").status_code == 400


def test_what_nobody_needs_is_refused_before_it_travels(served: Served, path: str):
    begin(served, path)
    go_on(served, path, 0, ARRAYS[:100])
    served.client.post("/v1/tasks/plain-1/cancel", json={"reason": "enough"}, headers=served.people())

    def never() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {**served.device("bob"), **_PATCH, CONTENT_DIGEST: EMPTY_DIGEST}
    answer = served.client.patch(f"{path}/upload", content=never(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    assert begin(served, path).status_code == 410


_PATCH = {"Content-Type": "application/partial-upload", "Upload-Offset": "100", "Upload-Complete": "?0"}


def test_another_device_may_not_touch_it(served: Served, path: str):
    begin(served, path)
    assert served.call("eve", "HEAD", f"{path}/upload").status_code == 410
    assert served.call("eve", "DELETE", f"{path}/upload").status_code == 410
    assert served.call("bob", "DELETE", f"{path}/upload").status_code == 204
    assert served.call("bob", "HEAD", f"{path}/upload").status_code == 404


def test_an_upload_keeps_its_lease_by_progress_and_goes_when_its_round_is_over(served: Served, path: str):
    uploading = served.coordinator.uploading
    begin(served, path)
    for start in range(5):  # 15 seconds each, on a lease of 20
        served.clock.advance(15.0)
        if start < 3:
            go_on(served, path, start, ARRAYS[start : start + 1])
            leases = served.coordinator.tasks["plain-1"].state.leases
            assert leases["bob"].expires == served.clock() + 20.0
    served.coordinator.bell.ring()
    served.call("bob", "POST", "/v1/checkin", b"{}")  # the timers have been looked at when this is answered
    assert served.call("bob", "HEAD", f"{path}/upload").status_code in (404, 410)
    assert not uploading._open


def make_folder(path: Path) -> Uploads:
    return FolderUploads(path / "uploads")


@pytest.mark.parametrize("make", [make_folder, lambda _: MemoryUploads()])
def test_uploads_are_kept_as_they_were_written(make: Callable[[Path], Uploads], tmp_path: Path):
    uploads, upload = make(tmp_path), Upload("a1", "bob", "0" * 64, 9)
    uploads.begin(upload)
    uploads.write("a1", 0, b"abcdef")
    uploads.write("a1", 4, b"xyz")
    uploads.sync("a1")
    assert (uploads.find("a1"), uploads.every(), uploads.offset("a1")) == (upload, [upload], 7)
    assert b"".join(uploads.open("a1")) == b"abcdxyz"
    uploads.begin(upload)
    assert uploads.offset("a1") == 0
    uploads.remove("a1")
    uploads.remove("a1")
    assert uploads.every() == []
    for ask in (uploads.find, uploads.offset, uploads.sync, lambda name: uploads.write(name, 0, b"")):
        with pytest.raises(NotFound):
            ask("a1")
    with pytest.raises(BadRequest):
        uploads.begin(replace(upload, assignment="../blobs"))


def test_uploads_are_found_again_and_lie_there_for_their_owner_alone(tmp_path: Path):
    uploads = FolderUploads(tmp_path / "uploads")
    uploads.begin(Upload("a1", "bob", "0" * 64, 9))
    uploads.write("a1", 0, b"abc")
    assert FolderUploads(tmp_path / "uploads").offset("a1") == 3
    assert os.stat(tmp_path / "uploads").st_mode & 0o777 == 0o700
    assert os.stat(tmp_path / "uploads" / "a1.part").st_mode & 0o777 == 0o600


@given(st.binary(min_size=32, max_size=32))
def test_a_digest_field_reads_back_also_among_others(digest: bytes):
    assert read_digest_field("Repr-Digest", digest_field(digest)) == digest
    assert read_digest_field("Repr-Digest", f"sha-512=:AAAA:, {digest_field(digest)}") == digest


@pytest.mark.parametrize("field", ["", "sha-256=:AAAA:", "sha-256=AAAA", "sha-512=:AAAA:", "sha-256=:====:"])
def test_what_is_no_digest_field_is_refused(field: str):
    with pytest.raises(BadRequest, match="Content-Digest"):
        read_digest_field("Content-Digest", field)


def test_an_upload_that_another_process_began_goes_on_here(tmp_path: Path):
    async def both() -> tuple[Upload, int]:
        first, second = (Uploading(FolderUploads(tmp_path)) for _ in range(2))
        await first.begin(Upload("a1", "bob", "0" * 64, 9), anew=False)

        async def piece() -> AsyncIterator[bytes]:
            yield b"abc"

        assert await second.append("a1", 0, piece()) == 3
        await second.remove("a1")
        assert await first.begin(Upload("a1", "bob", "0" * 64, 9), anew=False) == 0
        await first.append("a1", 0, piece())
        return await second.stands("a1")

    assert asyncio.run(both()) == (Upload("a1", "bob", "0" * 64, 9), 3)
