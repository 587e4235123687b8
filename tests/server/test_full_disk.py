"""A disk that is really full: 507 with the way out, nothing lost, and work goes on once there is space."""

from pathlib import Path

import pytest

from tests.full_disk import inside


@pytest.mark.processes
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    inside("tests.server.full_disk_rounds", tmp_path)
