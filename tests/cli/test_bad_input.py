"""What a person types wrongly: one block that names the thing, the value and the way out, and exit code 1."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shoal.agent.home import AgentHome
from shoal.cli.main import app
from shoal.store.sql import SqlStore

NOWHERE = "http://127.0.0.1:9"
TASK = "import shoal, torch\ndef task():\n    return 1 / 0\n"

runner = CliRunner()


def refused(*arguments: str, exit_code: int = 1) -> str:
    """Run a command that must end with an error of ours, and return its block."""
    result = runner.invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


def block(text: str) -> dict[str, str]:
    """Read the block: error, fix, code."""
    return {part: rest.strip() for part, _, rest in (line.partition(": ") for line in text.splitlines()) if rest}


def agent(folder: Path, *more: str, data: str = "rows.csv", url: str = NOWHERE) -> dict[str, str]:
    if not (folder / "rows.csv").exists():
        (folder / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    home = ("--home", str(folder / "bob"))
    rows = ("--data", str(folder / data), "--target", "b") if "--data" not in more and "--code" not in more else ()
    return block(refused("agent", "--url", url, "--name", "bob", *home, *rows, *more))


@pytest.mark.parametrize(
    ("text", "problem", "fix", "code"),
    [
        ("a,b\n1,2\n3,red\n", "rows.csv line 3, column 'b': 'red'", "a finite number", "not_numeric"),
        ("a,b\n1,\n", "rows.csv line 2, column 'b': ''", "a finite number", "not_numeric"),
        ("a,b\n1,nan\n", "rows.csv line 2, column 'b': 'nan'", "a finite number", "not_numeric"),
        ("", "rows.csv is empty", "a header line", "no_rows"),
        ("a,b\n", "rows.csv has a header and no rows", "at least one row", "no_rows"),
        ("a,b\n1,2\n3\n", "rows.csv line 3 has 1 cells, the header 2: '3'", "one cell for each column", "data"),
        ("a;b\n1,5;2,5\n", "rows.csv line 1 has ';' between its names: 'a;b'", "commas between cells", "data"),
        ("1,2\n3,4\n", "rows.csv begins with numbers, line 1: 1,2", "a header line", "data"),
        ("a,c\n1,2\n", "rows.csv has no column 'b'", "use one of a, c", "data"),
        ("a,a,b\n1,2,3\n", "rows.csv has the column names ['a', 'a', 'b']", "its own name", "data"),
        (b"\xff\xfea,b\n", "rows.csv is no CSV text", "UTF-8", "data"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, text: str | bytes, problem: str, fix: str, code: str) -> None:
    (tmp_path / "rows.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    said = agent(tmp_path)
    assert problem in said["error"]
    assert fix in said["  fix"]
    assert said[" code"] == code


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbfb,a\n1,2\n")
    assert "got no answer" in agent(tmp_path)["error"]  # the table was read


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    assert "absent.csv: No such file" in agent(tmp_path, data="absent.csv")["error"]


@pytest.mark.parametrize("url", ["nonsense", "ftp://shoal", "http://", "127.0.0.1:8080", "http://a b"])
def test_an_address_that_is_none(tmp_path: Path, url: str) -> None:
    for said in (agent(tmp_path, url=url), block(refused("tasks", "--url", url, "--token", "t"))):
        assert said["error"] == f"no coordinator can be at {url!r}"
        assert "http://127.0.0.1:8080" in said["  fix"]


@pytest.mark.parametrize("token", ["two words", "line\nend", "schlüssel"])
def test_a_token_that_is_none_is_not_shown(token: str) -> None:
    text = refused("tasks", "--url", NOWHERE, "--token", token)
    assert block(text)[" code"] == "configuration"
    assert token not in text


def test_a_coordinator_that_is_not_there() -> None:
    said = block(refused("tasks", "--url", NOWHERE, "--token", "t"))
    assert "got no answer" in said["error"]
    assert "Connection refused" in said["error"]
    assert said[" code"] == "unreachable"


@pytest.mark.parametrize("home", ["rows.csv", "rows.csv/below"])
def test_a_home_that_cannot_be_written(tmp_path: Path, home: str) -> None:
    said = agent(tmp_path, "--home", str(tmp_path / home))
    assert f"{tmp_path / home} cannot be a device's home" in said["error"]
    said = block(refused("server", "--home", str(tmp_path / home), "--port", "0"))
    assert f"{tmp_path / home} cannot be a coordinator's home" in said["error"]


def test_a_home_in_use(tmp_path: Path) -> None:
    with AgentHome(tmp_path / "bob"):
        said = agent(tmp_path)
    assert said["error"] == f"another agent uses {tmp_path / 'bob'}"
    assert "a home of its own" in said["  fix"]


def test_a_device_without_an_invitation(tmp_path: Path) -> None:
    assert "got no answer" in agent(tmp_path)["error"]  # it could only ask for approval


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = 1\ndef task(:\n", "line 2: invalid syntax: def task(:"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        (TASK, "line 3: ZeroDivisionError: division by zero"),
        ("task = 7\n", "'task' in"),
        ("tsk = 7\n", "has no 'task'"),
        (None, "no Python file"),
    ],
)
def test_code_that_cannot_be_used(tmp_path: Path, text: str | None, problem: str) -> None:
    file = tmp_path / "code.py"
    if text is not None:
        file.write_text(text)
    options = ("--url", NOWHERE, "--token", "t", "--rounds", "1", "--owners", "1")
    said = block(refused("publish", f"{file}:task", *options))
    assert problem in said["error"]
    assert str(file) in said["error"]


def test_a_model_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "bin.safetensors"
    file.write_bytes(os.urandom(64))
    assert f"{file} is no model" in block(refused("models", "show", str(file)))["error"]


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = block(refused("server", "--home", str(tmp_path / "home"), "--port", str(port)))
    assert said["error"] == f"cannot listen on 127.0.0.1:{port} (Address already in use)"
    assert said["  fix"] == "choose another --port, or stop what uses it"
    assert not (tmp_path / "home").exists()


def test_a_host_that_is_not_here(tmp_path: Path) -> None:
    said = block(
        refused("server", "--home", str(tmp_path / "home"), "--host", "192.0.2.1", "--insecure-http", "--port", "0")
    )
    assert "192.0.2.1:0" in said["error"]
    assert "--host" in said["  fix"]


def database(home: Path) -> Path:
    SqlStore(home / "shoal.db").close()
    return home / "shoal.db"


def test_a_database_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "shoal.db").write_bytes(os.urandom(8192))
    said = block(refused("server", "--home", str(tmp_path), "--port", "0"))
    assert f"{tmp_path / 'shoal.db'} is not a sound database" in said["error"]
    assert (said["  fix"], said[" code"]) == ("restore the home from a backup", "corrupt_store")


def test_a_database_that_was_cut(tmp_path: Path) -> None:
    path = database(tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE").close()
    connection.close()
    os.truncate(path, path.stat().st_size // 2 + 100)
    assert block(refused("server", "--home", str(tmp_path), "--port", "0"))[" code"] == "corrupt_store"


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (("server", "--hoem", "x"), "--home"),
        (("sevrer",), "server"),
        (("server", "--port", "99999"), "65535"),
        (("server", "--port", "http"), "--port"),
        (("demo", "--owners", "0"), "--owners"),
        (("models", "lst"), "list"),
    ],
)
def test_usage_that_is_wrong_names_the_near_one(arguments: tuple[str, ...], near: str) -> None:
    assert near in refused(*arguments, exit_code=2)


class _WebSite(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status = {"/gone": 404, "/moved": 302, "/proxy": 502}.get("/" + self.path.split("/")[1], 200)
        page = b"<html><body>It works!</body></html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Location", "https://elsewhere.example/")
        self.end_headers()
        self.wfile.write(page)

    do_POST = do_GET  # noqa: N815  (the name that http.server calls)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def site() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _WebSite) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_an_ordinary_web_server_is_no_coordinator(tmp_path: Path, site: str) -> None:
    shown = {
        "": "'<html><body>It works!",
        "/gone": "404 with '<html>",
        "/moved": "sends callers on to https://elsewhere",
    }
    for path, words in shown.items():
        for said in (
            agent(tmp_path, "--token", "t", "--home", str(tmp_path / f"home{path}"), url=site + path),
            block(refused("tasks", "--url", site + path, "--token", "t")),
        ):
            assert words in said["error"]
            assert said[" code"] == "not_a_coordinator"
    assert block(refused("tasks", "--url", f"{site}/proxy", "--token", "t"))[" code"] == "unreachable"


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[dict[str, str]]:
    command = [sys.executable, "-m", "shoal", "server", "--home", str(tmp_path / "server"), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())
        finally:
            server.kill()


@pytest.mark.processes
def test_what_a_coordinator_refuses_ends_the_command_with_its_words(
    tmp_path: Path, coordinator: dict[str, str]
) -> None:
    url, token = coordinator["url"], coordinator["admin_token"]
    people = ("--url", url, "--token")
    assert block(refused("tasks", *people, "wrong"))[" code"] == "unauthorised"
    assert block(refused("tasks", *people, coordinator["enrolment_token"]))[" code"] == "forbidden"
    said = block(refused("watch", "bostn", *people, token))
    assert said["error"] == "no task 'bostn'"
    assert block(refused("models", "list", "bostn", *people, token))[" code"] == "not_found"
    assert agent(tmp_path, "--token", "wrong", url=url)[" code"] == "unauthorised"
    rows = ("--data", str(tmp_path / "rows.csv"), "--target", "b", "--home", str(tmp_path / "other"))
    joining = ("--url", url, "--token", coordinator["enrolment_token"], "--name", "bob", *rows)
    with subprocess.Popen(
        [sys.executable, "-m", "shoal", "agent", *joining], stdout=subprocess.PIPE, text=True
    ) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == f"enrolled as 'bob' at {url}\n"
        finally:
            first.kill()
    said = agent(tmp_path, "--token", coordinator["enrolment_token"], url=url)
    assert said["error"] == "the name 'bob' belongs to another device, or its key to another name"
    assert said[" code"] == "conflict"
