from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from shoal.store.memory import MemoryBlobs, MemoryStore
from tests.agent.federation import Federation

# models this small lose time to a second thread
torch.set_num_threads(1)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path, MemoryStore(), MemoryBlobs())
    yield made
    made.close()
