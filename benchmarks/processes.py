"""What processes cost, read from /proc (proc(5)): CPU seconds and memory. Linux only."""

import os
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
RESET_PEAK = "5"
"""What makes the kernel forget the peak of a process's resident memory, written to its clear_refs."""


def stat(process: Path) -> tuple[int, int, float]:
    """Return a process's id, its parent's, and the CPU seconds of all its threads."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return int(process.name), int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS


def processes() -> Iterator[tuple[int, int, float]]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield stat(process)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the two looks


def family_cpu(root: int) -> float:
    """Return the CPU seconds so far of a process and its children."""
    return sum(cpu for pid, parent, cpu in processes() if root in (pid, parent))


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds so far of one process."""
    return stat(Path(f"/proc/{pid}"))[2]


def memory(pid: int, field: str) -> int:
    """Return VmRSS (resident now) or VmHWM (its peak) of a process in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def forget_peak(pid: int) -> None:
    """Let VmHWM of a process begin again at what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text(RESET_PEAK)
