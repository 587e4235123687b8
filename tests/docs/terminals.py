"""Terminals for the reader of a page: commands that end, and those that go on until they are told to stop."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

SIGNS = {"shoal server": "shoal tasks", "shoal agent": "enrolled as"}
"""What a command that goes on prints once it is at work."""

SECONDS = 120.0


class Background:
    """A command at work; its output is kept."""

    def __init__(self, script: str, folder: Path, environment: dict[str, str]) -> None:
        self.text = ""
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            ["bash", "-ec", script],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.text += line
                self._changed.notify_all()

    def until(self, sign: str) -> str:
        with self._changed:
            assert self._changed.wait_for(lambda: sign in self.text, SECONDS), self.text
        return self.text

    def end(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(SECONDS)
        self._thread.join(SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Terminals:
    """Terminals by name; each remembers what was exported in it. `words` replaces what a reader replaces."""

    def __init__(self, words: dict[str, str]) -> None:
        self.words = words
        self._exports: dict[str, list[str]] = {}
        self._running: list[Background] = []

    def __enter__(self) -> "Terminals":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for running in reversed(self._running):
            running.end()

    def type(self, terminal: str, text: str, folder: Path) -> str:
        """Run a block and return what it printed; of a command that goes on, what it printed until it is at work."""
        for word, replacement in self.words.items():
            text = text.replace(word, replacement)
        exports = self._exports.setdefault(terminal, [])
        script = "\n".join([*exports, text])
        exports += [line for line in text.splitlines() if line.startswith("export ")]
        environment = self._environment(folder)
        last = text.strip().splitlines()[-1]
        for command, sign in SIGNS.items():
            if last.startswith(command):
                running = Background(script, folder, environment)
                self._running.append(running)
                return running.until(sign)
        done = subprocess.run(
            ["bash", "-ec", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @staticmethod
    def _environment(folder: Path) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
        return {
            **kept,
            "PATH": path,
            "HOME": str(folder),
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "160",
            "OMP_NUM_THREADS": "1",
        }
