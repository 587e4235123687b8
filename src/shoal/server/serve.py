"""Running a coordinator from a folder: its home."""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from shoal.core.errors import ConfigurationError
from shoal.server.app import build_app
from shoal.server.at_once import AtOnce
from shoal.server.come_back import come_back
from shoal.server.coordinator import Coordinator
from shoal.server.home import BLOBS, DATABASE, KEY, UPLOADS, VARIANTS, sharing
from shoal.server.key import load_key
from shoal.server.limits import Limits
from shoal.server.metrics import Metrics
from shoal.server.page import open_to_browsers
from shoal.server.space import measure
from shoal.store import failpoints
from shoal.store.blobs import FolderBlobs
from shoal.store.sql import SqlStore
from shoal.store.uploads import FolderUploads
from shoal.wire.listening import address, listen
from shoal.wire.lock import Lock

KEEP_ALIVE_SECONDS = 75
STOP_SECONDS = 1

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where a coordinator listens; the tokens only on the first start of its home."""

    url: str
    home: str
    admin_token: str | None
    enrolment_token: str | None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, coordinator: Coordinator) -> None:
        super().__init__(config)
        self._coordinator = coordinator

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Long polls are answered at once, else the server would wait for them to end.
        self._coordinator.bell.close()
        super().handle_exit(sig, frame)


def open_coordinator(
    home: Path,
    limits: Limits = Limits(),  # noqa: B008  (it is frozen)
    *,
    approval: bool = False,
) -> Coordinator:
    """Open the store and the blobs of a home, which is made when it is not there."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        metrics = Metrics()
        store, blobs = SqlStore(home / DATABASE, metrics.appended), FolderBlobs(home / BLOBS)
        return Coordinator(
            store,
            blobs,
            clock=failpoints.clock(os.environ.get(failpoints.CLOCK)),
            limits=limits,
            measured=lambda: measure(home),
            metrics=metrics,
            uploads=FolderUploads(home / UPLOADS),
            key=load_key(home / KEY),
            variants=home / VARIANTS,
            approval=approval,
        )
    except OSError as error:
        raise ConfigurationError(
            f"{home} cannot be a coordinator's home: {error.strerror}", "give a folder that you may write to"
        ) from error


def serve(
    home: Path,
    host: str,
    port: int,
    *,
    announce: Callable[[Announcement], None],
    page: Path | None = None,
    origins: Sequence[str] = (),
    limits: Limits = Limits(),  # noqa: B008  (it is frozen)
    metrics_public: bool = False,
    approval: bool = False,
    lock: Lock = Lock(),  # noqa: B008  (it is frozen)
) -> None:
    """Serve a home until SIGTERM or SIGINT. Port 0 takes a free one.

    With `approval` devices without a token wait for a person. `page` is a folder for browsers, `origins` are those
    whose pages may call. Raises ConfigurationError when the port is taken, one of these is wrong, the line would be
    open to other machines or the home is being migrated, NewerDatabase, OlderDatabase, CorruptStore.
    """
    failpoints.arm(os.environ.get(failpoints.VARIABLE))
    lock.check(host)
    with listen(host, port) as listener, sharing(home):
        coordinator = open_coordinator(home, limits, approval=approval)
        app = build_app(coordinator, metrics_public=metrics_public)
        open_to_browsers(app, page, origins)  # may fail, so before the tokens are made: they are shown only once
        _run(app, coordinator, listener, home, announce, lock)


def _run(
    app: FastAPI,
    coordinator: Coordinator,
    listener: socket.socket,
    home: Path,
    announce: Callable[[Announcement], None],
    lock: Lock,
) -> None:
    first = not coordinator.identities.tokens
    now = coordinator.clock()
    announcement = Announcement(
        url=address(lock.scheme, listener),
        home=str(home),
        admin_token=coordinator.identities.issue("admin", now) if first else None,
        enrolment_token=coordinator.identities.issue("enrolment", now) if first else None,
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # what a proxy says about the caller is believed nowhere
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        http=partial(AtOnce, answer=partial(come_back, coordinator)),  # type: ignore[arg-type]  # it is called
        ws="none",
        ssl_certfile=lock.cert,
        ssl_keyfile=lock.key,
    )
    announce(announcement)
    log.info("serving", url=announcement.url, home=announcement.home)
    _Server(config, coordinator).run([listener])
