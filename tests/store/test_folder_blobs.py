"""Blobs in a folder: what lies where, what a crash leaves, and a disk without space."""

import hashlib
import os
import sys

import pytest

from shoal.core.errors import StorageFull
from shoal.store.blobs import PIECE, FolderBlobs

DATA = b"0123456789"
DIGEST = hashlib.sha256(DATA).hexdigest()


def files(blobs):
    return sorted(path.relative_to(blobs.path).as_posix() for path in blobs.path.rglob("*") if path.is_file())


def write(blobs, namespace="updates", data=DATA):
    writer = blobs.writer(namespace)
    writer.write(data)
    return writer.commit()


def test_a_blob_lies_under_its_digest_and_nothing_else_is_left(blobs):
    assert write(blobs) == DIGEST
    assert files(blobs) == [f"updates/{DIGEST[:2]}/{DIGEST}"]


def test_only_the_owner_may_read(blobs):
    write(blobs)
    modes = {path.stat().st_mode & 0o777 for path in blobs.path.rglob("*")}
    assert modes == {0o700, 0o600}


def test_large_blobs_come_in_pieces(blobs):
    digest = write(blobs, data=bytes(2 * PIECE + 5))
    assert [len(piece) for piece in blobs.open(digest)] == [PIECE, PIECE, 5]
    assert [len(piece) for piece in blobs.open(digest, 1, PIECE + 2)] == [PIECE, 1]


def test_what_a_crash_left_goes_when_the_folder_is_opened(blobs):
    (blobs.path / "incoming" / "left").write_bytes(b"half of an upload")
    write(blobs)
    again = FolderBlobs(blobs.path)
    assert files(again) == [f"updates/{DIGEST[:2]}/{DIGEST}"]


def test_another_process_that_opens_the_folder_takes_no_upload_away(blobs):
    writer = blobs.writer("published")
    writer.write(DATA)
    FolderBlobs(blobs.path)
    assert b"".join(blobs.open(writer.commit())) == DATA


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_is_said_and_leaves_nothing(blobs):
    writer = blobs.writer("updates")
    with open("/dev/full", "wb", buffering=0) as full:
        os.dup2(full.fileno(), writer._file.fileno())
    with pytest.raises(StorageFull, match=r"no space.*incoming"):
        writer.write(DATA)
    writer.abort()
    assert files(blobs) == []
