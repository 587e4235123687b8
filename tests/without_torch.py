"""Environments with what `pip install shoal[onnx]` brings, and no torch: made once for each set of dependencies."""

import fcntl
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from tests.wheels import wheel

TOP = Path(__file__).parents[1]


def without_torch(interpreter: str = sys.executable) -> Path:
    """Return the interpreter of an environment of this Python, with the wheel of these sources and no torch."""
    asked = (TOP / "pyproject.toml").read_bytes() + (TOP / "constraints.txt").read_bytes() + interpreter.encode()
    place = TOP / ".pytest_cache" / "without-torch" / sha256(asked).hexdigest()[:16]
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made, sources = place / "made", sources_digest()
        if not made.exists():
            shutil.rmtree(place, ignore_errors=True)
            subprocess.run(
                [interpreter, "-m", "venv", "--without-pip", str(place)], check=True, timeout=120, env=unset()
            )
        if not made.exists() or made.read_text() != sources:
            shutil.rmtree(place / "wheel", ignore_errors=True)
            built = wheel(TOP, place / "wheel")
            again = ["--force-reinstall", "--no-deps"] if made.exists() else []
            pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python"), "install", "-q", "--no-compile"]
            constraints = ["-c", str(TOP / "constraints.txt")]
            subprocess.run([*pip, *constraints, *again, f"{built}[onnx]"], check=True, timeout=480, env=unset())
            made.write_text(sources)
    return place / "bin/python"


def sources_digest() -> str:
    """Return a digest of what the wheel is built from."""
    found = sha256()
    for path in sorted((TOP / "src/shoal").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(f"{path} {sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def unset() -> dict[str, str]:
    """Return the environment without what leads a Python to these sources."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SHOAL_"))}


def interpreter(version: str) -> str | None:
    """Return a Python of a version such as "3.13", wherever the machine has one; None where it has none."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    named = [shutil.which(f"python{version}"), *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for found in filter(None, named):
        command = [str(found), "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=unset())
        if told.stdout.strip() == version:
            return str(found)
    return None
