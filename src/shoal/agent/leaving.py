"""Leaving for good: the user's data goes first, then the coordinator is told, then the key goes.

A mark in the home says that the device is leaving. Whatever dies in between, the next start goes on from there.
"""

import shutil
from pathlib import Path

from shoal.agent import client_state, examples, personal, versions
from shoal.agent.home import RECEIPTS, RELEASES
from shoal.core.errors import Unauthorised
from shoal.store.durable import sync_folder, write_durably
from shoal.wire.http import Connection
from shoal.wire.messages import ReleaseRequest

MARK = "leaving"
DATA = (examples.FILE, f"{examples.FILE}-journal", personal.FILE, personal.NEXT, RELEASES, RECEIPTS)
FOLDERS = (versions.FOLDER, client_state.FOLDER, "outbox", "blobs", "versions")


def is_leaving(home: Path) -> bool:
    """Whether a device began to leave this home and did not end."""
    return (home / MARK).exists()


def begin(home: Path) -> None:
    """Mark the home, durably, and remove everything that was made from the user's examples."""
    write_durably(home / MARK, [b""], 0o600)
    for name in DATA:
        (home / name).unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(home / name, ignore_errors=True)
    sync_folder(home)


def revoke(connection: Connection) -> None:
    """Tell the coordinator. One that does not know the device any more was told before."""
    try:
        connection.call("DELETE", "/v1/devices/me", None, ReleaseRequest)
    except Unauthorised:
        return


def end(home: Path) -> None:
    """Remove the key, then the mark, and the folder where nothing else is in it."""
    for name in ("device.json", "lock", MARK):
        (home / name).unlink(missing_ok=True)
    if not any(home.iterdir()):
        home.rmdir()
