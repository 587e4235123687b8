"""A PostgreSQL server of its own for tests: in a new folder, behind a Unix socket, gone afterwards.

The programs come from the system (Debian: `apt-get install postgresql`). PostgreSQL refuses to run as root, so root
starts it as the user `postgres`, or as `nobody` where there is none.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from sqlalchemy import URL

START_SECONDS = 60.0
STOP_SECONDS = 30.0
USER = "shoal"


def programs() -> Path | None:
    """Return the folder of PostgreSQL's newest programs here, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    there = str(found[-1]) if found else shutil.which("initdb")
    return None if there is None else Path(there).parent


def _account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


class PostgresProcess:
    """A server that lives as long as the block; `database()` makes an empty database and returns its URL.

    Raises FileNotFoundError where PostgreSQL is not installed, TimeoutError when it does not start.
    """

    def __init__(self, *settings: str) -> None:
        bin_ = programs()
        if bin_ is None:
            raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
        self._bin = bin_
        self._settings = settings
        self._password = secrets.token_urlsafe(16)
        account = _account()
        self._user = None if account is None else account.pw_uid
        self._group = None if account is None else account.pw_gid
        self._folder = Path(tempfile.mkdtemp(prefix="shoal-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self) -> None:
        if self._user is not None and self._group is not None:
            os.chown(self._folder, self._user, self._group)
        secret = self._folder / "password"
        secret.write_text(self._password)
        self._run(
            "initdb", "-D", str(self._folder / "data"), "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}",
            "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        secret.unlink()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(  # noqa: S603  (a program of the system's)
            [str(self._bin / program), *arguments],
            capture_output=True,
            timeout=START_SECONDS,
            check=False,
            cwd=self._folder,
            user=self._user,
            group=self._group,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")

    def start(self) -> None:
        """Start it; returns once it answers."""
        options = [f"unix_socket_directories={self._folder}", "listen_addresses=", *self._settings]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  (a program of the system's)
                [str(self._bin / "postgres"), "-D", "data", *(word for option in options for word in ("-c", option))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=self._folder,
                user=self._user,
                group=self._group,
            )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self._conninfo()).close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise TimeoutError(f"PostgreSQL did not start: {self.log()[-2000:]}") from error
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End it at once, as a crash would: what it acknowledged is in its log."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def log(self) -> str:
        """Return what it said."""
        return (self._folder / "log").read_text(errors="replace")

    def database(self) -> str:
        """Return the URL, with the password, of a schema that is empty: as good as a database, and made in no time."""
        self._made += 1
        name = f"shoal_{self._made}"
        self.execute(f"CREATE SCHEMA {name}")
        where = {"host": str(self._folder), "options": f"-csearch_path={name}"}
        url = URL.create("postgresql", USER, self._password, database="postgres", query=where)
        return url.render_as_string(hide_password=False)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Carry out a statement by hand and return its rows."""
        with psycopg.connect(self._conninfo(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _conninfo(self) -> str:
        return psycopg.conninfo.make_conninfo(
            host=str(self._folder), user=USER, password=self._password, dbname="postgres", connect_timeout=5
        )
