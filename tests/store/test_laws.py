"""Every store keeps the laws of stores."""

from itertools import count

import pytest

from shoal.store.blobs import FolderBlobs
from shoal.store.memory import MemoryBlobs, MemoryStore
from shoal.store.sql import SqlStore
from shoal.testing.laws import blobs_laws, store_laws


def test_memory_store():
    store_laws(MemoryStore)


@pytest.mark.slow
def test_sql_store(make_store):
    def reopen(store):
        store.close()
        return SqlStore(store.database.path)

    store_laws(make_store, reopen)


def test_memory_blobs():
    blobs_laws(MemoryBlobs)


def test_folder_blobs(tmp_path):
    numbers = count()
    blobs_laws(lambda: FolderBlobs(tmp_path / f"{next(numbers)}"), lambda blobs: FolderBlobs(blobs.path))
