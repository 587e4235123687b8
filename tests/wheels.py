"""Wheels, built as their users get them."""

import subprocess
import sys
from pathlib import Path


def wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of a project, as pip does, and return it."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built
