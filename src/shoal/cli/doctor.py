"""`shoal doctor`: what is not right on this machine or at the coordinator, and how to mend it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from shoal.cli.ending import FAILED, reported
from shoal.cli.options import Ca, Json, MaybeToken, MaybeUrl
from shoal.cli.output import moment, print_json, print_table

if TYPE_CHECKING:
    from shoal.wire.messages import Health

State: TypeAlias = Literal["ok", "note", "wrong"]

PYTHON = (3, 11)
EXTRAS = {
    "torch": ("tasks and training from code", "shoal[torch]"),
    "onnxruntime": ("training by plan", "shoal[onnx]"),
    "psutil": ("a device's conditions: battery, idle", "shoal[device]"),
}
ROOM = 1 << 30
"""Bytes on the disk of a home below which a note is made."""
CLOCK_SECONDS = 30.0
"""How far a clock may be from the coordinator's before a note is made; devices correct theirs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    state: State
    found: str
    mend: str = ""


@reported
def doctor(
    url: MaybeUrl = None,
    token: MaybeToken = None,
    ca: Ca = None,
    home: Annotated[Path, typer.Option("--home", envvar="SHOAL_HOME", help="The home to look at.")] = Path(
        "~/.shoal/server"
    ),
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port to look at.")] = 8080,
    as_json: Json = False,
) -> None:
    """Check versions, disk and port here; with --url the coordinator too: reachable, clock, protocol, token.

    Ends with code 1 when something is wrong.
    """
    findings = [*_here(home.expanduser(), port), *(_there(url, token, ca) if url is not None else ())]
    if as_json:
        for finding in findings:
            print_json(finding)
    else:
        print_table(("check", "", "found", "mend"), [(f.check, f.state, f.found, f.mend) for f in findings])
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(FAILED)


def _here(home: Path, port: int) -> Iterator[Finding]:
    yield _python()
    yield from (_extra(package, *words) for package, words in EXTRAS.items())
    yield _disk(home)
    yield _port(port)


def _python() -> Finding:
    import platform
    import sys
    from importlib.metadata import version

    found = f"Python {platform.python_version()}, shoal {version('shoal')}"
    if sys.version_info < PYTHON:
        return Finding("python", "wrong", found, "install Python 3.11 or later")
    return Finding("python", "ok", found)


def _extra(package: str, purpose: str, extra: str) -> Finding:
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        found = version(package)
    except PackageNotFoundError:
        return Finding(package, "note", f"not installed: no {purpose}", f"pip install '{extra}'")
    asked = (line.partition(";") for line in requires("shoal") or () if "extra" in line)
    wanted = next((bounds for bounds, _, _ in asked if bounds.rstrip("<>=.,0123456789") == package), "")
    if wanted and not _fits(found, wanted):
        return Finding(package, "wrong", f"{found} is installed", f"pip install '{extra}', which takes {wanted}")
    return Finding(package, "ok", found)


def _fits(found: str, wanted: str) -> bool:
    import re

    def numbers(text: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3]]

    bounds = re.findall(r"(>=|<)([\d.]+)", wanted.partition(";")[0])
    return all(
        (numbers(found) >= numbers(to)) if sign == ">=" else (numbers(found) < numbers(to)) for sign, to in bounds
    )


def _disk(home: Path) -> Finding:
    import os

    existing = next(parent for parent in (home, *home.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Finding("home", "wrong", f"{existing} cannot be written to", "give a --home that you may write to")
    disk = os.statvfs(existing)
    free = disk.f_bavail * disk.f_frsize
    found = f"{home}: {free / 1e9:.1f} GB free" + ("" if home.exists() else ", not made yet")
    if free < ROOM:
        return Finding("home", "note", found, "free some space, or choose another --home")
    return Finding("home", "ok", found)


def _port(port: int) -> Finding:
    import socket

    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            found = f"{port} cannot be had ({error.strerror})"
            return Finding("port", "note", found, "a coordinator may run there already; else choose another --port")
    return Finding("port", "ok", f"{port} is free")


def _there(url: str, token: str | None, ca: Path | None) -> Iterator[Finding]:
    from shoal.core.errors import ShoalError
    from shoal.wire.http import Connection
    from shoal.wire.messages import Health
    from shoal.wire.watching import SessionReply

    try:
        with Connection(url, token=token, ca=ca) as connection:
            health = connection.call("GET", "/healthz", None, Health)
            yield Finding("coordinator", "ok", f"{url} answers, shoal {health.version}")
            yield _protocol(health)
            yield _clock(health)
            if token is None:
                yield Finding("token", "note", "none was given", "give --token, or set SHOAL_TOKEN")
                return
            session = connection.call("GET", "/v1/session", None, SessionReply)
            yield Finding("token", "ok", f"its role is {session.role}, good {_until(session.expires)}")
    except ShoalError as error:
        yield Finding("coordinator", "wrong", error.problem, error.fix)


def _protocol(health: "Health") -> Finding:
    from shoal.wire.messages import PROTOCOL

    if health.protocol == PROTOCOL:
        return Finding("protocol", "ok", f"both speak {PROTOCOL}")
    found = f"it speaks {health.protocol}, this machine {PROTOCOL}"
    return Finding("protocol", "wrong", found, "install the same version of Shoal on both")


def _clock(health: "Health") -> Finding:
    import time

    ahead = time.time() - health.server_time
    found = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the coordinator's"
    if abs(ahead) > CLOCK_SECONDS:
        return Finding("clock", "note", found, "set it by NTP; devices correct theirs, schedules and expiries do not")
    return Finding("clock", "ok", found)


def _until(expires: float | None) -> str:
    return "without an end" if expires is None else f"until {moment(expires)}"
