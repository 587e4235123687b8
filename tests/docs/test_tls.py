"""The page tls.md: the certificates that it makes are good, and nothing is said to a coordinator without them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.following import follow, free_port
from tests.docs.terminals import Terminals


@pytest.mark.processes
def test_the_page(tmp_path: Path):
    port = free_port()
    with Terminals({"8080": port}) as terminals:
        seen = follow("tls.md", terminals, {"first": tmp_path})
        assert f"coordinator: https://127.0.0.1:{port}" in seen["coordinator"][0]
        command = [sys.executable, "-m", "shoal", "tasks", "--url", f"https://127.0.0.1:{port}", "--token", "any"]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "certificate" in refused.stderr
