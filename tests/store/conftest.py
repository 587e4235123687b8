"""Stores that are closed after the test."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from shoal.store.blobs import FolderBlobs
from shoal.store.sql import SqlStore


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[[], SqlStore]:
    numbers = count()
    return lambda: SqlStore(tmp_path / f"{next(numbers)}" / "shoal.db")


@pytest.fixture
def store(make_store) -> Iterator[SqlStore]:
    opened = make_store()
    yield opened
    opened.close()


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")
