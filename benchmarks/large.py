"""What a round of a 100 MB model costs: a real coordinator and real agents, each a process of its own.

Memory is counted in sizes of the model. A coordinator's is its peak above what it held while idle; an owner's is its
peak above a process that has done nothing but import torch and the agent, so its own copy of the model counts.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import large_task
from processes import family_cpu, forget_peak, memory

import shoal
from shoal.train.arrays import named_arrays

CODE = Path(large_task.__file__)
IDLE = "import torch, shoal.cli.agent, shoal.agent.training\nprint(open('/proc/self/status').read())"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
QUIET = subprocess.DEVNULL


@dataclass(frozen=True)
class Large:
    """CPU seconds of all processes for each round after the first; peaks of memory in sizes of the model."""

    cpu_s_per_round: float
    server_peak_models: float
    owner_peak_models: float


@contextlib.contextmanager
def started(*arguments: str, **streams: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-m", "shoal", *arguments], env=ENVIRONMENT, **streams) as process:
        try:
            yield process
        finally:
            process.terminate()


def idle_owner() -> int:
    """Return the resident bytes of a process that is ready to train and has no model yet."""
    command = [sys.executable, "-c", IDLE]
    text = subprocess.run(command, capture_output=True, check=True, text=True, env=ENVIRONMENT).stdout
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("VmRSS:"))


def measure(owners: int, rounds: int) -> Large:
    """Run a federation; the CPU is that of the rounds between the first and the last."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        home = ("server", "--home", f"{folder}/server", "--port", "0", "--json")
        server = running.enter_context(started(*home, stdout=subprocess.PIPE, stderr=QUIET))
        assert server.stdout is not None
        said = json.loads(server.stdout.readline())
        line = running.enter_context(shoal.Coordinator.connect(said["url"], token=said["admin_token"]))
        line.tasks()  # once it has answered, all that it imports is there
        forget_peak(server.pid)
        idle, idle_agent = memory(server.pid, "VmRSS"), idle_owner()
        task = large_task.task()
        size = sum(tensor.nbytes for tensor in named_arrays(task.model).values())
        run = line.publish(task, rounds=rounds, goal=owners, plan=False)
        agents = [
            running.enter_context(
                started(
                    *("agent", "--url", said["url"], "--token", said["enrolment_token"], "--name", f"owner{number}"),
                    *("--home", f"{folder}/owner{number}", "--code", str(CODE)),
                    stdout=QUIET,
                    stderr=QUIET,
                )
            )
            for number in range(owners)
        ]
        spent = [family_cpu(os.getpid()) for _ in run.follow()]
        # its last round ended without the training of another one beside it
        each = (spent[-2] - spent[0]) / (rounds - 2) if rounds > 2 else spent[-1] - spent[0]
        return Large(
            cpu_s_per_round=round(each, 3),
            server_peak_models=round((memory(server.pid, "VmHWM") - idle) / size, 3),
            owner_peak_models=round((max(memory(agent.pid, "VmHWM") for agent in agents) - idle_agent) / size, 3),
        )
