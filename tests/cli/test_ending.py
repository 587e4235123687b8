"""Errors are blocks of text on standard error, with exit codes that tell what happened."""

import os
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from shoal.cli.ending import described, reported
from shoal.cli.main import app
from shoal.core.errors import NotFound

runner = CliRunner()


def test_an_error_names_problem_fix_and_code():
    assert described(NotFound("no task 'bost'", "did you mean 'boston'?")) == (
        "error: no task 'bost'\n  fix: did you mean 'boston'?\n code: not_found"
    )


def test_errors_of_ours_end_with_1(tmp_path):
    result = runner.invoke(app, ["models", "show", str(tmp_path / "none.safetensors")])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: cannot read {tmp_path / 'none.safetensors'}: No such file")
    assert result.stderr.endswith("code: data\n")


def test_a_coordinator_that_is_away_is_one_block():
    result = runner.invoke(app, ["tasks", "--url", "http://127.0.0.1:9", "--token", "t"])
    assert result.exit_code == 1
    assert "check that the coordinator runs" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--owners", "0"],
        ["demo", "--data", "rows.csv"],
        ["demo", "--colour"],
        ["agent", "--url", "http://127.0.0.1:9", "--name", "bob"],
        ["agent", "--url", "http://127.0.0.1:9", "--name", "bob", "--code", "a.py", "--target", "y"],
        ["tasks", "--url", "http://127.0.0.1:9"],
        ["models", "download", "boston@first", "--to", "x", "--url", "http://127.0.0.1:9", "--token", "t"],
        ["fly"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments, monkeypatch):
    monkeypatch.delenv("SHOAL_TOKEN", raising=False)
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2, result.output


def test_interrupts_end_with_130():
    @reported
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(BaseException) as ended:  # noqa: PT011  (typer's Exit is no public exception type)
        command()
    assert ended.value.exit_code == 130


def test_other_errors_are_not_hidden():
    @reported
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command()


BUSY_THREAD = """
import sys, threading
from shoal.cli.ending import leave
threading.Thread(target=threading.Event().wait).start()
print("said")
try:
    sys.exit(7)
except SystemExit as ending:
    leave(ending)
"""


def test_leaving_does_not_wait_for_threads():
    done = subprocess.run([sys.executable, "-c", BUSY_THREAD], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (7, "said\n", "")


LIFELINE = """
import signal, sys
from shoal.cli.ending import end_on_sigterm
from shoal.cli.stdin import first_line, stop_when_closed
print(first_line(), flush=True)
end_on_sigterm()
stop_when_closed()
signal.pause()
"""


def test_a_process_ends_when_its_standard_input_closes():
    child = subprocess.Popen([sys.executable, "-c", LIFELINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"hello\nfurther words are ignored\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"hello\n"
    assert child.poll() is None
    child.stdin.close()
    assert child.wait(timeout=60) == 0
    child.stdout.close()


@pytest.mark.processes
def test_a_server_ends_on_sigterm_with_0(tmp_path):
    arguments = ["server", "--home", str(tmp_path / "home"), "--port", "0", "--json"]
    server = subprocess.Popen(
        [sys.executable, "-m", "shoal", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with server:
        assert server.stdout is not None
        assert b"enrolment_token" in server.stdout.readline()
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait(timeout=60) == 0
